"""Clean a collection: of sentences that say the same, one stays.

Exact: no two that stay have a cosine of the threshold or more, and each that goes has such a cosine with one that stays
(see :mod:`.search.representatives`). Texts that are the same by their characters are found before anything is encoded:
the same in Unicode's normalisation form C, with each run of blanks, tabs and line ends taken for a blank, and none at
either end. In that form they are encoded.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
import unicodedata
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from sparse_sts_index._utils.files import os_errors_as
from sparse_sts_index.data.documents import Document
from sparse_sts_index.encoding.documents import CHUNK, encode_documents
from sparse_sts_index.errors import DataError
from sparse_sts_index.search.representatives import representatives
from sparse_sts_index.search.similarity_join import check_threshold
from sparse_sts_index.storage.vector_files import Extent, VectorStore, VectorWriter
from sparse_sts_index.vectors.quantizer import Quantizer

#: What the tokenizers of BERT take for a blank, of ASCII.
_BLANKS = re.compile(r"[ \t\r\n]+")

if TYPE_CHECKING:
    from sparse_sts_index.encoding.encoder import SparseStsEncoder


@dataclass(frozen=True)
class Deduplication:
    """The rows of a collection that stay, and why the others go.

    Attributes
    ----------
    standing : ndarray of int64, shape (n,)
        The row that stands for each row, numbered from 0: itself for one that stays.
    cosines : ndarray of float64, shape (n,)
        The cosine of each row with the one that stands for it.
    texts : ndarray of int64, shape (n,)
        The number of each row's text: two rows with the same text have the same.
    """

    standing: NDArray[np.int64]
    cosines: NDArray[np.float64]
    texts: NDArray[np.int64]

    @property
    def stays(self) -> NDArray[np.bool_]:
        """Return whether each row stays, shape (n,)."""
        return np.equal(self.standing, np.arange(len(self.standing)))

    @property
    def same(self) -> NDArray[np.bool_]:
        """Return whether each row goes because its text is that of the row that stands for it, shape (n,)."""
        return ~self.stays & np.equal(self.texts, self.texts[self.standing])

    def largest(self, count: int) -> dict[int, int]:
        """Return the rows that stand for the most others, with how many they stand for, themselves included."""
        sizes = np.bincount(self.standing, minlength=1)
        rows = np.argsort(-sizes, kind="stable")[:count]
        return {int(row): int(sizes[row]) for row in rows if sizes[row] > 1}

    def nearest(self, count: int) -> list[int]:
        """Return the rows that go by the least cosine, the least first; of each text, the first row."""
        goes = np.flatnonzero(~self.stays & ~self.same)
        goes = np.sort(goes[np.unique(self.texts[goes], return_index=True)[1]])
        return [int(row) for row in goes[np.argsort(self.cosines[goes], kind="stable")[:count]]]


def deduplicate(
    texts: Iterable[str],
    encoder: SparseStsEncoder,
    threshold: float = 0.95,
    *,
    preference: Sequence[float] | NDArray[np.float64] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Deduplication:
    """Find what has to go from a collection so that no two of its sentences are similar.

    Texts are read once, a few thousand at a time. Of different ones, the vectors are held in a temporary file (8 bytes
    for each term, with a preference twice), and in memory their impacts (at most 4 bytes for each term) and some 200
    bytes each; of all rows, 40 bytes each. Where very many are similar to each other, the join needs more: 24 bytes for
    each pair of a few hundred rows.

    Parameters
    ----------
    texts : iterable of str, length n
    encoder : SparseStsEncoder
    threshold : float
        Above 0, at most 1. A cosine that lacks up to 2e-6 of it counts.
    preference : sequence of float, length n, optional
        Of rows that are similar, that of the greatest number stays, the earlier one of equals; nan is less than any
        number. Default: the earlier row stays.
    progress : callable, optional
        Called with the number of texts read since its last call.

    Raises
    ------
    DataError
        A text holds an unpaired surrogate.
    ModelError
        The model gives unusable weights.
    ValueError
        `threshold` out of range, `texts` one string or with something else in it, or `preference` not as long.
    """
    check_threshold(threshold)
    if isinstance(texts, str):
        raise ValueError("expected a sequence of texts, not one string")
    numbers = array("q")  # of each row, that of its text
    documents = _different(texts, numbers, progress)
    with tempfile.TemporaryDirectory(prefix="sparse-sts-", ignore_cleanup_errors=True) as folder:
        width = len(encoder.vocabulary)
        chunks = encode_documents(documents, encoder, Quantizer())
        store = _stored(Path(folder) / "read", (chunk.vectors for chunk in chunks), width)
        text_of = np.frombuffer(numbers, np.int64)
        best, order = _preferred(text_of, preference)
        if preference is not None:
            parts = (store.take(order[start : start + CHUNK]) for start in range(0, len(order), CHUNK))
            store = _stored(Path(folder) / "ordered", parts, width)
        places, found = representatives(store, threshold)
    standing_text, cosines = np.empty(len(order), np.int64), np.empty(len(order))
    standing_text[order], cosines[order] = order[places], found
    standing = best[standing_text[text_of]]
    return Deduplication(standing, np.minimum(cosines, 1)[text_of], text_of.copy())


def _different(texts: Iterable[str], numbers: array[int], progress: Callable[[int], None] | None) -> Iterator[Document]:
    """Yield each text once, and append the number of the text of each row to `numbers`."""
    known: dict[bytes, int] = {}
    for text in texts:
        if not isinstance(text, str):
            raise ValueError(f"text {len(numbers) + 1} must be a string, not {type(text).__name__}")
        plain = _BLANKS.sub(" ", text if text.isascii() else unicodedata.normalize("NFC", text)).strip(" ")
        digest = hashlib.blake2b(plain.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        fresh = len(known)
        number = known.setdefault(digest, fresh)
        numbers.append(number)
        if progress is not None:
            progress(1)
        if number == fresh:
            yield Document(str(number), plain, f"text {len(numbers)}")


def _preferred(
    text_of: NDArray[np.int64], preference: Sequence[float] | NDArray[np.float64] | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the row preferred of each text, and the texts in the order of those rows' preference."""
    if preference is None:
        ranked = np.arange(len(text_of))
    else:
        keys = np.asarray(preference, np.float64)
        if keys.shape != text_of.shape:
            raise ValueError(f"preferences of shape {keys.shape} for {len(text_of):,} texts")
        ranked = np.argsort(-keys, kind="stable")  # nan last
    _, first = np.unique(text_of[ranked], return_index=True)
    return ranked[first], np.argsort(first)


def _stored(path: Path, parts: Iterable[csr_array], width: int) -> VectorStore:
    """Write vectors to a folder, and open it."""
    with os_errors_as(DataError, f"cannot write vectors to {path.parent}"):
        writer = VectorWriter(path, Extent.empty("vectors"))
        try:
            for vectors in parts:
                writer.add(vectors, [""] * vectors.shape[0])
            extent = writer.extent(durable=False)
        finally:
            writer.close()
    return VectorStore(path, extent, width)
