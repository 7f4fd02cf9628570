"""What the tests share: the real small model, a real index of the sample, and the real STSb where it is at hand."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before anything imports the hub client
os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its core logs from threads of its own, into the output of later tests
if "PYTEST_XDIST_WORKER" in os.environ:  # workers share the cores, and threads that wait for each other would spin
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

if TYPE_CHECKING:
    from sparse_sts_index import SparseStsEncoder, SparseStsIndex

#: Files that need what not every machine has. They are slow as well.
MARKS = {
    "e2e/test_page.py": "browser",
    "integration/test_spark.py": "spark",
    "unit/engines/test_request_schemas.py": "network",
}

#: Left out where there is no torch (`make lanes-light`); single tests of other files that ask for a model are skipped.
WITH_TORCH_ONLY = (
    "e2e",
    "integration/test_docs.py",
    "integration/test_engines_local.py",
    "integration/test_fork.py",
    "integration/test_index.py",
    "integration/test_misuse.py",
    "integration/test_packaging.py",
    "integration/test_prose.py",
    "integration/test_spark.py",
    "security/test_hostile_models.py",
    "unit/encoding",
    "unit/engines/test_sentence_transformers.py",
    "unit/evaluation",
    "unit/server",
    "unit/training",
)
WITHOUT_TORCH = importlib.util.find_spec("torch") is None
collect_ignore = WITH_TORCH_ONLY if WITHOUT_TORCH else ()


def pytest_report_header() -> list[str]:
    return [f"without torch; left out: {', '.join(WITH_TORCH_ONLY)}"] if WITHOUT_TORCH else []


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name a test after its argument where the value is bytes: those of gzip hold the time, and workers must agree."""
    return argname if isinstance(val, bytes) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests, and put the files that take longest first, so that two workers end at about the same time."""
    here = Path(__file__).parent
    for item in items:
        mark = MARKS.get(item.path.relative_to(here).as_posix())
        if mark is not None:
            item.add_marker(mark)
            item.add_marker("slow")
    items.sort(key=lambda item: item.path.name not in ("test_spark.py", "test_fine_tuning.py"))


@pytest.fixture(scope="session")
def tiny() -> SparseStsEncoder:
    pytest.importorskip("torch", reason="needs torch")
    from sparse_sts_index import SparseStsEncoder

    return SparseStsEncoder.load("tiny", precision="float32")


@pytest.fixture(scope="session")
def sample_index(tiny: SparseStsEncoder, tmp_path_factory: pytest.TempPathFactory) -> SparseStsIndex:
    from sparse_sts_index import SparseStsIndex, read_corpus

    return SparseStsIndex.build(tmp_path_factory.mktemp("sample") / "index", read_corpus("sample"), tiny)


@pytest.fixture(scope="session")
def stsb() -> Path:
    folder = Path(__file__).parents[2] / "shared" / "stsb"
    if not folder.is_dir():
        pytest.skip("needs the STS benchmark in ../shared/stsb")
    return folder


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a file and return its path."""

    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write
