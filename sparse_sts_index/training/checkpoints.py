"""What an interrupted training run leaves beside its output, and what a later one may make of it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

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

_REMOVED = ".removed-{}"
_SEAL_FILE = "sha256.json"  # of a checkpoint: written last
_IDENTITY_FILE = "run.json"  # of the run that the checkpoints beside it belong to


def checkpoints_folder(output: str | Path) -> Path:
    """Where the checkpoints of a run with this `output` are kept until it ends."""
    output = Path(output).resolve()
    return output.with_name(output.name + ".checkpoints")


def check_output(
    output: Path, checkpoints: Path, identity: Mapping[str, Any], resume: bool, overwrite: bool
) -> str | None:
    """Refuse what must not be overwritten or cannot be resumed; the checkpoint to go on from, if any."""
    if resume and (output / "modules.json").is_file() and not checkpoints.exists():
        raise TrainingError(f"nothing to resume: {output} is complete")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        if not overwrite:
            raise TrainingError(f"{output} already exists; replace it with overwrite=True, --overwrite")
        if not (output / "modules.json").is_file():
            raise TrainingError(f"{output} is not a model folder; it will not be overwritten")
    if checkpoints.exists() and not (checkpoints / _IDENTITY_FILE).is_file():
        raise TrainingError(f"{checkpoints} is where checkpoints would go, but it is something else")
    last = last_checkpoint(checkpoints)
    if not resume:
        if last is not None and not overwrite:
            raise TrainingError(
                f"an interrupted run is in {checkpoints}: go on with resume=True, --resume, "
                "or start again with overwrite=True, --overwrite"
            )
        return None
    if last is None:
        raise TrainingError(f"nothing to resume: no checkpoint in {checkpoints}")
    try:
        before = json.loads((checkpoints / _IDENTITY_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(f"cannot resume: {checkpoints / _IDENTITY_FILE} cannot be read") from error
    if changed := [f"{key} {before.get(key)} (now {now})" for key, now in identity.items() if now != before.get(key)]:
        raise TrainingError(f"cannot resume {output}: it was started with {', '.join(changed)}")
    _check_files(Path(last))
    return last


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

    The trainer loads models without what :mod:`.models` sees to.
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


def begin(checkpoints: Path, identity: Mapping[str, Any], resume: bool) -> None:
    """Make the folder, empty unless a run is resumed, and write into it whose it is.

    Raises
    ------
    TrainingError, DataError
        It cannot be written.
    """
    if not resume:
        remove(checkpoints)
    with os_errors_as(TrainingError, f"cannot write {checkpoints}"):
        checkpoints.mkdir(parents=True, exist_ok=True)
    with atomic_writer(checkpoints / _IDENTITY_FILE) as file:
        json.dump(identity, file, indent=2)


@contextmanager
def writing_checkpoint(checkpoints: str | Path | None) -> Iterator[None]:
    """Around what writes a checkpoint.

    Raises
    ------
    TrainingError
        It cannot be written.
    """
    with os_errors_as(TrainingError, f"cannot write a checkpoint to {checkpoints}"), tensors_written():
        yield


def keep_last_and(best: str | None, checkpoints: Path) -> None:
    """Remove all checkpoints but the last one and the best one."""
    kept = {Path(path).name for path in (best, last_checkpoint(checkpoints)) if path is not None}
    for folder in (*checkpoints.glob("checkpoint-*"), *checkpoints.glob(_REMOVED.format("*"))):
        if folder.name not in kept:
            _discard(folder)


def _discard(folder: Path) -> None:
    """Remove a folder as far as possible; what is left of it, if this is cut short, does not look like a checkpoint."""
    removed = folder if folder.match(_REMOVED.format("*")) else folder.with_name(_REMOVED.format(folder.name))
    with suppress(OSError):
        if removed != folder:
            shutil.rmtree(removed, ignore_errors=True)
            folder.rename(removed)
        shutil.rmtree(removed, ignore_errors=True)


def remove(checkpoints: Path) -> None:
    """Remove the folder, as far as that is possible; whose it is last, so that who is killed can begin anew."""
    if not checkpoints.is_dir():
        return
    for path in checkpoints.iterdir():
        if path.is_dir():
            _discard(path)
        elif path.name != _IDENTITY_FILE:
            path.unlink(missing_ok=True)
    shutil.rmtree(checkpoints, ignore_errors=True)


def pairs_sha256(train_pairs: Pairs, dev_pairs: Pairs, unlabelled: Sequence[str]) -> str:
    """What tells the data of a run from others."""
    digest = hashlib.sha256()
    for pairs in (train_pairs, dev_pairs):
        digest.update(json.dumps(pairs.columns()).encode())
    if unlabelled:
        digest.update(json.dumps(list(unlabelled)).encode())
    return digest.hexdigest()[:16]


def last_checkpoint(checkpoints: Path) -> str | None:
    """The last checkpoint that is complete, if any."""
    complete = [folder for folder in checkpoints.glob("checkpoint-[0-9]*") if _sealed(folder) is not None]
    return str(max(complete, key=lambda folder: int(folder.name.rpartition("-")[2]))) if complete else None
