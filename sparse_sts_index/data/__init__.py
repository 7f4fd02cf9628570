"""Input that users provide: records, documents, pairs and the embedded sample."""
