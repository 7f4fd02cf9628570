"""Write files so that they are there whole or not at all."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, cast

from safetensors import SafetensorError

from sparse_sts_index.errors import DataError


@contextmanager
def atomic_writer(path: str | Path) -> Iterator[IO[str]]:
    """A UTF-8 text file that takes its place when the block ends well; gzipped if its name ends in ``.gz``.

    Raises
    ------
    DataError
        It is a folder or cannot be written; nothing is left behind.
    """
    path = Path(path).resolve()  # a link stays, and what it points to is replaced
    refuse_folder(path)
    if path.exists() and not path.is_file():  # /dev/stdout, a named pipe: there is nothing to put in its place
        with path.open("w", encoding="utf-8") as file:
            yield file
        return
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        try:
            with ExitStack() as stack:
                binary: IO[bytes] = stack.enter_context(partial.open("wb"))
                stack.callback(lambda: os.fsync(binary.fileno()))
                stack.callback(binary.flush)
                packed = binary
                if path.suffix == ".gz":  # no name and no time in its header: the same text gives the same bytes
                    packed = cast(IO[bytes], stack.enter_context(gzip.GzipFile("", "wb", fileobj=binary, mtime=0)))
                text = io.TextIOWrapper(packed, encoding="utf-8", newline="\n", write_through=True)
                stack.callback(text.detach)
                yield text
            partial.replace(path)
        except OSError as error:
            raise DataError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)


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
def folder_writer(path: str | Path) -> Iterator[Path]:
    """A folder that takes its place, whole and durable, when the block ends well; what was there before goes then.

    Yields
    ------
    Path
        Where to make it; there is nothing there.

    Raises
    ------
    OSError
        It cannot be written; what was there before is still there.
    """
    path = Path(path).resolve()
    partial, aside = path.with_name(f".{path.name}.partial"), path.with_name(f".{path.name}.replaced")
    if aside.exists() and not path.exists():  # who was here before was killed between the two renames below
        aside.rename(path)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        yield partial
        for file in partial.rglob("*"):
            _sync(file)
        if path.exists():  # a folder cannot be replaced in one step: step aside, and back if need be
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
        try:
            partial.rename(path)
        except OSError:
            if aside.exists():
                aside.rename(path)
            raise
        sync_folder(path.parent)
        shutil.rmtree(aside, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


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
    values = json.loads(text)
    if not isinstance(values, dict) or values.pop("sha256", None) is None or to_sealed_json(values) != text:
        raise ValueError("the checksum is another")
    return values


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
