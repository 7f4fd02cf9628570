"""One run that tells what a model is worth: agreement with people, cost of quantization, speed, and where it errs.

Everything is measured in the same process on the same sentences: correlation of the model and of what one could take
instead (:mod:`.evaluation.baselines`), time by stage of a real search through Lucene, and the trade-offs of
:mod:`sparse_sts_index.evaluation.tradeoff`. :mod:`sparse_sts_index.evaluation.report.page` makes a page of it.
"""

from __future__ import annotations

import dataclasses
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.sparse import csr_array

from sparse_sts_index._utils.environment import cores, package_versions, processor
from sparse_sts_index._utils.json import plain
from sparse_sts_index.data.pairs import Pairs
from sparse_sts_index.evaluation.baselines import Baseline
from sparse_sts_index.evaluation.correlation import Correlation, Interval, check_pairs, correlation, spearman_interval
from sparse_sts_index.evaluation.quality import Evaluation, evaluate
from sparse_sts_index.evaluation.tradeoff import TradeOff, trade_off
from sparse_sts_index.index import SparseStsIndex
from sparse_sts_index.storage.impact_index import ImpactIndex
from sparse_sts_index.storage.lucene.jvm import java_version
from sparse_sts_index.storage.lucene.query import query_terms
from sparse_sts_index.storage.lucene.reader import lucene_version
from sparse_sts_index.vectors.explanations import TermContribution, explain_pair
from sparse_sts_index.vectors.quantizer import Quantizer, pairwise_dot

if TYPE_CHECKING:
    from sparse_sts_index.encoding.encoder import SparseStsEncoder

#: The stages of a search, in order.
STAGES = ("tokenize", "encode", "quantize", "search", "rescore")
_QUERIES = 200
_WARM_UP = 3  # times all queries
_WORST = 20
_TERMS_SHOWN = 8
_CANDIDATES = 30  # that Lucene is asked for, and that are rescored
_K = 10
_PACKAGES = ("sparse-sts-index", "sentence-transformers", "transformers", "torch", "pyserini", "bm25s", "scikit-learn")


@dataclass(frozen=True, slots=True)
class Rival:
    """One row of the table of methods.

    Attributes
    ----------
    name, what : str
        The method, and how it does.
    cosine : Correlation
        Of its similarity with the gold scores.
    spearman_interval : Interval
    search_ms : float
        Median time to find the ten nearest sentences of one text, its encoding included, in milliseconds.
    """

    name: str
    what: str
    cosine: Correlation
    spearman_interval: Interval
    search_ms: float


@dataclass(frozen=True, slots=True)
class StageTime:
    """Times of one stage over the queries, one query at a time, in milliseconds."""

    stage: str
    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class WorstPair:
    """A pair that model and people rank most differently.

    Attributes
    ----------
    sentence1, sentence2 : str
    gold : float
        0..1.
    cosine : float
    gold_rank, cosine_rank : float
        Share of the pairs that are ranked lower, 0..1.
    shared : tuple of TermContribution
        The shared terms that add most.
    alone1, alone2 : tuple of (str, float)
        The heaviest terms that only one of the two has, with their weights.
    """

    sentence1: str
    sentence2: str
    gold: float
    cosine: float
    gold_rank: float
    cosine_rank: float
    shared: tuple[TermContribution, ...]
    alone1: tuple[tuple[str, float], ...]
    alone2: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Throughput:
    """What goes through in a second.

    Attributes
    ----------
    encoded, indexed, searched : float
        Sentences encoded, sentences encoded and indexed, and texts encoded and searched for, all at once.
    """

    encoded: float
    indexed: float
    searched: float


