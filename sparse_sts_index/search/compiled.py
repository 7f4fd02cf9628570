"""Compile functions of numbers to machine code, and keep the code for the next process."""

from __future__ import annotations

import contextlib
import pickle
import zlib
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from numba import config, njit
from numba.core.caching import CompileResultCacheImpl, FunctionCache
from numba.core.serialize import dumps

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class _Checked(CompileResultCacheImpl):  # type: ignore[misc]
    """Compiled code as a file has it, with a checksum: code with one wrong bit crashes, or finds too few rows."""

    def reduce(self, cres: Any) -> tuple[int, bytes]:
        code = dumps(super().reduce(cres))
        return zlib.crc32(code), code

    def rebuild(self, target_context: Any, payload: tuple[int, bytes]) -> Any:
        checksum, code = payload
        if zlib.crc32(code) != checksum:
            raise ValueError("checksum mismatch")
        return super().rebuild(target_context, pickle.loads(code))


class _Cache(FunctionCache):  # type: ignore[misc]
    """Compiled code on disk, where it can be read and written; damaged code is compiled again."""

    _impl_class = _Checked

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        with contextlib.suppress(Exception):  # a file of this cache may hold anything
            return super().load_overload(sig, target_context)
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except Exception:  # a damaged file that is in the way, or a full disk
            with contextlib.suppress(Exception):
                self.flush()
                super().save_overload(sig, data)


def part(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Compile a function that other compiled functions call; it is kept as a part of these."""
    compiled: Callable[Arguments, Result] = njit(error_model="numpy")(function)
    return compiled


def kernel(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Compile a function that Python calls: on its first call, or read what an earlier process has compiled.

    It runs without the interpreter's lock. Its code is kept where numba keeps it: in ``NUMBA_CACHE_DIR``, else beside
    the source, else in the user's cache folder; nowhere if none of them may be written to. Functions that it calls
    must be in its file: numba looks for changes nowhere else.
    """
    dispatcher = njit(nogil=True, error_model="numpy")(function)
    if not config.DISABLE_JIT:
        with contextlib.suppress(RuntimeError, OSError):  # no place may be written to
            dispatcher._cache = _Cache(function)  # noqa: SLF001 (cache=True, which would raise these errors)
    compiled: Callable[Arguments, Result] = dispatcher
    return compiled
