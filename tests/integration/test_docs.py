"""The documentation is true: links lead somewhere, names are there, what can be run gives what the pages say."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import itertools
import json
import math
import os
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "sparse_sts_index"
DOCS = ROOT / "docs"
PAGES = [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")), *sorted(DOCS.rglob("*.md"))]

_FENCE = re.compile(r"^(?P<run><!-- run -->\n)?```(?P<language>\w*)[^\n]*\n(?P<code>.*?)^```$", re.S | re.M)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_EXTERNAL = re.compile(r"\w+:")
_NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")
_TIMES = re.compile(r"in [\d.]+ s(?: \([\d,.]+/s\))?")

#: Runs commands and blocks of Python one after the other, in one process; prints what each of them prints, as JSON.
_DRIVER = """
import contextlib, io, json, shlex, subprocess, sys
from click.testing import CliRunner
from sparse_sts_index.cli.main import main

printed = []
for kind, code in json.load(sys.stdin):
    if kind == "python":
        with contextlib.redirect_stdout(io.StringIO()) as output:
            exec(compile(code, "block", "exec"), {})
        printed.append(output.getvalue())
    elif code.startswith("sparse-sts "):
        result = CliRunner(catch_exceptions=False).invoke(main, shlex.split(code)[1:])
        assert result.exit_code == 0, result.output
        printed.append(result.stdout)
    else:
        shell = subprocess.run(["sh", "-c", code], check=True, capture_output=True, text=True)
        printed.append(shell.stdout)
print(json.dumps(printed))
"""


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def slugs(page: Path) -> set[str]:
    """The anchors of a page's headings, as forges make them."""
    found: list[str] = []
    for heading in re.findall(r"^#+ (.+)$", _FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE):
        text = unicodedata.normalize("NFC", re.sub(r"\[([^\]]*)\]\([^)]*\)|`", r"\1", heading)).lower()
        slug = re.sub(r"[^\w\- ]", "", text).strip().replace(" ", "-")
        found.append(slug if slug not in found else f"{slug}-{found.count(slug)}")
    return set(found)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    dead = []
    for link in _LINK.findall(_FENCE.sub("", page.read_text(encoding="utf-8"))):
        if _EXTERNAL.match(link):
            continue
        target, _, anchor = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        there = path.exists() and path.is_relative_to(ROOT)
        if not there or (anchor and path.suffix == ".md" and anchor not in slugs(path)):
            dead.append(link)
    assert not dead


def test_every_page_is_in_the_navigation() -> None:
    navigation = set(re.findall(r"[\w./-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8")))
    pages = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
    assert pages | {"readme.md", "contributing.md", "changelog.md"} == navigation


def test_every_public_name_is_in_the_reference() -> None:
    pages = (DOCS / "reference" / "api").glob("*.md")
    named = [path for page in pages for path in re.findall(r"^::: (\S+)$", page.read_text("utf-8"), re.MULTILINE)]
    assert len(named) == len(set(named))
    rooms = ("data", "engines", "search", "server", "spark", "storage")
    packages = ["sparse_sts_index", *(f"sparse_sts_index.{room}" for room in rooms)]
    assert set(named) == {
        f"{package}.{name}" for package in packages for name in importlib.import_module(package).__all__
    }
    for path in named:
        module, _, attribute = path.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), path


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_that_pages_name_exist(page: Path) -> None:
    named = re.findall(r"`((?:\w+/)+[\w.]+\.(?:py|pyi|java))`", _FENCE.sub("", page.read_text(encoding="utf-8")))
    if page.name != "CHANGELOG.md":
        assert [path for path in named if not any((folder / path).is_file() for folder in (ROOT, PACKAGE, DOCS))] == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_python_compiles(page: Path) -> None:
    for fence in _FENCE.finditer(page.read_text(encoding="utf-8")):
        if fence["language"] == "python":
            for node in ast.walk(ast.parse(fence["code"])):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sparse_sts_index"):
                    module = importlib.import_module(str(node.module))
                    assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


def test_what_is_said_to_run_prints_what_the_pages_say(tmp_path: Path) -> None:
    pages = (
        "tutorial.md",
        "reference/format.md",
        "how-to/python.md",
        "how-to/filter.md",
        "how-to/duplicates.md",
    )  # in order: the second reads what the first makes
    steps = [step for page in pages for step in runnable((DOCS / page).read_text(encoding="utf-8"))]
    assert len(steps) > 15
    for (_, code, expected), printed in zip(steps, run(steps, tmp_path), strict=True):
        if expected is not None:
            assert alike(expected, printed), f"{code}\n--- the page\n{expected}\n--- printed\n{printed}"


def test_the_site_builds(tmp_path: Path) -> None:
    for tool in ("mkdocs", "material", "mkdocstrings", "latex2mathml"):
        if importlib.util.find_spec(tool) is None:
            pytest.skip(f"needs {tool}: make docs installs it")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    built = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stdout + built.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 20
    for page in pages:  # nothing is loaded from elsewhere
        loaded = re.findall(r"<(?:script|img|iframe|link)\b[^>]*?(?:src|href)=\"https?:[^\"]+", page.read_text("utf-8"))
        assert not loaded, f"{page.name}: {loaded}"


#: Kind, code, and output if the page has it.
Step = tuple[str, str, str | None]


def runnable(text: str) -> list[Step]:
    """All that a page says can be run, in order."""
    steps: list[Step] = []
    for fence in _FENCE.finditer(text):
        if fence["run"] and fence["language"] == "python":
            output = re.match(r"\n\n```text\n(.*?)^```$", text[fence.end() :], re.DOTALL | re.MULTILINE)
            steps.append(("python", fence["code"], output and output[1]))
        elif fence["run"]:
            for command in re.split(r"^\$ ", fence["code"], flags=re.MULTILINE)[1:]:
                lines = command.splitlines(keepends=True)
                more = list(itertools.takewhile(lambda line: line.startswith("> "), lines[1:]))
                code = lines[0] + "".join(line.removeprefix("> ") for line in more)
                steps.append(("shell", code, "".join(lines[1 + len(more) :])))
    return steps


def run(steps: list[Step], folder: Path) -> list[str]:
    """What each step prints."""
    given = json.dumps([step[:2] for step in steps])
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    process = subprocess.run(
        [sys.executable, "-c", _DRIVER], input=given, cwd=folder, env=environment, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    printed: list[str] = json.loads(process.stdout.splitlines()[-1])
    return printed


def alike(expected: str, printed: str) -> bool:
    """The same words, and numbers that differ by the last digits at most; times are nobody's business."""
    one, other = (_TIMES.sub("in TIME", text).strip() for text in (expected, printed))
    numbers = [[float(number.replace(",", "")) for number in _NUMBER.findall(text)] for text in (one, other)]
    words = [re.sub(r"\s+", " ", _NUMBER.sub("#", text)) for text in (one, other)]
    same = len(numbers[0]) == len(numbers[1]) and all(map(lambda a, b: math.isclose(a, b, abs_tol=2e-3), *numbers))
    return same and words[0] == words[1]
