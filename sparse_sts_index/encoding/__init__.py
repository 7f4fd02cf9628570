"""Sentences to sparse unit vectors: models, the fused SPLADE head and calibration. Needs torch."""