@dataclass(frozen=True)
class Benchmark:
    """All that a run has measured.

    Attributes
    ----------
    model, model_fingerprint, precision, dataset : str
    bits : int
    sentences : int
        In the collection that was searched.
    evaluation : Evaluation
    rivals : tuple of Rival
        This model first, exact and by Lucene's integers.
    gold, cosines, quantized : ndarray of float64, shape (n,)
        Of the pairs.
    stages : tuple of StageTime
        :data:`STAGES`, and then ``exact search``, all of it.
    candidates : int
        That Lucene was asked for, and that were rescored.
    throughput : Throughput
    trade_off : TradeOff
    worst : tuple of WorstPair
    environment : dict
        Processor, cores, system, versions.
    started : str
        ISO 8601, UTC.
    seconds : float
        How long all of it took.
    """

    model: str
    model_fingerprint: str
    precision: str
    dataset: str
    bits: int
    sentences: int
    evaluation: Evaluation
    rivals: tuple[Rival, ...]
    gold: NDArray[np.float64]
    cosines: NDArray[np.float64]
    quantized: NDArray[np.float64]
    stages: tuple[StageTime, ...]
    candidates: int
    throughput: Throughput
    trade_off: TradeOff
    worst: tuple[WorstPair, ...]
    environment: dict[str, Any]
    started: str
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON; NaN becomes None."""
        values = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in ("evaluation", "gold", "cosines", "quantized")
        }
        values["evaluation"] = self.evaluation.to_dict()
        values["pairs"] = {
            "gold": self.gold.tolist(),
            "cosine": self.cosines.tolist(),
            "quantized": self.quantized.tolist(),
        }
        cleaned: dict[str, Any] = plain(values)
        return cleaned


def benchmark(
    encoder: SparseStsEncoder,
    pairs: Pairs,
    *,
    dataset: str = "",
    baselines: Sequence[Baseline] = (),
    corpus: Sequence[str] | None = None,
    quantizer: Quantizer | None = None,
    tolerance: float = 0.005,
    progress: Callable[[str], None] | None = None,
) -> Benchmark:
    """Measure a model.

    Parameters
    ----------
    encoder : SparseStsEncoder
    pairs : Pairs
        With scores.
    dataset : str
        What to call the pairs.
    baselines : sequence of Baseline
        To compare with.
    corpus : sequence of str, optional
        Sentences to search. Default: those of the pairs, each once.
    quantizer : Quantizer, optional
        Default: 8 bits.
    tolerance : float
        See :func:`~sparse_sts_index.evaluation.tradeoff.trade_off`.
    progress : callable, optional
        Called with what is done next.

    Raises
    ------
    DataError
        The pairs have no scores, or fewer than two different ones.
    JavaError
        No Java to run Lucene with.
    """
    begin, started = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    say = progress or (lambda _: None)
    check_pairs(pairs)
    quantizer = quantizer or Quantizer()
    say("correlation")
    evaluation = evaluate(encoder, pairs, quantizer=quantizer)
    first, second = encoder.encode_pairs(pairs.sentence1, pairs.sentence2)
    cosines = pairwise_dot(first, second)
    quantized = pairwise_dot(quantizer.quantize(first), quantizer.quantize(second)) / quantizer.scale**2
    sentences = list(dict.fromkeys([*pairs.sentence1, *pairs.sentence2])) if corpus is None else list(corpus)
    places = np.linspace(0, len(pairs) - 1, min(_QUERIES, len(pairs))).astype(np.int64)
    queries = [pairs.sentence1[place] for place in places]
    say("search")
    stages, by_lucene, throughput = _speed(encoder, sentences, queries, quantizer)
    rivals = [
        Rival(
            "sparse, exact",
            f"{evaluation.active_dims:.0f} of {first.shape[1]:,} dimensions, float cosine",
            evaluation.cosine,
            evaluation.spearman_interval,
            stages[-1].p50,
        ),
        Rival(
            f"sparse, {quantizer.bits} bits",
            "integer impacts, Lucene's score alone",
            evaluation.quantized,
            spearman_interval(quantized, pairs.gold),
            by_lucene,
        ),
    ]
    for baseline in baselines:
        say(baseline.name)
        rivals.append(_rival(baseline, pairs, sentences, queries))
    say("trade-off")
    traded = trade_off(encoder, pairs, tolerance=tolerance, corpus=corpus)
    return Benchmark(
        model=encoder.name,
        model_fingerprint=encoder.fingerprint,
        precision=encoder.precision,
        dataset=dataset,
        bits=quantizer.bits,
        sentences=len(sentences),
        evaluation=evaluation,
        rivals=tuple(rivals),
        gold=pairs.gold,
        cosines=cosines,
        quantized=quantized,
        stages=stages,
        candidates=_CANDIDATES,
        throughput=throughput,
        trade_off=traded,
        worst=_worst(encoder, pairs, first, second, cosines),
        environment=_environment(encoder),
        started=started,
        seconds=round(time.monotonic() - begin, 1),
    )


def _speed(
    encoder: SparseStsEncoder, sentences: Sequence[str], queries: list[str], quantizer: Quantizer
) -> tuple[tuple[StageTime, ...], float, Throughput]:
    """Times by stage; the median of a search by Lucene alone, in milliseconds; and throughput."""
    start = time.perf_counter()
    encoder.encode(sentences)
    encoded = len(sentences) / (time.perf_counter() - start)
    with tempfile.TemporaryDirectory(prefix="sparse-sts-") as folder:
        start = time.perf_counter()
        with SparseStsIndex.build(Path(folder) / "index", sentences, encoder, quantizer=quantizer) as index:
            indexed = len(sentences) / (time.perf_counter() - start)
            for _ in range(_WARM_UP):
                index.search(queries, _K)
            start = time.perf_counter()
            index.search(queries, _K)
            searched = len(queries) / (time.perf_counter() - start)
            whole = _times(lambda query: index.search([query], _K), queries)
        with ImpactIndex.open(Path(folder) / "index") as vectors:
            for _ in range(_WARM_UP):
                _stages(encoder, vectors, queries, quantizer)
            times = _stages(encoder, vectors, queries, quantizer)
    stages = [_stage_time(name, column) for name, column in zip(STAGES, times.T, strict=True)]
    by_lucene = float(np.median(times[:, :4].sum(axis=1))) * 1000  # all but the rescoring
    return (*stages, _stage_time("exact search", whole)), by_lucene, Throughput(encoded, indexed, searched)


def _stages(
    encoder: SparseStsEncoder, index: ImpactIndex, queries: list[str], quantizer: Quantizer
) -> NDArray[np.float64]:
    """Seconds of each stage: ndarray of float64, shape (queries, stages)."""
    times = np.zeros((len(queries), len(STAGES)))
    terms = encoder.vocabulary.terms
    with index.using() as snapshot:
        for row, query in enumerate(queries):
            clock = [time.perf_counter()]
            tokens = encoder.tokenize([query])
            clock.append(time.perf_counter())
            vector = encoder.encode_tokens(tokens)
            clock.append(time.perf_counter())
            names, weights = query_terms(quantizer.quantize(vector), 0, terms)
            clock.append(time.perf_counter())
            (found,) = snapshot.reader.search_impacts([(names, weights)], _CANDIDATES)
            clock.append(time.perf_counter())
            cosines = snapshot.store.scores(found.rows, vector.toarray()[0].astype(np.float64))
            np.argsort(-cosines)
            clock.append(time.perf_counter())
            times[row] = np.diff(clock)
    return times


def _rival(baseline: Baseline, pairs: Pairs, sentences: Sequence[str], queries: list[str]) -> Rival:
    similarities = baseline.similarities(pairs.sentence1, pairs.sentence2)
    baseline.index(sentences)
    for _ in range(_WARM_UP):
        _times(lambda query: baseline.search(query, _K), queries)
    times = _times(lambda query: baseline.search(query, _K), queries)
    return Rival(
        baseline.name,
        baseline.what,
        correlation(similarities, pairs.gold),
        spearman_interval(similarities, pairs.gold),
        float(np.median(times)) * 1000,
    )


def _times(function: Callable[[str], object], queries: list[str]) -> NDArray[np.float64]:
    """Seconds of a call for each query."""
    seconds = []
    for query in queries:
        start = time.perf_counter()
        function(query)
        seconds.append(time.perf_counter() - start)
    return np.array(seconds)


def _stage_time(name: str, seconds: NDArray[np.float64]) -> StageTime:
    return StageTime(name, *(float(value) * 1000 for value in np.percentile(seconds, (50, 95, 99))))


def _worst(
    encoder: SparseStsEncoder, pairs: Pairs, first: csr_array, second: csr_array, cosines: NDArray[np.float64]
) -> tuple[WorstPair, ...]:
    gold_ranks, cosine_ranks = ((stats.rankdata(values) - 1) / (len(pairs) - 1) for values in (pairs.gold, cosines))
    rows = np.argsort(-np.abs(gold_ranks - cosine_ranks), kind="stable")[:_WORST].tolist()
    return tuple(
        WorstPair(
            pairs.sentence1[row],
            pairs.sentence2[row],
            float(pairs.gold[row]),
            float(cosines[row]),
            float(gold_ranks[row]),
            float(cosine_ranks[row]),
            explain_pair(encoder.vocabulary, first[[row]], second[[row]])[:_TERMS_SHOWN],
            _alone(encoder, first[[row]], second[[row]]),
            _alone(encoder, second[[row]], first[[row]]),
        )
        for row in rows
    )


def _alone(encoder: SparseStsEncoder, vector: csr_array, other: csr_array) -> tuple[tuple[str, float], ...]:
    """The heaviest terms of one vector that the other does not have."""
    others = set(other.indices.tolist())
    weights = zip(vector.indices.tolist(), vector.data.tolist(), strict=True)
    alone = sorted(((weight, term) for term, weight in weights if term not in others), reverse=True)
    return tuple((encoder.vocabulary.tokens[term], weight) for weight, term in alone[:_TERMS_SHOWN])


def _environment(encoder: SparseStsEncoder) -> dict[str, Any]:
    import torch

    device = encoder.device
    return {
        "processor": processor(),
        "cores": cores(),
        "torch_threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "system": platform.system(),
        "versions": {**package_versions(_PACKAGES), "java": java_version(), "lucene": lucene_version()},
    }
