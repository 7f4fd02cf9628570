"""Write files so that they are there whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import io
import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from safetensors import SafetensorError

from sparse_sts_index.errors import DataError, ImpactIndexError, SparseStsError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


#: Bytes of a JSON file of an index, at most.
MOST_JSON = 1 << 26


@contextmanager
def os_errors_as(kind: type[SparseStsError], doing: str) -> Iterator[None]:
    """Raise an OSError of the block as an error of this library, with its reason.

    Parameters
    ----------
    kind : type
        The error to raise.
    doing : str
        The beginning of the message, such as ``"cannot write model"``.
    """
    try:
        yield
    except OSError as error:
        raise kind(f"{doing}: {error.strerror or error}") from error


@contextmanager
def atomic_writer(path: str | Path) -> Iterator[IO[str]]:
    """A UTF-8 text file that takes its place when the block ends well; gzipped if its name ends in ``.gz``.

    Raises
    ------
    DataError
        It is a folder or cannot be written; nothing is left behind.
    """
    with atomic_bytes(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="\n", write_through=True)
        yield text
        text.detach()


@contextmanager
def atomic_bytes(path: str | Path) -> Iterator[IO[bytes]]:
    """:func:`atomic_writer` for bytes."""
    path = Path(path)
    refuse_folder(path)
    if path.exists() and not path.is_file():  # /dev/stdout, a named pipe: there is nothing to put in its place
        with os_errors_as(DataError, f"cannot write {path}"), path.open("wb") as file:
            yield file
        return
    path, partial = _places(path)
    try:
        with os_errors_as(DataError, f"cannot write {path}"):
            with partial.open("wb") as binary:
                packed: contextlib.AbstractContextManager[Any] = contextlib.nullcontext(binary)
                if (
                    path.suffix.lower() == ".gz"
                ):  # no name and no time in its header: the same text gives the same bytes
                    packed = gzip.GzipFile("", "wb", fileobj=binary, mtime=0)
                with packed as sink:
                    yield sink
                binary.flush()
                os.fsync(binary.fileno())
            partial.replace(path)
            sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):  # a file system that is read-only now: what failed is told already
            partial.unlink(missing_ok=True)


def _places(path: Path) -> tuple[Path, Path]:
    """Return the file that is replaced, and the one that takes its place: a link stays, and what it points to goes."""
    place = Path(os.path.realpath(path))  # Path.resolve raises for a link to itself, or not, by the Python
    if place.is_symlink():
        raise DataError(f"cannot write {path}: a link to itself")
    return place, place.with_name(f".{place.name}.{os.getpid()}.partial")


def refuse_unwritable(path: str | Path) -> None:
    """Find out early, by writing beside it, that a file cannot be written.

    Raises
    ------
    DataError
        It cannot, is a folder, or is no plain file.
    """
    path = Path(path)
    refuse_folder(path)
    place, partial = _places(path)
    if place.exists() and not place.is_file():
        raise DataError(f"cannot write {path}: not a plain file")
    with os_errors_as(DataError, f"cannot write {path}"):
        partial.touch()
        partial.unlink()


def is_partial(path: Path, name: str) -> bool:
    """Return whether a path is what a killed :func:`atomic_writer` has left of a file of this name."""
    return path.match(f".{name}.*.partial")


@contextmanager
def tensors_written() -> Iterator[None]:
    """Has torch, safetensors and tokenizers say that a disk is full or fails as everything else says it.

    Raises
    ------
    OSError
        For what they raise: RuntimeError, SafetensorError, and Exception itself.
    """
    try:
        yield
    except Exception as error:
        plain = type(error) is Exception  # what tokenizers raise
        if not plain and not isinstance(error, (RuntimeError, SafetensorError)):
            raise
        raise OSError(f"{error} (is the disk full?)") from error


@contextmanager
def folder_writer(path: str | Path, *, overwrite: bool = True) -> Iterator[Path]:
    """Write a folder that takes its place, whole and durable, when the block ends well, for what was there before.

    Parameters
    ----------
    path : str or Path
    overwrite : bool
        Replace a folder with files in it. An empty folder is replaced either way.

    Yields
    ------
    Path
        Where to make it: a folder, with nothing in it.

    Raises
    ------
    OSError
        It cannot be written, another process is at it, or it has files in it (and not `overwrite`). What was there
        before is still there.
    """
    path = Path(path).resolve()
    aside = path.with_name(f".{path.name}.replaced")
    with locked_folder(path.with_name(f".{path.name}.partial")) as partial:
        if aside.exists() and not path.exists():  # who was here before was killed between the two renames below
            aside.rename(path)
        _empty(partial)  # of what somebody who was killed has left
        try:
            yield partial
            sync_tree(partial)
            try:
                if path.exists() and not overwrite:
                    path.rmdir()  # refuses a folder that has got files since it was looked at
                elif path.exists():  # a folder cannot be replaced in one step: step aside, and back if need be
                    shutil.rmtree(aside, ignore_errors=True)
                    path.rename(aside)
                partial.rename(path)
            except BaseException:
                if aside.exists() and not path.exists():
                    aside.rename(path)
                raise
            sync_folder(path.parent)
            shutil.rmtree(aside, ignore_errors=True)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def locked_folder(path: Path) -> Iterator[Path]:
    """A folder, made if need be, that one process or thread at a time has, where there are such locks.

    Raises
    ------
    OSError
        It cannot be made, or somebody else has it.
    """
    while True:
        path.mkdir(parents=True, exist_ok=True)
        if fcntl is None:
            yield path
            return
        descriptor = os.open(path, os.O_RDONLY)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise OSError(error.errno, "another process is writing there", str(path)) from error
            except OSError:
                pass  # a file system without locks
            if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):  # it was not renamed meanwhile
                yield path
                return
        finally:
            os.close(descriptor)


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def read_plain(path: Path, most: int) -> bytes:
    """The content of a file that others may have made: of a link, a pipe, or one that has no end, nothing is read.

    Raises
    ------
    OSError
        It cannot be read, is no plain file, or has more than `most` bytes.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a plain file", str(path))
        if status.st_size > most:
            raise OSError(errno.EFBIG, f"more than {most:,} bytes", str(path))
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(most)
    finally:
        os.close(descriptor)


