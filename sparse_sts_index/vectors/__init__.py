"""Numbers: quantizer, vocabulary, precision and explanations. No torch, no Java, no files."""
