"""Names of the folders, files and Lucene fields of an index; ``docs/reference/format.md`` says what is in them."""

from __future__ import annotations

import re
from pathlib import Path

#: In the folder of an index.
LUCENE_FOLDER, MANIFEST_FILE = "lucene", "manifest.json"
VECTORS_FOLDER = re.compile(r"vectors-(\d+)")
#: In the folder of the vectors, beside the files of :mod:`~.storage.vector_files`.
VOCABULARY_FILE = "vocabulary.json"
#: In the user data of Lucene's commit.
MANIFEST_KEY = "sparse-sts-manifest"
#: In the folder of a collection of shards.
COLLECTION_FILE = "collection.json"
SHARDS_FOLDER = re.compile(r"shards-[0-9a-f]{12}")
#: Lucene's fields; those of Anserini, and the row of the float vector.
ID, CONTENTS, RAW, ROW = "id", "contents", "raw", "row"


def is_collection(path: Path) -> bool:
    """Return whether a folder holds a collection of shards."""
    return (path / COLLECTION_FILE).is_file()


def is_index(path: Path) -> bool:
    """Return whether a folder holds an index or a collection of shards, be it complete or not."""
    return (path / LUCENE_FOLDER).is_dir() or is_collection(path)
