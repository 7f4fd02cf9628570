"""What an index holds and answers, looked at from a process of its own."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.sparse import vstack

from sparse_sts_index.errors import ImpactIndexError
from sparse_sts_index.search.searcher import Searcher
from sparse_sts_index.storage.impact_index import ImpactIndex

QUERIES, K = 25, 10


@dataclass(frozen=True)
class View:
    """An index as a reader finds it.

    Attributes
    ----------
    documents : dict of str to str
        Id to a checksum of sentence and vector.
    answers : bool
        Whether searches, by Lucene and in memory, are those of brute force over the vectors.
    """

    documents: dict[str, str]
    answers: bool


def look(path: Path) -> View | None:
    """Verify an index, read all of it, and ask it; None if there is none."""
    try:
        index = ImpactIndex.open(path)
    except ImpactIndexError as error:
        if "no index at" in str(error) or "no complete index" in str(error) or "has no folder" in str(error):
            return None
        raise
    with index:
        index.verify()
        chunks = list(index.read())
        documents: dict[str, str] = {}
        for chunk in chunks:
            for row, document in enumerate(chunk.documents):
                vector = chunk.vectors[[row]]
                digest = hashlib.sha256(document.text.encode())
                digest.update(vector.indices.tobytes() + vector.data.tobytes())
                documents[document.id] = digest.hexdigest()
        if not chunks:
            return View(documents, True)
        vectors = vstack([chunk.vectors for chunk in chunks], format="csr")
        ids = np.array([document.id for chunk in chunks for document in chunk.documents])
        queries = vectors[np.linspace(0, vectors.shape[0] - 1, QUERIES).astype(int)]
        cosines = (queries.astype(np.float64) @ vectors.astype(np.float64).T).toarray()
        right = True
        for in_memory in (False, True):
            with ImpactIndex.open(path) as other, other.using() as state:
                for row, found in enumerate(Searcher(state, in_memory).search(queries, K)):
                    order = np.lexsort((ids, -cosines[row]))[:K]
                    best = [(ids[i], cosines[row, i]) for i in order if cosines[row, i] > 0]
                    got = list(zip(state.store.ids(np.array(found.rows)), found.cosines, strict=True))
                    same = [a for a, _ in best] == [a for a, _ in got] and np.allclose(
                        [c for _, c in best], [c for _, c in got], rtol=0, atol=1e-12
                    )
                    right = right and same and found.certified
        return View(documents, right)