def refuse_links(folder: Path) -> None:
    """Refuse a folder that is a link or holds one: it must not have files elsewhere read or written.

    Raises
    ------
    ImpactIndexError
        It is, or does; or cannot be looked into.
    """
    with os_errors_as(ImpactIndexError, f"{folder}"):
        for entry in (folder, *(folder.iterdir() if folder.is_dir() else ())):
            if entry.is_symlink():
                raise ImpactIndexError(f"{entry}: a link; an index holds its own files")


def refuse_target(
    folder: Path,
    what: str,
    *,
    error: type[SparseStsError],
    parts: Callable[[Path], bool],
    complete: bool,
    overwrite: bool,
) -> None:
    """Refuse to write a folder where something else is, or where a complete one is unless `overwrite`.

    Parameters
    ----------
    folder : Path
        May be missing or empty.
    what : str
        What is to be written, with its article.
    error : type
        The error to raise.
    parts : callable
        Takes a path in the folder and tells whether it is a part of such a folder.
    complete : bool
        Whether the folder holds a complete one.
    overwrite : bool
    """
    with os_errors_as(error, f"cannot write {folder}"):
        if not folder.exists():
            return
        if not folder.is_dir():
            raise error(f"{folder} is a file, not a folder for {what}")
        stray = next((entry.name for entry in sorted(folder.iterdir()) if not parts(entry)), None)
    if stray is not None:
        raise error(f"{folder} is not {what} and not empty (it holds {stray})")
    if complete and not overwrite:
        raise error(f"{folder} already holds {what}; replace it with --overwrite (overwrite=True)")


def refuse_replacing(folder: Path, what: str, *, error: type[SparseStsError], complete: bool, overwrite: bool) -> None:
    """Refuse a target of :func:`folder_writer`; see :func:`refuse_target`."""
    if folder.is_mount():
        raise error(f"{folder} is a mount point and cannot be replaced; name a folder in it")
    refuse_target(folder, what, error=error, parts=lambda _: complete, complete=complete, overwrite=overwrite)


def refuse_file(folder: Path) -> None:
    """Find out early that a folder cannot be made.

    Raises
    ------
    DataError
        `folder` is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder} is a file, and a folder is wanted")


def refuse_folder(path: str | Path) -> None:
    """Find out early that a file cannot be written.

    Raises
    ------
    DataError
        `path` is a folder, or is to be in one that is not there.
    """
    path = Path(path)
    if path.is_dir():
        raise DataError(f"cannot write {path}: it is a folder")
    if not path.parent.is_dir():
        raise DataError(f"cannot write {path}: no folder {path.parent}")


def to_sealed_json(values: Mapping[str, Any]) -> str:
    """As indented JSON that ends with a checksum of itself."""
    seal = hashlib.sha256(json.dumps(values).encode()).hexdigest()
    return json.dumps({**values, "sha256": seal}, indent=2, ensure_ascii=False) + "\n"


def from_sealed_json(text: str) -> dict[str, Any]:
    """What :func:`to_sealed_json` was given.

    Raises
    ------
    ValueError
        It is not, to the letter, as it was written.
    """
    try:
        values = json.loads(text)
    except RecursionError as error:
        raise ValueError("nested without end") from error
    if not isinstance(values, dict) or values.pop("sha256", None) is None or to_sealed_json(values) != text:
        raise ValueError("the checksum is another")
    return values


def folder_size(folder: Path) -> int:
    """Return the bytes of all files in a folder; of those up to the first that is removed meanwhile."""
    total = 0
    with contextlib.suppress(OSError):
        for file in folder.rglob("*"):
            total += file.stat().st_size if file.is_file() else 0
    return total


def sync_tree(folder: Path) -> None:
    """Make a folder durable with all that is in it."""
    for path in (*folder.rglob("*"), folder):
        if path.is_dir():
            sync_folder(path)
        else:
            _sync(path)


def sync_folder(folder: Path) -> None:
    """Make durable which files a folder holds."""
    if os.name != "nt":  # where a folder cannot be opened, and need not be
        _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
