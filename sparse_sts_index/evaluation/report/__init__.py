"""The HTML report of a benchmark."""
