"""Compiled code is kept where it can be, and compiled again where what was kept cannot be read."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from numba.core.caching import CacheImpl

from sparse_sts_index.search.compiled import kernel, part

pytestmark = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is compiled")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "doubling.py").write_text("def double(number):\n    return 2 * number\n")
    return tmp_path / "cache"


def ask(cache: Path) -> dict[Any, int]:
    """Call the function as a new process does; how often it was found in the cache."""
    spec = importlib.util.spec_from_file_location("doubling", cache.parent / "doubling.py")
    assert spec is not None and spec.loader is not None  # noqa: PT018
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    double: Any = kernel(module.double)
    assert double(21) == 42
    return dict(double.stats.cache_hits)


def test_code_is_compiled_once(cache: Path) -> None:
    assert [len(ask(cache)) for _ in range(3)] == [0, 1, 1]


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
@pytest.mark.parametrize("content", [b"", b"garbage", bytes(1000)])
def test_a_damaged_cache_is_made_again(cache: Path, suffix: str, content: bytes) -> None:
    ask(cache)
    (file,) = cache.rglob(f"*.{suffix}")
    file.write_bytes(content)
    assert [len(ask(cache)) for _ in range(2)] == [0, 1]


def test_code_with_a_flipped_bit_is_compiled_again(cache: Path) -> None:
    """Such code would crash, or return anything."""
    ask(cache)
    (file,) = cache.rglob("*.nbc")
    content, rng = file.read_bytes(), np.random.default_rng(0)
    for place in rng.choice(8 * len(content), 20, replace=False).tolist():
        damaged = bytearray(content)
        damaged[place // 8] ^= 1 << place % 8
        file.write_bytes(damaged)
        assert len(ask(cache)) == 0
        assert len(ask(cache)) == 1


def test_a_cache_that_cannot_be_written_is_done_without(cache: Path) -> None:
    ask(cache)
    for file in cache.rglob("*.nb?"):
        file.unlink()
        file.mkdir()
    assert [len(ask(cache)) for _ in range(2)] == [0, 0]


def test_no_place_for_a_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CacheImpl, "_locator_classes", [])
    assert [len(ask(cache)) for _ in range(2)] == [0, 0]
    assert not cache.exists()


def test_a_part_is_kept_with_what_calls_it(cache: Path) -> None:
    halve = part(lambda number: number // 2)
    assert halve(42) == 21
    assert not cache.exists()
