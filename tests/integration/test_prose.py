"""New lines are plain English; see CONTRIBUTING.md, Style.

``known_prose.txt`` lists digests of the lines that were there before these rules. It only shrinks: run this file as a
program to drop what is gone.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KNOWN = Path(__file__).with_name("known_prose.txt")
SOURCES = ("sparse_sts_index", "cli")
LONGEST_TEST_NAME = 60
#: Prepositions, pronouns and question words that no summary begins with.
STARTS = frozenset(
    [
        "as",
        "at",
        "by",
        "for",
        "from",
        "how",
        "in",
        "it",
        "its",
        "of",
        "on",
        "out",
        "that",
        "these",
        "they",
        "this",
        "those",
        "to",
        "what",
        "when",
        "where",
        "whether",
        "which",
        "who",
        "whose",
        "why",
        "with",
        "without",
    ]
)
#: Phrases for which the field has other words.
PHRASES = re.compile(
    r"\b(anew|is none|are none|of ours|of theirs|so many|so much|goes? on|hangs? together|(is|are) to be had"
    r"|(bytes|documents|hits|neighbours|requests|rows|seconds|sentences|terms) an? "
    r"(document|posting|query|request|second|sentence|text|token))\b",
)


def digest(text: str) -> str:
    return hashlib.sha256(" ".join(text.split()).encode()).hexdigest()[:12]


def python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def summaries() -> Iterator[tuple[str, str]]:
    """Yield the place and the first line of each docstring, and of each help text."""
    for path in python_files(*SOURCES):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            place = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}"
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                docstring = ast.get_docstring(node)
                if docstring:
                    yield place, docstring.splitlines()[0]
            elif isinstance(node, ast.keyword) and node.arg == "help" and isinstance(node.value, ast.Constant):
                yield f"{path.relative_to(ROOT)}:{node.value.lineno}", str(node.value.value)


def beginnings() -> Iterator[tuple[str, str]]:
    for place, summary in summaries():
        if re.sub(r"\W.*", "", summary.lower(), flags=re.DOTALL) in STARTS:
            yield place, summary


def moods() -> Iterator[tuple[str, str]]:
    command = [sys.executable, "-m", "ruff", "check", "--select", "D401", "--output-format", "json", *SOURCES]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    for found in json.loads(run.stdout):
        path, row = Path(found["filename"]), found["location"]["row"]
        yield f"{path.relative_to(ROOT)}:{row}", path.read_text(encoding="utf-8").splitlines()[row - 1]


def phrases() -> Iterator[tuple[str, str]]:
    pages = [ROOT / name for name in ("README.md", "CONTRIBUTING.md")] + sorted((ROOT / "docs").rglob("*.md"))
    for path in [*python_files(*SOURCES), *pages]:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if PHRASES.search(line):
                yield f"{path.relative_to(ROOT)}:{number}", line


def long_names() -> Iterator[tuple[str, str]]:
    for path in python_files("tests"):
        for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE):
            if len(name) > LONGEST_TEST_NAME:
                yield str(path.relative_to(ROOT)), name


RULES = {
    "a summary begins with a preposition, a pronoun or a question word": beginnings,
    "a docstring does not begin with a verb in the imperative": moods,
    "the field has another word for this phrase": phrases,
    "a test's name has more than 60 characters": long_names,
}


@pytest.mark.parametrize("rule", RULES)
def test_new_prose_is_plain(rule: str) -> None:
    known = set(KNOWN.read_text(encoding="utf-8").split())
    new = [f"{place}: {text.strip()}" for place, text in RULES[rule]() if digest(text) not in known]
    assert not new, rule


if __name__ == "__main__":
    before = set(KNOWN.read_text(encoding="utf-8").split())
    still = {digest(text) for rule in RULES.values() for _, text in rule()}
    KNOWN.write_text("\n".join(sorted(before & still)) + "\n", encoding="utf-8")
