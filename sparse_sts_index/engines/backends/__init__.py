"""One module per serving engine."""
