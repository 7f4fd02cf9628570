"""What a wheel and an sdist of this project contain, and that the locks say what they are for."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOCKS = ("build", "test", "light", "torch-cpu", "torch-pypi", "docs", "fuzz", "mutation", "release", "serve")
LINUX = {"sys_platform": "linux", "platform_system": "Linux"}
PYTHONS = ("3.11", "3.12", "3.13", "3.14")


def hashed(lock: str) -> dict[Requirement, list[str]]:
    """The requirements of a lock, with their hashes."""
    text = (ROOT / "requirements" / f"{lock}.lock").read_text(encoding="utf-8")
    lines = re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE)).splitlines()
    parsed = [re.split(r"\s+--hash=", line.strip()) for line in lines]
    return {Requirement(requirement): hashes for requirement, *hashes in parsed}


def applies(requirement: Requirement, python: str) -> bool:
    """Return whether pip installs a requirement on Linux with that Python."""
    environment = {**LINUX, "python_version": python, "python_full_version": f"{python}.1"}
    return requirement.marker is None or requirement.marker.evaluate(environment)


def pins(lock: str, python: str = "3.11") -> dict[str, Version]:
    """The versions of a lock that pip installs on Linux with that Python."""
    return {
        canonicalize_name(requirement.name): Version(str(requirement.specifier).removeprefix("=="))
        for requirement in hashed(lock)
        if applies(requirement, python)
    }


def needed(requirements: list[str], extras: tuple[str, ...] = ()) -> list[Requirement]:
    """The requirements of the project, those of the extras that it names itself included."""
    found = []
    for requirement in map(Requirement, requirements):
        if canonicalize_name(requirement.name) != PROJECT["name"]:
            found.append(requirement)
        for extra in requirement.extras if canonicalize_name(requirement.name) == PROJECT["name"] else ():
            found += needed(PROJECT["optional-dependencies"][extra])
    for extra in extras:
        found += needed(PROJECT["optional-dependencies"][extra])
    return found


def constraints() -> list[Requirement]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(pin) for line in lines if (pin := line.partition("#")[0].strip())]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project without what only this checkout has: a build leaves things beside its sources."""
    folder = tmp_path_factory.mktemp("source") / "source"
    folder.mkdir()
    for path in ROOT.iterdir():
        if path.suffix in (".md", ".toml", ".txt", ".in", ".yml") or path.name in ("LICENSE", "Makefile"):
            shutil.copy(path, folder)
    for name in ("sparse_sts_index", "cli", "tests", "docs", "benchmarks", "requirements", "release"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    return folder


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w"]
    subprocess.run([*command, str(folder), str(source)], check=True, capture_output=True)
    return zipfile.ZipFile(next(folder.glob("*.whl"))).namelist()


@pytest.fixture(scope="module")
def sdist(source: Path, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    folder = tmp_path_factory.mktemp("sdist")
    code = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, str(folder)], cwd=source, check=True, capture_output=True)
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        return {member.name.partition("/")[2] for member in archive if member.isfile()}


@pytest.mark.slow
def test_the_wheel_has_the_package_and_nothing_else(wheel: list[str]) -> None:
    package = [
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "sparse_sts_index").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]
    commands = [f"sparse_sts_index/cli/{path.name}" for path in (ROOT / "cli").glob("*.py")]
    info = f"sparse_sts_index-{PROJECT['version']}.dist-info"
    names = ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE", "top_level.txt")
    assert {"sparse_sts_index/py.typed", "sparse_sts_index/evaluation/report/report.html.jinja"} < set(package)
    assert len([name for name in package if name.startswith("sparse_sts_index/server/page/")]) == 3
    assert len([name for name in package if re.search(r"/sample/.*\.(csv|jsonl)$", name)]) == 4
    assert sorted(wheel) == sorted([*package, *commands, *(f"{info}/{name}" for name in names)])


@pytest.mark.slow
def test_the_sdist_has_what_builds_and_what_tests(sdist: set[str], source: Path) -> None:
    assert {"pyproject.toml", "Makefile", "constraints.txt", "LICENSE", "PKG-INFO", "requirements/test.lock"} <= sdist
    wanted = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
    beside = {name for name in wanted if name.startswith(("build/", "sparse_sts_index.egg-info/"))}
    assert wanted - beside <= sdist
    assert not [name for name in sdist if name.endswith(".pyc")]


