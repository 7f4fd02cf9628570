"""Semantic-similarity search over sentences: a SPLADE sparse encoder in a Lucene impact index.

The names below are the whole public interface; each is loaded when first used, since some take torch with them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparse_sts_index.data.documents import Document, read_corpus
    from sparse_sts_index.data.pairs import Pairs, load_pairs
    from sparse_sts_index.encoding.encoder import SparseStsEncoder
    from sparse_sts_index.encoding.fused_encoder import fuse
    from sparse_sts_index.engines.export.anserini import export_vectors
    from sparse_sts_index.engines.pyserini import PyseriniQueryEncoder
    from sparse_sts_index.engines.sentence_transformers import LuceneCorpus, semantic_search_lucene
    from sparse_sts_index.errors import (
        ClusterError,
        DataError,
        EngineError,
        ForkError,
        HubUnreachableError,
        ImpactIndexError,
        JavaError,
        MissingExtraError,
        ModelError,
        ModelMismatchError,
        ServerError,
        SparseStsError,
        TrainingError,
    )
    from sparse_sts_index.evaluation.quality import Evaluation, evaluate
    from sparse_sts_index.index import SparseStsIndex
    from sparse_sts_index.search.results import Group, Groups, Hit, Hits, Pair
    from sparse_sts_index.storage.manifest import Manifest
    from sparse_sts_index.training.fine_tuning import train
    from sparse_sts_index.training.settings import TrainingSettings
    from sparse_sts_index.vectors.explanations import PairExplanation, TermContribution, explain_pair, explain_traces
    from sparse_sts_index.vectors.quantizer import Quantizer
    from sparse_sts_index.vectors.trace import Trace
    from sparse_sts_index.vectors.vocabulary import Vocabulary

_MODULES = {
    "data.documents": ("Document", "read_corpus"),
    "encoding.encoder": ("SparseStsEncoder",),
    "errors": (
        "ClusterError",
        "DataError",
        "EngineError",
        "ForkError",
        "HubUnreachableError",
        "ImpactIndexError",
        "JavaError",
        "MissingExtraError",
        "ModelError",
        "ModelMismatchError",
        "ServerError",
        "SparseStsError",
        "TrainingError",
    ),
    "evaluation.quality": ("Evaluation", "evaluate"),
    "vectors.explanations": ("PairExplanation", "TermContribution", "explain_pair", "explain_traces"),
    "engines.export.anserini": ("export_vectors",),
    "encoding.fused_encoder": ("fuse",),
    "index": ("SparseStsIndex",),
    "storage.manifest": ("Manifest",),
    "data.pairs": ("Pairs", "load_pairs"),
    "engines.pyserini": ("PyseriniQueryEncoder",),
    "vectors.quantizer": ("Quantizer",),
    "training.settings": ("TrainingSettings",),
    "search.results": ("Group", "Groups", "Hit", "Hits", "Pair"),
    "engines.sentence_transformers": ("LuceneCorpus", "semantic_search_lucene"),
    "vectors.trace": ("Trace",),
    "training.fine_tuning": ("train",),
    "vectors.vocabulary": ("Vocabulary",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "ClusterError",
    "DataError",
    "Document",
    "EngineError",
    "Evaluation",
    "ForkError",
    "Group",
    "Groups",
    "Hit",
    "Hits",
    "HubUnreachableError",
    "ImpactIndexError",
    "JavaError",
    "LuceneCorpus",
    "Manifest",
    "MissingExtraError",
    "ModelError",
    "ModelMismatchError",
    "Pair",
    "PairExplanation",
    "Pairs",
    "PyseriniQueryEncoder",
    "Quantizer",
    "ServerError",
    "SparseStsEncoder",
    "SparseStsError",
    "SparseStsIndex",
    "TermContribution",
    "Trace",
    "TrainingError",
    "TrainingSettings",
    "Vocabulary",
    "evaluate",
    "explain_pair",
    "explain_traces",
    "export_vectors",
    "fuse",
    "load_pairs",
    "read_corpus",
    "semantic_search_lucene",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
