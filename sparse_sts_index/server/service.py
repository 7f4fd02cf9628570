"""What the service does, apart from HTTP: an index and its model, and the few threads that they are used in.

One thread encodes queries and searches for them (two that run the model would each bring cores' worth of OpenMP threads
of their own), one reads documents, one writes and one compares the collection with itself. Each that calls into Java is
attached to the virtual machine by its first call, and let go when it ends.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from scipy.sparse import csr_array, vstack

from sparse_sts_index._utils.files import folder_size
from sparse_sts_index.data.documents import Document
from sparse_sts_index.data.fields import FieldValue
from sparse_sts_index.data.filters import Filter
from sparse_sts_index.errors import SparseStsError
from sparse_sts_index.index import SparseStsIndex
from sparse_sts_index.search.certified import Mode
from sparse_sts_index.search.results import Group, Groups, Hits, scored
from sparse_sts_index.server.batching import ClosedError, Done, OverloadedError, Worker
from sparse_sts_index.server.metrics import Metrics
from sparse_sts_index.server.settings import ServerSettings
from sparse_sts_index.storage.lucene.jvm import detach_thread
from sparse_sts_index.storage.manifest import Manifest
from sparse_sts_index.vectors.explanations import PairExplanation, explain_traces
from sparse_sts_index.vectors.quantizer import pairwise_dot
from sparse_sts_index.vectors.trace import Trace

if TYPE_CHECKING:
    from sparse_sts_index.encoding.encoder import SparseStsEncoder

T = TypeVar("T")

logger = logging.getLogger("sparse_sts_index.server")

_WRITES_WAITING = 32
MEMBERS_SHOWN = 100  # of a group
_SENTENCES_SHOWN = 2_000  # of all groups


class UnavailableError(Exception):
    """Not now: the index has been replaced, and its model is not there yet, or not at all."""


class ConflictError(Exception):
    """An id is in the index already."""


class NotComparedError(Exception):
    """The collection is still being compared with itself.

    Attributes
    ----------
    progress : float
        Share that is done, 0..1.
    """

    def __init__(self, progress: float) -> None:
        super().__init__("the collection is being compared with itself")
        self.progress = progress


class _StoppedError(Exception):
    """A comparison was interrupted by the end of the service."""


@dataclass(frozen=True, slots=True)
class _Encode:
    """Sentences to encode, and to trace if so wished."""

    texts: Sequence[str]
    trace: bool = False


@dataclass(frozen=True)
class Asked:
    """Arguments of a search but its texts; see :meth:`.index.SparseStsIndex.search`."""

    k: int = 10
    mode: Mode = "exact"
    explain: bool = False
    where: Filter | None = None
    min_cosine: float = 0.0
    offset: int = 0
    group_by: str | None = None


@dataclass(frozen=True, slots=True)
class _Search:
    """Queries to encode, and to search for."""

    texts: Sequence[str]
    asked: Asked


@dataclass(frozen=True, slots=True)
class Encoded:
    """Sentences that were encoded: vectors, csr_array of float32, shape (n, vocab); the encoder; traces if wished."""

    vectors: csr_array
    encoder: SparseStsEncoder
    traces: list[Trace] | None = None


@dataclass(frozen=True, slots=True)
class FoundGroups:
    """All groups, those to show with their sentences, and whether that is of the index as it is now."""

    groups: list[Group]
    shown: list[tuple[Group, list[Document]]]
    current: bool


class Service:
    """An open index, served. Its coroutines belong to one event loop.

    Parameters
    ----------
    index : SparseStsIndex
        Closed by :meth:`close`.
    settings : ServerSettings
    """

    def __init__(self, index: SparseStsIndex, settings: ServerSettings) -> None:
        self.index, self.settings = index, settings
        self.metrics = Metrics()
        self._closing = False
        self._broken: str | None = None
        self._groups: tuple[Manifest, Groups] | None = None
        self._failed: Manifest | None = None  # of the snapshot that could not be compared
        self._joining: asyncio.Task[None] | None = None
        self._joined = 0
        batch = self.metrics.batch
        self._query_thread: Worker[Any, Any] = Worker(
            "query",
            self._answer,
            most=settings.max_batch,
            limit=settings.max_queue,
            size=lambda job: len(job.texts) if isinstance(job, _Encode | _Search) else 1,
            done=self._count_queries,
            at_end=detach_thread,
        )
        self._read_thread: Worker[Callable[[], Any], Any] = Worker(
            "read", _calls, done=functools.partial(batch, "read"), at_end=detach_thread
        )
        self._write_thread: Worker[Callable[[], Any], Any] = Worker(
            "write", _calls, limit=_WRITES_WAITING, done=functools.partial(batch, "write"), at_end=detach_thread
        )
        self._join_thread: Worker[Callable[[], Any], Any] = Worker(
            "join", _calls, done=functools.partial(batch, "join"), at_end=detach_thread
        )
        self._threads = (self._query_thread, self._read_thread, self._write_thread, self._join_thread)
        self._refresher: asyncio.Task[None] | None = None

    async def load(self) -> None:
        """Load the model and warm everything up.

        Raises
        ------
        ModelMismatchError, ModelError
            See :attr:`.index.SparseStsIndex.encoder`.
        """
        self.encoder = await self._query_thread.do(lambda: self.index.encoder)
        await self._read_thread.do(self.index.prepare)
        await self.search(["a sentence to warm up with"], Asked(explain=True))
        await self.explain([("a sentence", "another one")])
        await self._read_thread.do(self._measure)

    def start(self) -> None:
        """Begin to look for changes, in the running event loop."""
        if self.settings.refresh and not self.settings.writable:
            self._refresher = asyncio.create_task(self._refresh_often())

    async def close(self) -> None:
        """Finish what is waiting, end the threads and close the index."""
        self._closing = True
        if self._refresher is not None:
            self._refresher.cancel()
        for thread in self._threads:
            await asyncio.to_thread(thread.close)
        self.index.close()

    @property
    def problem(self) -> str | None:
        """Why it can answer no queries, or None."""
        if self._closing:
            return "the server is shutting down"
        return self._broken if all(thread.alive for thread in self._threads) else "a thread has died; the log says why"

    def stop(self) -> None:
        """Say that the end is near: a comparison gives up, and the server is not ready any more."""
        self._closing = True

    @property
    def waiting(self) -> int:
        """Sentences that wait to be encoded."""
        return self._query_thread.pending

    # --- queries

    async def search(self, texts: Sequence[str], asked: Asked) -> list[Hits]:
        """See :meth:`.index.SparseStsIndex.search`."""
        found: list[Hits] = await self._query(_Search(texts, asked))
        return found

    async def cosines(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, float | None]]:
        """Cosine, and score if the model is calibrated, of each pair."""
        encoded = await self._encoded(_Encode([*(a for a, _ in pairs), *(b for _, b in pairs)]))
        cosines = pairwise_dot(encoded.vectors[: len(pairs)], encoded.vectors[len(pairs) :])
        return list(zip(cosines.tolist(), _scores(encoded.encoder, cosines.tolist()), strict=True))

    async def explain(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[PairExplanation, float | None]]:
        """Each pair term by term and word by word, and its score if the model is calibrated."""
        texts = list(dict.fromkeys(text for pair in pairs for text in pair))  # often one query with all its hits
        encoded = await self._encoded(_Encode(texts, trace=True))
        traces = dict(zip(texts, encoded.traces or (), strict=True))
        vocabulary = encoded.encoder.vocabulary

        def explain() -> list[PairExplanation]:
            return [explain_traces(vocabulary, traces[first], traces[second]) for first, second in pairs]

        explained = await asyncio.to_thread(explain)
        scores = _scores(encoded.encoder, [pair.cosine for pair in explained])
        return list(zip(explained, scores, strict=True))

    async def _encoded(self, job: _Encode) -> Encoded:
        encoded: Encoded = await self._query(job)
        return encoded

    async def _query(self, job: _Encode | _Search) -> Any:
        if self._broken:
            raise UnavailableError(self._broken)
        return await self._query_thread.do(job)

    # --- documents

    async def get(self, doc_id: str) -> Document | None:
        """The document with this id, or None."""
        return await self._call(self._read_thread, lambda: self.index.get(doc_id))

    async def write(self, documents: Sequence[Document], *, replace: bool) -> int:
        """Add documents, or with `replace` update them; durable when this returns how many took others' place.

        Raises
        ------
        ConflictError
            An id is there already (and not `replace`).
        """
        encoded = await self._encoded(_Encode([document.text for document in documents]))

        def write() -> int:
            if not replace:
                found = self.index.get_many([document.id for document in documents])
                for document in found:
                    if document is not None:
                        raise ConflictError(f"there is a document with id {document.id!r} already")
            replaced = self.index.write_vectors(documents, encoded.vectors, replace=replace)
            self._measure()
            return replaced

        return await self._call(self._write_thread, write)

    async def delete(self, ids: Sequence[str]) -> int:
        """Delete documents; how many there were."""

        def delete() -> int:
            deleted = self.index.delete(ids)
            self._measure()
            return deleted

        return await self._call(self._write_thread, delete)

    # --- the collection

    async def counts(self, field: str, where: Filter | None) -> dict[FieldValue, int]:
        """See :meth:`.index.SparseStsIndex.counts`."""
        return await self._call(self._read_thread, lambda: self.index.counts(field, where=where))

    async def groups(self, threshold: float, limit: int) -> FoundGroups:
        """All groups of similar sentences above a threshold, and the sentences of the largest ones.

        Where the index has changed since they were found, those that are known are given while the new ones are sought.

        Raises
        ------
        NotComparedError
            That is not known yet; it is being found out.
        """
        if self._failed is self.index.manifest:
            raise UnavailableError("comparing the collection with itself failed; the log says how")
        known = self._groups
        current = known is not None and known[0] is self.index.manifest
        if (known is None or not current or threshold < known[1].threshold) and not self._is_joining:
            floor = min(threshold, int(threshold * 10 + 1e-9) / 10)  # so that the next thresholds are known, too
            self._joined = 0
            self._joining = asyncio.create_task(self._join(floor))
        if known is None or threshold < known[1].threshold:
            raise NotComparedError(min(1.0, self._joined / max(1, len(self.index))))
        groups = await asyncio.to_thread(known[1].above, threshold)
        shown, count = [], 0
        for group in groups[:limit]:
            count += min(len(group.ids), MEMBERS_SHOWN)
            if count > _SENTENCES_SHOWN:
                break
            shown.append(group)
        ids = [doc_id for group in shown for doc_id in group.ids[:MEMBERS_SHOWN]]
        found = iter(await self._call(self._read_thread, lambda: self.index.get_many(ids)))
        members = [[document for _ in group.ids[:MEMBERS_SHOWN] if (document := next(found))] for group in shown]
        present = [(group, some) for group, some in zip(shown, members, strict=True) if len(some) > 1]
        return FoundGroups(groups, present, current)

    @property
    def _is_joining(self) -> bool:
        return self._joining is not None and not self._joining.done()

    async def _join(self, threshold: float) -> None:
        def progress(count: int) -> None:
            self._joined += count
            if self._closing:
                raise _StoppedError

        manifest = self.index.manifest
        try:
            groups = await self._call(self._join_thread, lambda: self.index.groups(threshold, progress=progress))
        except _StoppedError:
            return
        except Exception:
            self._failed = manifest
            logger.exception("comparing the collection failed")
        else:
            self._groups = manifest, groups

    # --- what goes on in the threads

    async def _call(self, thread: Worker[Any, Any], function: Callable[[], T]) -> T:
        result: T = await thread.do(function)
        return result

    def _answer(self, jobs: list[_Encode | _Search | Callable[[], Any]]) -> list[Any]:
        results: list[Any] = [None] * len(jobs)
        rows: dict[int, slice] = {}  # by place
        searches: defaultdict[Asked, list[int]] = defaultdict(list)
        texts: list[str] = []
        for place, job in enumerate(jobs):
            if not isinstance(job, _Encode | _Search):
                results[place] = _called(job)
            elif isinstance(job, _Encode) and job.trace:
                results[place] = _called(functools.partial(self._trace, job))
            else:
                rows[place] = slice(len(texts), len(texts) + len(job.texts))
                texts += job.texts
                if isinstance(job, _Search):
                    searches[job.asked].append(place)
        if not rows:
            return results
        encoder = self.encoder
        try:
            with self.metrics.stage("encode"):
                vectors = encoder.encode(texts)
        except Exception as error:  # it is of these alone
            for place in rows:
                results[place] = error
            return results
        for place, own in rows.items():
            if isinstance(jobs[place], _Encode):
                results[place] = Encoded(vectors[own], encoder)
        for asked, places in searches.items():
            with self.metrics.stage("search"):
                found = self._search(vectors, [rows[place] for place in places], encoder, asked)
            for place, hits in zip(places, found, strict=True):
                results[place] = hits
        return results

    def _trace(self, job: _Encode) -> Encoded:
        traces = self.encoder.trace(job.texts)
        return Encoded(csr_array(vstack([trace.vector for trace in traces])), self.encoder, traces)

    def _search(
        self, vectors: csr_array, rows: list[slice], encoder: SparseStsEncoder, asked: Asked
    ) -> list[list[Hits] | Exception]:
        """Return the hits of some rows at a time."""
        if encoder.fingerprint != self.index.manifest.model_fingerprint:
            return [UnavailableError("the index has been replaced by one of another model; try again")] * len(rows)
        try:
            some = vectors[np.concatenate([np.arange(own.start, own.stop) for own in rows])]
            found = self.index.search_vectors(some, **vars(asked))
        except Exception as error:  # it is of these alone
            return [error] * len(rows)
        if encoder.calibration is not None:
            found = [scored(hits, encoder.calibration) for hits in found]
        each = iter(found)
        return [list(itertools.islice(each, own.stop - own.start)) for own in rows]

    def _count_queries(self, done: Done) -> None:
        self.metrics.batch("query", done)
        self.metrics.queued.set(self.waiting)

    def _measure(self) -> None:
        manifest = self.index.manifest
        self.metrics.documents.set(manifest.documents)
        self.metrics.postings.set(manifest.postings)
        self.metrics.bytes.set(folder_size(self.index.path))

    async def _refresh_often(self) -> None:
        while True:
            await asyncio.sleep(self.settings.refresh)
            try:
                if await self._call(self._write_thread, self.index.refresh):  # searches go on meanwhile
                    await self._call(self._read_thread, self._measure)
                    logger.info("refreshed", extra={"documents": len(self.index)})
                if self._broken or self.index.manifest.model_fingerprint != self.encoder.fingerprint:
                    self._broken = "the index has been replaced by one of another model"
                    self.encoder = await self._query_thread.do(lambda: self.index.encoder)
                    self._broken = None
            except OverloadedError:
                continue  # the model is busy: later
            except ClosedError:
                return
            except SparseStsError as error:
                logger.error("refresh failed: %s", error)
            except Exception:  # whatever it was, the next look may go well
                logger.exception("refresh failed")


def _called(function: Callable[[], T]) -> T | Exception:
    try:
        return function()
    except Exception as error:
        return error


def _calls(jobs: list[Callable[[], Any]]) -> list[Any]:
    return [_called(job) for job in jobs]


def _scores(encoder: SparseStsEncoder, cosines: list[float]) -> list[float | None]:
    if encoder.calibration is None:
        return [None] * len(cosines)
    return [*encoder.calibration(np.array(cosines)).tolist()]
