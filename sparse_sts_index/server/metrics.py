"""What the service counts and times, for Prometheus."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from sparse_sts_index.server.batching import Done
from sparse_sts_index.server.settings import METRICS_VARIABLE

CONTENT_TYPE = CONTENT_TYPE_LATEST

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """One service's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "sparse_sts_requests", "Requests answered.", ("route", "method", "status"), registry=self.registry
        )
        self.request_seconds = Histogram(
            "sparse_sts_request_seconds", "From a request to its answer.", ("route",), buckets=_SECONDS,
            registry=self.registry,
        )  # fmt: skip
        self.waiting_seconds = Histogram(
            "sparse_sts_waiting_seconds", "That jobs waited for a stage.", ("stage",), buckets=_SECONDS,
            registry=self.registry,
        )  # fmt: skip
        self.stage_seconds = Histogram(
            "sparse_sts_stage_seconds", "That batches took in a stage.", ("stage",), buckets=_SECONDS,
            registry=self.registry,
        )  # fmt: skip
        self.batch_size = Histogram(
            "sparse_sts_batch_size", "Sentences, queries or calls that a stage did together.", ("stage",),
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256), registry=self.registry,
        )  # fmt: skip
        self.queued = Gauge(
            "sparse_sts_queued_sentences", "Sentences waiting to be encoded.", registry=self.registry,
            multiprocess_mode="livesum",
        )  # fmt: skip
        self.documents = self._of_index("documents", "Documents in the index.")
        self.postings = self._of_index("postings", "Postings in the index.")
        self.bytes = self._of_index("bytes", "Size of the index's files.")

    def _of_index(self, name: str, help_text: str) -> Gauge:
        """Return a gauge of the index, of which the last worker that looked knows best."""
        full_name = f"sparse_sts_index_{name}"
        return Gauge(full_name, help_text, registry=self.registry, multiprocess_mode="livemostrecent")

    def stage(self, name: str) -> AbstractContextManager[Any]:
        """Time a stage within a batch."""
        return self.stage_seconds.labels(name).time()

    def batch(self, stage: str, done: Done) -> None:
        """Count a batch of a stage."""
        self.stage_seconds.labels(stage).observe(done.seconds)
        self.batch_size.labels(stage).observe(done.size)
        waiting = self.waiting_seconds.labels(stage)
        for seconds in done.waited:
            waiting.observe(seconds)

    def text(self) -> bytes:
        """All of them, in Prometheus' text format; those of all workers together, if there are several."""
        if METRICS_VARIABLE not in os.environ:
            return generate_latest(self.registry)
        together = CollectorRegistry()
        together.register(_OfAllWorkers(Path(os.environ[METRICS_VARIABLE])))
        return generate_latest(together)


class _OfAllWorkers(Collector):
    """Metrics that several processes write to files of a folder, but for files in which there is nothing yet."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        """See :class:`prometheus_client.registry.Collector`."""
        files = [str(file) for file in self._folder.glob("*.db") if file.stat().st_size]
        found: Iterable[Metric] = MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]
        return found
