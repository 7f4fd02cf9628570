r"""Quality against size: what bits, and how many terms of a sentence, are worth keeping.

Each setting is measured, not modelled: correlation over all pairs, bytes of a real Lucene index of the sentences, and
the time that Lucene takes for a search. The impacts of an index are linear in the weights, as Lucene's sum of products
is the cosine only then. What finer steps for small weights would give, :math:`\mathrm{round}(S \sqrt v)` and
:math:`\mathrm{round}(S \ln(1 + c v) / \ln(1 + c))`, is measured beside them by undoing the map before the product,
which Lucene cannot: they show how much linear steps lose, and are no setting of an index.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from sparse_sts_index._utils.numbers import check_real, check_whole
from sparse_sts_index.data.pairs import Pairs
from sparse_sts_index.evaluation.correlation import check_pairs, correlation
from sparse_sts_index.storage.lucene.query import query_terms
from sparse_sts_index.storage.lucene.temporary import scratch_index
from sparse_sts_index.vectors.quantizer import Quantizer, keep_largest, l2_normalize, pairwise_dot

if TYPE_CHECKING:
    from sparse_sts_index.encoding.encoder import SparseStsEncoder

Steps = Literal["linear", "sqrt", "log"]

#: Settings that are tried by default.
BITS = (2, 3, 4, 5, 6, 7, 8, 10, 12, 16)
ACTIVE_DIMS = (4, 6, 8, 12, 16, 24, 32, 48)
_LOG = 255.0  # c of the logarithmic steps
_QUERIES = 100
_WARM_UP = 3000  # searches, before Java's compiler has done its work
_FLOAT_BYTES = 8  # of a posting in the float vectors: an int32 term and a float32 weight


@dataclass(frozen=True, slots=True)
class Setting:
    """What one way to store vectors gives.

    Attributes
    ----------
    bits : int
        Of the largest impact.
    max_active_dims : int or None
        Terms kept of a sentence; None: all.
    active_dims : float
        Mean number of terms that are left of a sentence, after rounding.
    spearman, pearson : float
        Of the quantized cosine with the gold scores.
    lucene_bytes : float
        Of the Lucene index without the sentences themselves, a sentence.
    vectors_bytes : float
        Of the float vectors beside it, a sentence.
    search_ms : float
        Median time of Lucene's search for the ten best, in milliseconds, with the time to build the query.
    """

    bits: int
    max_active_dims: int | None
    active_dims: float
    spearman: float
    pearson: float
    lucene_bytes: float
    vectors_bytes: float
    search_ms: float


@dataclass(frozen=True, slots=True)
class StepsQuality:
    """Correlation by the kind of quantization steps, all terms kept.

    Attributes
    ----------
    steps : {"linear", "sqrt", "log"}
    bits : int
    spearman, pearson : float
    """

    steps: Steps
    bits: int
    spearman: float
    pearson: float


@dataclass(frozen=True)
class TradeOff:
    """All that was measured, and what follows.

    Attributes
    ----------
    pairs, sentences : int
        Pairs of the correlations; sentences in the indexes.
    float_spearman, float_pearson : float
        Of the float cosine of all terms.
    tolerance : float
        What Spearman's rho may lose.
    settings : tuple of Setting
        Every combination of bits and terms kept.
    steps : tuple of StepsQuality
    recommended : Setting or None
        The one of least bytes within the tolerance; None if there is none.
    usual : Setting
        8 bits and all terms, or the finest that was asked for.
    """

    pairs: int
    sentences: int
    float_spearman: float
    float_pearson: float
    tolerance: float
    settings: tuple[Setting, ...]
    steps: tuple[StepsQuality, ...]
    recommended: Setting | None
    usual: Setting


def trade_off(
    encoder: SparseStsEncoder,
    pairs: Pairs,
    *,
    tolerance: float = 0.005,
    bits: Sequence[int] = BITS,
    active_dims: Sequence[int] = ACTIVE_DIMS,
    corpus: Sequence[str] | None = None,
    progress: Callable[[int], None] | None = None,
) -> TradeOff:
    """Measure what each setting of an index gives and costs.

    Parameters
    ----------
    encoder : SparseStsEncoder
    pairs : Pairs
        With scores.
    tolerance : float
        What Spearman's rho may lose against the float cosine of all terms.
    bits : sequence of int
        Of impacts, 2 to 16.
    active_dims : sequence of int
        Terms to keep; all are always tried, too.
    corpus : sequence of str, optional
        Sentences to index. Default: those of the pairs, each once.
    progress : callable, optional
        Called with 1 after each setting, of which there are ``len(bits) * (len(active_dims) + 1)``.

    Raises
    ------
    DataError
        The pairs have no scores, or fewer than two different ones.
    JavaError
        No Java to run Lucene with.
    ValueError
        Bits, tolerance or a number of terms out of range, or no bits.
    """
    gold = check_pairs(pairs)
    check_real("tolerance", tolerance, 0, 1)
    for terms_kept in active_dims:
        check_whole("active_dims", terms_kept, 1)
    if not bits:
        raise ValueError("bits must name at least one number of bits")
    quantizers = [Quantizer(n) for n in sorted(set(bits))]
    vectors = encoder.encode([*pairs.sentence1, *pairs.sentence2])
    documents = vectors if corpus is None else encoder.encode(corpus)
    if corpus is None:
        places = {text: row for row, text in enumerate((*pairs.sentence1, *pairs.sentence2))}
        documents = vectors[list(places.values())]
    terms = encoder.vocabulary.terms
    _warm_up(documents, quantizers[-1], terms)
    settings = []
    for count in (None, *sorted(set(active_dims), reverse=True)):
        kept, stored = (_kept(rows, count) for rows in (vectors, documents))
        for quantizer in quantizers:
            settings.append(_measure(kept, stored, gold, quantizer, count, terms))
            if progress is not None:
                progress(1)
    exact = correlation(_similarities(vectors), gold)
    steps = [
        StepsQuality(name, quantizer.bits, found.spearman, found.pearson)
        for name in ("linear", "sqrt", "log")
        for quantizer in quantizers
        if (found := correlation(np.round(_similarities(_stepped(vectors, quantizer, name)), 9), gold))
    ]
    enough = [setting for setting in settings if setting.spearman >= exact.spearman - tolerance]
    whole = [setting for setting in settings if setting.max_active_dims is None]
    return TradeOff(
        pairs=len(pairs),
        sentences=documents.shape[0],
        float_spearman=exact.spearman,
        float_pearson=exact.pearson,
        tolerance=tolerance,
        settings=tuple(settings),
        steps=tuple(steps),
        recommended=min(enough, key=lambda s: s.lucene_bytes + s.vectors_bytes, default=None),
        usual=next((setting for setting in whole if setting.bits == 8), whole[-1]),
    )


def _kept(vectors: csr_array, count: int | None) -> csr_array:
    return vectors if count is None else l2_normalize(keep_largest(vectors, count))


def _similarities(vectors: csr_array) -> NDArray[np.float64]:
    middle = vectors.shape[0] // 2
    return pairwise_dot(vectors[:middle], vectors[middle:])


def _measure(
    vectors: csr_array,
    documents: csr_array,
    gold: NDArray[np.float64],
    quantizer: Quantizer,
    count: int | None,
    terms: tuple[str, ...],
) -> Setting:
    found = correlation(_similarities(quantizer.quantize(vectors)), gold)  # integers: equal ones tie, as in Lucene
    impacts = quantizer.quantize(documents)
    with scratch_index(impacts, terms) as (reader, size):
        seconds = []
        for query in _queries(impacts, terms):
            start = time.perf_counter()
            reader.search_impacts([query], 10)
            seconds.append(time.perf_counter() - start)
    sentences = documents.shape[0]
    return Setting(
        bits=quantizer.bits,
        max_active_dims=count,
        active_dims=impacts.nnz / sentences,
        spearman=found.spearman,
        pearson=found.pearson,
        lucene_bytes=size / sentences,
        vectors_bytes=documents.nnz * _FLOAT_BYTES / sentences,
        search_ms=float(np.median(seconds)) * 1000 if seconds else 0.0,
    )


def _queries(impacts: csr_array, terms: tuple[str, ...]) -> list[tuple[list[str], list[int]]]:
    """Return some of the documents as queries: terms and weights."""
    rows = np.linspace(0, impacts.shape[0] - 1, min(_QUERIES, impacts.shape[0])).astype(np.int64)
    return [query_terms(impacts, row, terms) for row in rows[np.diff(impacts.indptr)[rows] > 0].tolist()]


def _warm_up(documents: csr_array, quantizer: Quantizer, terms: tuple[str, ...]) -> None:
    impacts = quantizer.quantize(documents)
    queries = _queries(impacts, terms)
    with scratch_index(impacts, terms) as (reader, _):
        for number in range(_WARM_UP if queries else 0):
            reader.search_impacts([queries[number % len(queries)]], 10)


def _stepped(vectors: csr_array, quantizer: Quantizer, steps: Steps) -> csr_array:
    """Weights rounded on a map of theirs, and mapped back."""
    scale, weights = quantizer.scale, vectors.data.astype(np.float64)
    if steps == "linear":
        data = np.rint(weights * scale) / scale
    elif steps == "sqrt":
        data = (np.rint(np.sqrt(weights) * scale) / scale) ** 2
    else:
        data = np.expm1(np.rint(np.log1p(_LOG * weights) / np.log1p(_LOG) * scale) / scale * np.log1p(_LOG)) / _LOG
    return csr_array((data, vectors.indices, vectors.indptr), shape=vectors.shape)