def test_public_names_load_and_what_need_not_load_torch_does_not() -> None:
    light = (
        "import sys, sparse_sts_index as s, sparse_sts_index.cli.main\n"
        "heavy = {'torch', 'transformers', 'jnius', 'datasets', 'numba', 'pyarrow', 'lark'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert all(getattr(s, name) is not None for name in s.__all__)\n"
    )
    subprocess.run([sys.executable, "-c", light], check=True)


@pytest.mark.parametrize("lock", LOCKS)
def test_all_in_a_lock_is_pinned_and_hashed(lock: str) -> None:
    requirements = hashed(lock)
    assert requirements
    for requirement, hashes in requirements.items():
        assert re.fullmatch(r"==[^*,]+", str(requirement.specifier)), requirement
        assert hashes, requirement
        assert len(hashes) == len(set(hashes)), requirement
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", digest) for digest in hashes), requirement


@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_has_all_that_the_project_asks_for(python: str) -> None:
    locked = pins("test", python) | pins("torch-pypi", python)
    requirements = needed(PROJECT["dependencies"], tuple(PROJECT["optional-dependencies"]))
    assert len(requirements) > 40
    for requirement in requirements:
        assert locked[canonicalize_name(requirement.name)] in requirement.specifier, requirement


@pytest.mark.parametrize("python", PYTHONS)
def test_the_locks_are_in_step_with_constraints(python: str) -> None:
    locked = [pins(lock, python) for lock in LOCKS]
    for constraint in constraints():
        if applies(constraint, python):
            found = [pinned[name] for pinned in locked if (name := canonicalize_name(constraint.name)) in pinned]
            assert found, constraint
            assert all(version in constraint.specifier for version in found), constraint
    chosen = {canonicalize_name(constraint.name) for constraint in constraints()}
    direct = needed(PROJECT["dependencies"], tuple(PROJECT["optional-dependencies"]))
    assert {canonicalize_name(requirement.name) for requirement in direct} <= chosen


def test_torch_is_locked_twice_and_only_one_of_them_has_cuda() -> None:
    """The CPU build is named with its local version: where there is none, pip takes no other for it, and says so."""
    test, cpu, pypi = pins("test"), pins("torch-cpu"), pins("torch-pypi")
    assert str(cpu["torch"]) == f"{pypi['torch']}+cpu"
    assert any(name.startswith("nvidia-") for name in pypi)
    assert not [name for name in test if name.startswith(("nvidia-", "cuda-", "torch", "triton"))]
    assert {name: pypi[name] for name in test.keys() & pypi} == {name: test[name] for name in test.keys() & pypi}


def test_these_tests_run_with_what_is_locked() -> None:
    if not (Path(sys.prefix) / "installed").exists():
        pytest.skip("not in the environment of make test")
    different = {}
    for requirement in [*hashed("test"), Requirement(f"torch=={pins('torch-pypi')['torch']}")]:
        if requirement.marker is None or requirement.marker.evaluate():
            installed = Version(metadata.version(requirement.name)).public  # torch's 2.13.0+cpu is 2.13.0
            if installed not in requirement.specifier:
                different[str(requirement)] = installed
    assert not different


@pytest.mark.parametrize(
    ("works", "chosen"),
    [
        ({"python3", "python3.13"}, "python3 -m venv build/none"),
        ({"python3.12", "python3.11"}, "python3.12 -m venv build/none"),
        (set(), "no Python 3.11 to 3.14 here: set PYTHON="),
    ],
)
def test_make_takes_a_python_that_the_locks_cover(tmp_path: Path, works: set[str], chosen: str) -> None:
    """Skip interpreters that are too old, and pyenv shims without an interpreter."""
    for name in ("python3", *(f"python{version}" for version in PYTHONS)):
        (tmp_path / name).write_text(f"#!/bin/sh\nexit {int(name not in works)}\n")
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = ["make", "--dry-run", "VENV=build/none", "demo"]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert chosen in (run.stdout + run.stderr).splitlines()[0]


def test_all_that_is_locked_has_its_licence_written_down() -> None:
    page = (ROOT / "docs" / "third-party.md").read_text(encoding="utf-8")
    listed = {canonicalize_name(name) for name in re.findall(r"^\| ([\w.-]+) \| ", page, re.MULTILINE)} - {"package"}
    assert listed == {*pins("test"), "torch"}
