"""An index into a serving engine: in batches, each tried until it is taken, resumed where a journal says."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sparse_sts_index.engines.base import Busy, Engine, Point, points_of
from sparse_sts_index.engines.retry import BackOff
from sparse_sts_index.engines.source import Source
from sparse_sts_index.errors import DataError, ModelMismatchError
from sparse_sts_index.files import atomic_writer, refuse_folder


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a push has done.

    Attributes
    ----------
    documents : int
        Sent and acknowledged.
    skipped : int
        Acknowledged to an earlier push, by the journal.
    empty : int
        Without a term, which no query can find; not sent.
    seconds : float
    """

    documents: int
    skipped: int
    empty: int
    seconds: float


class Journal:
    """How far the push of one state of an index to one collection has come; there only while it is not finished.

    Parameters
    ----------
    path : Path, optional
        None: nothing is kept.
    target, state : str
        Of the collection, without credentials, and of the source. What a file says of others does not count.

    Raises
    ------
    DataError
        The file is something else.
    """

    def __init__(self, path: Path | None, target: str, state: str) -> None:
        self._path, self._whose = path, {"target": target, "source": state}
        self.acknowledged = 0
        if path is None:
            return
        refuse_folder(path)
        if path.exists():
            try:
                held = json.loads(path.read_text(encoding="utf-8"))
                acknowledged = held.pop("acknowledged")
            except (ValueError, KeyError, AttributeError, TypeError) as error:
                raise DataError(f"{path} is not the journal of a push") from error
            if held == self._whose:
                self.acknowledged = acknowledged

    def note(self, documents: int) -> None:
        """So many more are acknowledged."""
        self.acknowledged += documents
        if self._path is not None:
            with atomic_writer(self._path) as file:
                json.dump({**self._whose, "acknowledged": self.acknowledged}, file)

    def finish(self) -> None:
        """The push is complete."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def push(
    source: Source,
    engine: Engine,
    *,
    batch_size: int = 500,
    journal: str | Path | None = None,
    overwrite: bool = False,
    progress: Callable[[int], None] | None = None,
    back_off: BackOff | None = None,
) -> Pushed:
    """Make an engine's collection hold all documents of a source, each under an id of its own.

    A second push changes nothing but what has changed; documents that the source no longer has stay, unless `overwrite`
    starts the collection anew. A push that was killed goes on behind the last batch that its journal says was
    acknowledged; the batch that was under way is sent again, which does no harm.

    Parameters
    ----------
    source : Source
    engine : Engine
    batch_size : int
        Documents a request.
    journal : str or Path, optional
        The file to keep; removed when all is done.
    overwrite : bool
        Start anew (unless the journal says that this is what is going on).
    progress : callable, optional
        Called with the number of documents dealt with since its last call.
    back_off : BackOff, optional

    Raises
    ------
    ModelMismatchError
        The collection is of another model (and not `overwrite`).
    EngineError
        The engine cannot be reached, or refuses a document; or something that is not ours has the collection's name.
    DataError
        The journal cannot be used.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    start, back_off, terms = time.monotonic(), back_off or BackOff(), source.vocabulary.terms
    kept = Journal(None if journal is None else Path(journal), str(engine.target), source.state)
    _prepare(source, engine, kept, overwrite, back_off)
    skipped, sent, empty = kept.acknowledged, 0, 0
    if progress is not None and skipped:
        progress(skipped)
    for chunk in source.read(skipped):
        points = list(points_of(chunk))
        for first in range(0, len(points), batch_size):
            batch = points[first : first + batch_size]
            full = [point for point in batch if point.vector.terms]
            _deliver(engine, full, terms, back_off)
            sent, empty = sent + len(full), empty + len(batch) - len(full)
            kept.note(len(batch))
            if progress is not None:
                progress(len(batch))
    back_off.call(engine.flush)
    kept.finish()
    return Pushed(sent, skipped, empty, time.monotonic() - start)


def _prepare(source: Source, engine: Engine, journal: Journal, overwrite: bool, back_off: BackOff) -> None:
    """See to it that the collection is there and ours."""
    held = back_off.call(engine.metadata)
    if held is not None and journal.acknowledged and held.comparable(source.metadata):
        return
    journal.acknowledged = 0
    if held is not None and overwrite:
        back_off.call(engine.drop)
        held = None
    if held is None:
        back_off.call(lambda: engine.create(source.metadata))
    elif not held.comparable(source.metadata):
        raise ModelMismatchError(
            f"{engine.target} is of the model {held.model} ({held.model_fingerprint[:12]}), the documents are of "
            f"{source.metadata.model} ({source.metadata.model_fingerprint[:12]}); replace it with --overwrite"
        )


def _deliver(engine: Engine, points: Sequence[Point], terms: Sequence[str], back_off: BackOff) -> None:
    """Write until all is taken; of a batch that is taken in part, what is left."""
    left = points

    def attempt() -> None:
        nonlocal left
        try:
            engine.write(left, terms)
        except Busy as busy:
            left = left if busy.left is None else busy.left
            raise

    if left:
        back_off.call(attempt)
