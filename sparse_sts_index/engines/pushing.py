"""An index into a serving engine: in batches, each tried until it is taken, resumed where a journal says."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sparse_sts_index._utils.files import atomic_writer, refuse_folder
from sparse_sts_index._utils.numbers import check_whole
from sparse_sts_index.engines.base import Busy, Engine, Metadata, Point, points_of
from sparse_sts_index.engines.retry import BackOff
from sparse_sts_index.engines.sources import Source
from sparse_sts_index.errors import DataError, EngineError, ModelMismatchError


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
    overwrite : bool
        Whether the push started the collection anew; one that did is not the one that did not.

    Raises
    ------
    DataError
        The file is something else.
    """

    def __init__(self, path: Path | None, target: str, state: str, overwrite: bool) -> None:
        self._path = path
        self._whose: dict[str, object] = {"target": target, "source": state, "overwrite": overwrite}
        self._held: dict[str, object] = {}
        self.acknowledged = 0
        if path is None:
            return
        refuse_folder(path)
        if path.exists():
            try:
                self._held = json.loads(path.read_text(encoding="utf-8"))
                acknowledged = self._held.pop("acknowledged")
            except (ValueError, KeyError, AttributeError, TypeError) as error:
                raise DataError(f"{path} is not the journal of a push") from error
            if type(acknowledged) is not int or acknowledged < 0:
                raise DataError(f"{path} is not the journal of a push")
            self.acknowledged = acknowledged

    def begin(self, created: str) -> bool:
        """Whether this push goes on in a collection, by its :attr:`.Metadata.created`; if not, the file goes."""
        self._whose["collection"] = created
        if created and self.acknowledged and self._held == self._whose:
            return True
        self.acknowledged = 0
        if self._path is not None:
            self._path.unlink(missing_ok=True)
        return False

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
    acknowledged, if the collection is still the one that it wrote to; the batch that was under way is sent again, which
    does no harm.

    Parameters
    ----------
    source : Source
    engine : Engine
    batch_size : int
        Documents a request.
    journal : str or Path, optional
        The file to keep; removed when all is done. For a source with a state.
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
        The engine cannot be reached, or refuses a document; or something that is not ours has the collection's name,
        or has other fields.
    DataError
        The journal cannot be used.
    """
    check_whole("batch_size", batch_size, 1)
    if journal is not None and not source.state:
        raise ValueError("a journal is kept of an index: a corpus cannot be taken up in its middle")
    start, back_off, terms = time.monotonic(), back_off or BackOff(), source.vocabulary.terms
    kept = Journal(None if journal is None else Path(journal), str(engine.target), source.state, overwrite)
    _prepare(source, engine, kept, overwrite, back_off)
    skipped, sent, empty = kept.acknowledged, 0, 0
    if progress is not None and skipped:
        progress(skipped)
    for chunk in source.read(skipped):
        points = list(points_of(chunk, source.metadata))
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
    """See to it that the collection is there and ours, and what of it the journal may skip."""
    held = back_off.briefly().call(engine.metadata)
    if held is not None and not overwrite and not held.comparable(source.metadata):
        raise ModelMismatchError(
            f"{engine.target} is of the model {held.model} ({held.model_fingerprint[:12]}), the documents are of "
            f"{source.metadata.model} ({source.metadata.model_fingerprint[:12]}); replace it with --overwrite"
        )
    if held is not None and not overwrite and held.fields != source.metadata.fields:
        raise EngineError(
            f"{engine.target} has {_shown(held)}, the documents have {_shown(source.metadata)}; replace it with "
            "--overwrite"
        )
    engine.check(source.metadata)
    if held is not None and (journal.begin(held.created) or not overwrite):
        return
    made = replace(source.metadata, created=secrets.token_hex(16))
    journal.begin(made.created)  # before anything is dropped: from here on, what the file says is not so
    back_off.call(lambda: _make(engine, made, overwrite))


def _shown(metadata: Metadata) -> str:
    return ", ".join(f"{name} ({type_})" for name, type_ in sorted(metadata.fields.items())) or "no fields"


def _make(engine: Engine, metadata: Metadata, overwrite: bool) -> None:
    """Make the collection. May be tried again: what was done, though its answer was lost, is not done twice."""
    held = engine.metadata()
    if held is not None and held.created == metadata.created:
        return
    if held is not None and overwrite:
        engine.drop()
    engine.create(metadata)


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
