"""Search one snapshot of an index: in memory where that pays, by Lucene otherwise."""

from __future__ import annotations

from scipy.sparse import csr_array

from sparse_sts_index.search.certified import Mode, Neighbours, search, search_in_memory
from sparse_sts_index.search.inverted import InvertedVectors
from sparse_sts_index.storage.snapshot import Snapshot

#: Largest index that is searched in memory by default, and the number of queries before that.
_IN_MEMORY_DOCUMENTS, _QUERIES_THAT_PAY = 1 << 18, 20


class Searcher:
    """Nearest neighbours in one snapshot.

    Searchers of one snapshot share what they hold in memory, and several threads may use them.

    Parameters
    ----------
    snapshot : Snapshot
        Must be open while :meth:`search` runs; see :meth:`.storage.impact_index.ImpactIndex.using`.
    in_memory : bool, optional
        Hold the vectors by term in memory, 16 bytes per posting, and search them there, exactly in every mode;
        otherwise search with Lucene. Exact search finds the same either way. Default: in memory up to 262,144
        documents, after the first 20 queries.

    Attributes
    ----------
    snapshot : Snapshot
    """

    def __init__(self, snapshot: Snapshot, in_memory: bool | None = None) -> None:
        self.snapshot = snapshot
        self._in_memory = in_memory

    def search(self, vectors: csr_array, k: int, mode: Mode = "exact") -> list[Neighbours]:
        """Return the nearest documents of each query.

        Parameters
        ----------
        vectors : csr_array of float32, shape (n, vocab)
            L2-normalised queries; see :func:`~.search.certified.check_vectors`.
        k : int
            Number of neighbours per query. Documents of cosine 0 are not neighbours, so there may be fewer.
        mode : {"exact", "two-step", "approximate"}

        Returns
        -------
        list of n Neighbours
            Certified in mode ``exact``, and whenever the search runs in memory.
        """
        inverted = self._inverted_vectors(vectors.shape[0])
        if inverted is None:
            return search(self.snapshot, vectors, k, mode)
        return search_in_memory(self.snapshot.store, inverted, vectors, k)

    def _inverted_vectors(self, queries: int) -> InvertedVectors | None:
        snapshot = self.snapshot
        with snapshot.deriving:
            asked = snapshot.derived["queries"] = snapshot.derived.get("queries", 0) + queries
            wanted = self._in_memory
            if wanted is None:  # a snapshot that is about to be replaced does not repay the transposing
                wanted = snapshot.manifest.documents <= _IN_MEMORY_DOCUMENTS and asked > _QUERIES_THAT_PAY
            if not wanted:
                return None
            inverted: InvertedVectors | None = snapshot.derived.get("inverted")
            if inverted is None:
                inverted = snapshot.derived["inverted"] = InvertedVectors(snapshot.store)
            return inverted
