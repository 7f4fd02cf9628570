"""Measurement: correlation, baselines, trade-offs, the benchmark and its report."""
