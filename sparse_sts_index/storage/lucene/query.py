"""Queries in the syntax of Lucene's classic query parser."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import numpy as np
from scipy.sparse import csr_array

from sparse_sts_index.data.fields import FieldValue, microseconds
from sparse_sts_index.data.filters import Filter, filter_to_json
from sparse_sts_index.storage.layout import ID

EVERYTHING = "*:*^0"  # the query for all documents, with score 0
_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\u000a", "\r": "\\u000d"})
_ESCAPED = re.compile('["\\\\\n\r]')


def quoted(text: str) -> str:
    """A term or an id as a query names it, whatever it holds."""
    return f'"{text.translate(_ESCAPES)}"'


def impact_query(terms: Iterable[str], weights: Iterable[float]) -> str:
    """The query for documents with any of `terms`, scored by ``sum(weight * impact)``.

    Parameters
    ----------
    terms : iterable of str
        Lucene terms.
    weights : iterable of float
        Not negative. Handed on with 9 decimals, to Lucene's float32.
    """
    terms = list(terms)
    if _ESCAPED.search("".join(terms)):  # one look at all of them costs less than a call for each
        terms = [term.translate(_ESCAPES) for term in terms]
    flat = tuple(itertools.chain.from_iterable(zip(terms, weights, strict=True)))
    return '"%s"^%.9f ' * len(terms) % flat


def id_query(doc_id: str) -> str:
    """The query for the document with this id; its score is 1."""
    return f"{ID}:{quoted(doc_id)}"


def only(query: str, doc_id: str) -> str:
    """Narrow a query to the document with this id; an empty query finds the document with score 0."""
    return f"+({query or EVERYTHING}) +{id_query(doc_id)}^0"


def fields_text(fields: Mapping[str, FieldValue]) -> str:
    """Write a document's fields as ``LuceneCalls.setFields`` reads them."""
    flat: list[FieldValue] = []
    for name, value in fields.items():
        for part in value if isinstance(value, tuple) else (value,):
            flat += (name, _json_value(part))
    return json.dumps(flat, ensure_ascii=False)


def filter_text(filter_: Filter) -> str:
    """Write a filter of typed values as ``LuceneCalls.filter`` reads it."""
    return json.dumps(filter_to_json(filter_, _json_value), ensure_ascii=False)


def _json_value(value: FieldValue) -> FieldValue:
    """Dates as whole numbers; numbers are floats."""
    return microseconds(value) if isinstance(value, datetime) else value


def query_terms(impacts: csr_array, row: int, terms: Sequence[str]) -> tuple[list[str], list[int]]:
    """Lucene terms and weights of one row of a csr_array of int, shape (n, vocab)."""
    entries = slice(impacts.indptr[row], impacts.indptr[row + 1])
    return [terms[i] for i in impacts.indices[entries].tolist()], impacts.data[entries].astype(np.int64).tolist()
