"""The Common Index File Format: one file of postings that most academic search engines read.

Format: https://github.com/osirrc/ciff (Lin et al., "Supporting Interoperability Between Open-Source Search Engines
with the Common Index File Format", SIGIR 2020). A header, the postings lists by term, the documents: protobuf
messages, each after its length. A term's frequency is its impact; the sum of products of two sentences' impacts, over
the square of the scale ``2**bits - 1``, is their cosine within the rounding that :mod:`.vectors.quantizer`
derives.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import IO

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array

_VERSION = 1


def write_ciff(file: IO[bytes], impacts: csc_array, terms: Sequence[str], ids: Sequence[str], description: str) -> None:
    """Write an index.

    Parameters
    ----------
    file : binary file
    impacts : csc_array of int32, shape (documents, vocab)
        Positive; indices sorted.
    terms : sequence of str, length vocab
    ids : sequence of str, length documents
    description : str
        For the header.
    """
    lengths = np.bincount(impacts.indices, impacts.data, minlength=len(ids)).astype(np.int64)
    used = np.flatnonzero(np.diff(impacts.indptr)).tolist()
    used.sort(key=lambda column: terms[column].encode())
    counts = (len(used), len(ids), len(used), len(ids), int(lengths.sum()))
    header = _integer(1, _VERSION) + b"".join(_integer(number, count) for number, count in enumerate(counts, 2))
    header += b"\x39" + struct.pack("<d", float(lengths.mean())) + _bytes(8, description.encode())
    file.write(_delimited(header))
    for column in used:
        entries = slice(impacts.indptr[column], impacts.indptr[column + 1])
        file.write(_delimited(_postings(terms[column], impacts.indices[entries], impacts.data[entries])))
    for number, (doc_id, length) in enumerate(zip(ids, lengths.tolist(), strict=True)):
        file.write(_delimited(_integer(1, number) + _bytes(2, doc_id.encode()) + _integer(3, length)))


def _postings(term: str, rows: NDArray[np.int32], impacts: NDArray[np.int32]) -> bytes:
    gaps = np.diff(rows, prepend=0).tolist()
    head = _bytes(1, term.encode()) + _integer(2, len(gaps)) + _integer(3, int(impacts.sum()))
    return head + b"".join(_entries(gaps, impacts.tolist()))


def _entries(gaps: Sequence[int], impacts: Sequence[int]) -> Iterator[bytes]:
    for gap, impact in zip(gaps, impacts, strict=True):
        yield _bytes(4, _integer(1, gap) + _integer(2, impact))


def _integer(field: int, value: int) -> bytes:
    """A field of an integer that is not negative; zero, the default, is left out."""
    return _varint(field << 3) + _varint(value) if value else b""


def _bytes(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _delimited(content)


def _delimited(content: bytes) -> bytes:
    return _varint(len(content)) + content


def _varint(value: int) -> bytes:
    if value < 0x80:
        return bytes((value,))
    digits = bytearray()
    while value >= 0x80:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    digits.append(value)
    return bytes(digits)
