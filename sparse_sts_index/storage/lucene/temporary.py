"""A Lucene index for the length of one measurement."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from scipy.sparse import csr_array

from sparse_sts_index.storage.lucene.reader import ImpactReader
from sparse_sts_index.storage.lucene.writer import ImpactWriter


@contextmanager
def scratch_index(impacts: csr_array, terms: Sequence[str]) -> Iterator[tuple[ImpactReader, int]]:
    """Documents in a temporary Lucene index, merged, without sentences.

    Parameters
    ----------
    impacts : csr_array of int32, shape (n, vocab)
    terms : sequence of str, length vocab
        Lucene terms.

    Yields
    ------
    ImpactReader
        The document of row 12 has the id ``"12"``.
    int
        Bytes of the index.
    """
    ids = [str(row) for row in range(impacts.shape[0])]
    with tempfile.TemporaryDirectory(prefix="sparse-sts-") as folder:
        with ImpactWriter(Path(folder)) as writer:
            writer.add(ids, [""] * len(ids), impacts, terms)
            writer.merge()
            writer.commit({})
        reader = ImpactReader(Path(folder))
        try:
            yield reader, sum(path.stat().st_size for path in Path(folder).iterdir())
        finally:
            reader.close()
