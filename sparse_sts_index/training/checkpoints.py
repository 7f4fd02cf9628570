"""What an interrupted training run leaves beside its output, and what a later one may make of it."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers.trainer import TRAINER_STATE_NAME

from sparse_sts_index._utils.files import (
    MOST_JSON,
    atomic_writer,
    from_sealed_json,
    os_errors_as,
    read_plain,
    sync_tree,
    tensors_written,
    to_sealed_json,
)
from sparse_sts_index.data.pairs import Pairs
from sparse_sts_index.encoding.model_safety import check_model
from sparse_sts_index.errors import TrainingError
from sparse_sts_index.training.model_folder import is_model, refuse_model_target

_REMOVED = ".removed-{}"
_SEAL_FILE = "sha256.json"  # of a checkpoint: written last
_IDENTITY_FILE = "run.json"  # of the run that the checkpoints beside it belong to


class Checkpoints:
    """The checkpoints of one training run, in a folder beside its output.

    Parameters
    ----------
    folder : str or Path

    Attributes
    ----------
    folder : Path
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    @classmethod
    def of_output(cls, output: str | Path) -> Checkpoints:
        """Return the checkpoints of a run that writes its model to `output`."""
        output = Path(output).resolve()
        return cls(output.with_name(output.name + ".checkpoints"))

    def last(self) -> str | None:
        """Return the folder of the last complete checkpoint, if any."""
        complete = [path for path in self.folder.glob("checkpoint-[0-9]*") if _sealed(path) is not None]
        return str(max(complete, key=lambda path: int(path.name.rpartition("-")[2]))) if complete else None

    def check(self, output: Path, identity: Mapping[str, Any], resume: bool, overwrite: bool) -> str | None:
        """Refuse what must not be overwritten or cannot be resumed.

        Returns
        -------
        str or None
            The folder of the checkpoint to resume from.

        Raises
        ------
        TrainingError
        """
        if resume and is_model(output) and not self.folder.exists():
            raise TrainingError(f"nothing to resume: {output} is complete")
        refuse_model_target(output, error=TrainingError, overwrite=overwrite)
        if self.folder.exists() and not (self.folder / _IDENTITY_FILE).is_file():
            raise TrainingError(f"{self.folder} is where checkpoints would go, but it is something else")
        last = self.last()
        if resume:
            if last is None:
                raise TrainingError(f"nothing to resume: no checkpoint in {self.folder}")
            self._check_identity(output, identity)
            _check_files(Path(last))
            return last
        if last is not None and not overwrite:
            raise TrainingError(
                f"an interrupted run is in {self.folder}: go on with --resume (resume=True), "
                "or start again with --overwrite (overwrite=True)"
            )
        return None

    def _check_identity(self, output: Path, identity: Mapping[str, Any]) -> None:
        try:
            before = json.loads((self.folder / _IDENTITY_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise TrainingError(f"cannot resume: {self.folder / _IDENTITY_FILE} cannot be read") from error
        changed = [f"{key} {before.get(key)} (now {now})" for key, now in identity.items() if now != before.get(key)]
        if changed:
            raise TrainingError(f"cannot resume {output}: it was started with {', '.join(changed)}")

    @contextmanager
    def run(self, identity: Mapping[str, Any], resumed: str | None) -> Iterator[None]:
        """Keep the folder while a run lasts; remove it if the run fails before its first checkpoint.

        Parameters
        ----------
        identity : mapping
            The settings and data of the run.
        resumed : str, optional
            The checkpoint that is resumed. Otherwise the folder is emptied.

        Raises
        ------
        TrainingError, DataError
            The folder cannot be written; a file of the checkpoint is damaged, or holds more than plain data.
        """
        try:
            if resumed is None:
                self.remove()
            with os_errors_as(TrainingError, f"cannot write {self.folder}"):
                self.folder.mkdir(parents=True, exist_ok=True)
            with atomic_writer(self.folder / _IDENTITY_FILE) as file:
                json.dump(identity, file, indent=2)
            yield
        except (pickle.UnpicklingError, SafetensorError, EOFError) as error:  # of model, optimizer, schedule, seeds
            raise TrainingError(
                f"cannot go on: a file in {resumed or self.folder} is damaged, or no plain data"
            ) from error
        except BaseException:
            if self.last() is None:
                self.remove()
            raise

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Raise what fails in the block as a TrainingError: a checkpoint cannot be written."""
        with os_errors_as(TrainingError, f"cannot write a checkpoint to {self.folder}"), tensors_written():
            yield

    def keep_last_and(self, best: str | None) -> None:
        """Remove all checkpoints but the last one and the best one."""
        kept = {Path(path).name for path in (best, self.last()) if path is not None}
        for path in (*self.folder.glob("checkpoint-*"), *self.folder.glob(_REMOVED.format("*"))):
            if path.name not in kept:
                _discard(path)

    def remove(self) -> None:
        """Remove the folder as far as possible; the identity last, so that a killed process can start again."""
        if not self.folder.is_dir():
            return
        for path in self.folder.iterdir():
            if path.is_dir():
                _discard(path)
            elif path.name != _IDENTITY_FILE:
                path.unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)


def seal(checkpoint: Path) -> None:
    """Make a checkpoint durable, and complete: with the checksums of its files."""
    sync_tree(checkpoint)
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file())
    sums = {path.relative_to(checkpoint).as_posix(): _sha256(path) for path in files if path.name != _SEAL_FILE}
    with atomic_writer(checkpoint / _SEAL_FILE) as file:
        file.write(to_sealed_json(sums))


def _sealed(checkpoint: Path) -> dict[str, str] | None:
    """The checksums of a checkpoint that is complete; None of one that was being written, or removed."""
    try:
        sums = from_sealed_json(read_plain(checkpoint / _SEAL_FILE, MOST_JSON).decode("utf-8"))
    except (OSError, ValueError):
        return None
    complete = {TRAINER_STATE_NAME, "modules.json"} <= sums.keys() and all((checkpoint / n).is_file() for n in sums)
    return sums if complete else None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_files(checkpoint: Path) -> None:
    """Refuse files that are not as they were written, and what would run code of its maker's.

    The trainer loads models without what :mod:`.encoding.model_safety` sees to.
    """
    for name, expected in (_sealed(checkpoint) or {}).items():
        if _sha256(checkpoint / name) != expected:
            raise TrainingError(f"cannot resume: {checkpoint / name} is not as it was written")
    state = json.loads((checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
    best = Path(state.get("best_model_checkpoint") or checkpoint)
    if best.resolve().parent != checkpoint.resolve().parent:
        raise TrainingError(f"cannot resume: {checkpoint} says that the best model is elsewhere")
    for folder in (checkpoint, best):
        check_model(str(folder))


def _discard(folder: Path) -> None:
    """Remove a folder as far as possible; what is left of it, if this is cut short, does not look like a checkpoint."""
    removed = folder if folder.match(_REMOVED.format("*")) else folder.with_name(_REMOVED.format(folder.name))
    with suppress(OSError):
        if removed != folder:
            shutil.rmtree(removed, ignore_errors=True)
            folder.rename(removed)
        shutil.rmtree(removed, ignore_errors=True)


def pairs_sha256(train_pairs: Pairs, dev_pairs: Pairs, unlabelled: Sequence[str]) -> str:
    """What tells the data of a run from others."""
    digest = hashlib.sha256()
    for pairs in (train_pairs, dev_pairs):
        digest.update(json.dumps(pairs.columns()).encode())
    if unlabelled:
        digest.update(json.dumps(list(unlabelled)).encode())
    return digest.hexdigest()[:16]
