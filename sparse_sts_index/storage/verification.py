"""Compare everything in an index with everything else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from sparse_sts_index._utils.files import MOST_JSON, from_sealed_json, read_plain
from sparse_sts_index.data.fields import FieldValue
from sparse_sts_index.data.filters import And, Compare, Exists, Filter, Not, Or
from sparse_sts_index.errors import ImpactIndexError
from sparse_sts_index.storage.layout import ID, MANIFEST_FILE
from sparse_sts_index.storage.lucene.query import EVERYTHING, filter_text, query_terms
from sparse_sts_index.storage.shards import shard_folders
from sparse_sts_index.storage.snapshot import Snapshot
from sparse_sts_index.vectors.quantizer import Quantizer

_CHUNK = 2048  # documents compared at a time
_FIELDS_CHUNK = 256  # their fields, by one filter


def verify(path: Path, snapshot: Snapshot, progress: Callable[[int], None] | None = None) -> int:
    """Files with their checksums, counts, documents with vectors; see :meth:`.impact_index.ImpactIndex.verify`."""
    manifest, quantizer = snapshot.manifest, Quantizer(snapshot.manifest.bits)
    snapshot.check()
    for folder in shard_folders(path):
        _verify_copy(folder / MANIFEST_FILE)
    postings = 0
    for chunk in snapshot.store.live_rows(_CHUNK):
        vectors = snapshot.store.take(chunk)
        impacts = quantizer.quantize(vectors)
        postings += impacts.nnz
        if quantizer.errors(vectors).max() > manifest.max_document_error:
            raise ImpactIndexError(f"{path}: a rounding error above the manifest's")
        _verify_documents(path, snapshot, chunk, impacts)
        _verify_fields(path, snapshot, chunk)
        if progress is not None:
            progress(len(chunk))
    if postings != manifest.postings:
        raise ImpactIndexError(f"{path}: {postings:,} postings, {manifest.postings:,} in the manifest")
    return manifest.documents


def _verify_documents(path: Path, snapshot: Snapshot, rows: NDArray[np.int64], impacts: csr_array) -> None:
    """Each document is in Lucene under its id, once, with its row, and with impacts that score as they should."""
    ids, terms = snapshot.store.ids(rows), snapshot.vocabulary.terms
    queries = [query_terms(impacts, number, terms) for number in range(len(ids))]
    expected = [float(sum(weight * weight for weight in weights)) for _, weights in queries]
    matches = snapshot.reader.search_impacts(queries, 2, ids=ids)
    for doc_id, row, score, found in zip(ids, rows.tolist(), expected, matches, strict=True):
        same = len(found) == 1 and found.rows[0] == row and abs(found.scores[0] - score) <= 1e-6 * score
        if not same:
            raise ImpactIndexError(f"{path}: document {doc_id!r} is not the same in Lucene and in the vectors")
    snapshot.reader.texts([int(found.docids[0]) for found in matches])  # refuses what cannot be read


def _verify_fields(path: Path, snapshot: Snapshot, rows: NDArray[np.int64]) -> None:
    """Each document has in Lucene the values that it has in the columns; a list may have more there."""
    if not snapshot.manifest.fields:
        return
    for start in range(0, len(rows), _FIELDS_CHUNK):
        block = rows[start : start + _FIELDS_CHUNK]
        pairs = zip(snapshot.store.ids(block), snapshot.store.fields_of(block), strict=True)
        each = tuple(And((Compare(ID, "=", doc_id), *_conditions(snapshot, values))) for doc_id, values in pairs)
        (found,) = snapshot.reader.search([EVERYTHING], len(block), filter_text(Or(each)))
        if len(missing := np.setdiff1d(block, found.rows)):
            (doc_id,) = snapshot.store.ids(missing[:1])
            raise ImpactIndexError(f"{path}: document {doc_id!r} has other fields in Lucene than beside the vectors")


def _conditions(snapshot: Snapshot, values: Mapping[str, FieldValue]) -> Iterator[Filter]:
    for name in snapshot.manifest.fields:
        if name not in values:
            yield Not(Exists(name))
            continue
        value = values[name]
        for part in value if isinstance(value, tuple) else (value,):
            yield Compare(name, "=", part)


def _verify_copy(file: Path) -> None:
    """Of the manifest, which nobody but people and other programs read; a killed writer may have left an older one."""
    try:
        if file.is_file():
            from_sealed_json(read_plain(file, MOST_JSON).decode("utf-8"))
    except (OSError, ValueError) as error:
        raise ImpactIndexError(f"{file} is not as it was written; the next change writes it anew") from error
