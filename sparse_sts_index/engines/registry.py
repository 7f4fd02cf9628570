"""The engines by name, and the collection at a URL."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from sparse_sts_index.engines.target import parse_url
from sparse_sts_index.errors import EngineError

if TYPE_CHECKING:
    from sparse_sts_index.engines.base import Engine

#: Module and class of each engine, by name; imported when needed.
ENGINES = {
    "elasticsearch": ("elasticsearch", "Elasticsearch"),
    "opensearch": ("opensearch", "OpenSearch"),
    "solr": ("solr", "Solr"),
    "milvus": ("milvus", "Milvus"),
    "qdrant": ("qdrant", "Qdrant"),
}
_WITH_FILES = ("milvus", "qdrant")


def engine_class(name: str) -> type[Engine]:
    """The class of an engine; takes no client yet."""
    module, class_name = ENGINES[name]
    found: type[Engine] = getattr(importlib.import_module(f"sparse_sts_index.engines.backends.{module}"), class_name)
    return found


def connect(url: str, token: str | None = None) -> Engine:
    """The collection at a URL, which need not be there yet.

    Parameters
    ----------
    url : str
        See :func:`~sparse_sts_index.engines.target.parse_url`.
    token : str, optional
        An API key (Elasticsearch, Qdrant), a token (Milvus) or a bearer token (OpenSearch, Solr).

    Raises
    ------
    EngineError
        Not such a URL, no such engine, or a local engine's files that cannot be used.
    MissingExtraError
        The engine's client is not installed.
    """
    target = parse_url(url)
    if target.engine not in ENGINES:
        raise EngineError(f"no engine {target.engine!r}; there are {', '.join(ENGINES)}")
    if target.local and target.engine not in _WITH_FILES:
        raise EngineError(f"{target.engine} has no local mode; {' and '.join(_WITH_FILES)} have one")
    return engine_class(target.engine)(target, token)  # type: ignore[call-arg]  # each takes a token
