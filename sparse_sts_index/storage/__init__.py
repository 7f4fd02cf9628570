"""One index on disk: manifest, vector files, Lucene files, snapshots and transactions."""
