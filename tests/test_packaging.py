"""What a wheel of this project puts into site-packages."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # a build leaves things beside its sources
    for name in ("sparse_sts_index", "cli"):
        shutil.copytree(ROOT / name, source / name)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        folder,
        source,
    ]
    subprocess.run([*map(str, command)], check=True, capture_output=True)
    return zipfile.ZipFile(next(folder.glob("*.whl"))).namelist()


def test_the_only_top_level_name_is_ours(wheel: list[str]) -> None:
    tops = {name.split("/")[0] for name in wheel}
    assert tops == {"sparse_sts_index", "sparse_sts_index-0.1.0.dist-info"}


def test_it_has_all_it_needs(wheel: list[str]) -> None:
    modules = {f"sparse_sts_index/{path.name}" for path in (ROOT / "sparse_sts_index").glob("*.py")}
    commands = {f"sparse_sts_index/cli/{path.name}" for path in (ROOT / "cli").glob("*.py")}
    data = {f"sparse_sts_index/sample/{path.name}" for path in (ROOT / "sparse_sts_index" / "sample").glob("*.[cj]*")}
    assert len(data) == 4
    assert modules | commands | data | {"sparse_sts_index/py.typed"} <= set(wheel)
    assert not [name for name in wheel if "test" in name and "sample/test.csv" not in name]


def test_public_names_load_and_what_need_not_load_torch_does_not() -> None:
    light = (
        "import sys, sparse_sts_index as s, sparse_sts_index.cli.main\n"
        "heavy = {'torch', 'transformers', 'jnius', 'datasets'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert all(getattr(s, name) is not None for name in s.__all__)\n"
    )
    subprocess.run([sys.executable, "-c", light], check=True)
