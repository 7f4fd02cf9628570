"""Progress, texts and tables, as the commands print them."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click
from tqdm import tqdm

from sparse_sts_index._utils.text import CONTROLS
from sparse_sts_index.data.documents import Document, columns_of_fields, examine_corpus, is_read_once
from sparse_sts_index.data.fields import Field, FieldValue
from sparse_sts_index.data.reading import STDIN, FileOptions
from sparse_sts_index.data.records import some_names
from sparse_sts_index.errors import DataError
from sparse_sts_index.vectors.explanations import TermContribution
from sparse_sts_index.vectors.scripts import unknown_scripts
from sparse_sts_index.vectors.vocabulary import Vocabulary

if TYPE_CHECKING:
    from sparse_sts_index.engines.base import Busy
    from sparse_sts_index.index import SparseStsIndex
    from sparse_sts_index.search.results import Pair
    from sparse_sts_index.storage.manifest import Manifest

_CONTROL = re.compile(f"[{CONTROLS}]+")
#: Controls that JSON may hold as they are, and a terminal obeys.
_C1 = re.compile(r"[\x7f-\x9f]")


def examined(
    corpus: str, reading: FileOptions, fields: Sequence[Field] | Literal["all"] = (), *, needed: bool = True
) -> tuple[int | None, tuple[Field, ...]]:
    """Read a corpus for its errors, its size and types before any work is done on it, if it can be read twice."""
    if not is_read_once(corpus):
        return examine_corpus(corpus, fields, needed=needed, **reading)
    if fields == "all" or any(field.type is None for field in fields):
        name = "standard input" if corpus == STDIN else one_line(corpus)
        raise click.UsageError(f"{name} is read once: name fields with their types, such as --fields created:date")
    return None, tuple(fields)


def known_total(corpus: str, reading: FileOptions) -> int | None:
    """See :func:`examined`; of a corpus without fields."""
    return examined(corpus, reading)[0]


class FieldsOfIndex:
    """The fields to read for an index that is there, from the columns that the user or the columns' names say.

    Attributes
    ----------
    fields : tuple of Field
    """

    def __init__(self, opened: SparseStsIndex, named: Sequence[Field], corpus: str, reading: FileOptions) -> None:
        types = opened.manifest.fields
        for field in named:
            if field.name not in types or field.type not in (None, types[field.name]):
                kept = ", ".join(f"{name}:{type_}" for name, type_ in types.items()) or "none"
                raise DataError(f"{opened.path}: its fields are {kept}; others come with a new index")
        there = columns_of_fields(corpus, **reading) if types else {}
        columns = there | {field.name: field.column for field in named}
        self.fields = tuple(Field(name, type_, columns.get(name, "")) for name, type_ in types.items())
        read = {field.column for field in self.fields}
        self._unread = [column for column in dict.fromkeys(there.values()) if column not in read]
        self._missing = dict.fromkeys(types)

    def pass_through(self, documents: Iterable[Document]) -> Iterator[Document]:
        """Yield documents, and look at their fields."""
        for document in documents:
            for name in document.fields.keys() & self._missing.keys():
                del self._missing[name]
            yield document

    def warn(self) -> None:
        """Say on stderr which fields no document had, if a column of another name may be meant."""
        if self._missing and self._unread:
            some, other = some_names(self._missing), some_names(self._unread)
            option = f'--fields "{next(iter(self._missing))}={self._unread[0]}"'
            message = f"warning: no sentence has a value of {some}, and nothing was read of {other}; if that is it: "
            click.echo(one_line(message + option), err=True)


def shown_fields(fields: Mapping[str, FieldValue]) -> str:
    """Fields in one line."""
    return one_line("  ".join(f"{name}={_shown(value)}" for name, value in fields.items()))


def _shown(value: FieldValue) -> str:
    if isinstance(value, tuple):
        return ",".join(value)
    if isinstance(value, datetime):
        return value.isoformat().removesuffix("T00:00:00+00:00").replace("+00:00", "Z")
    return str(value).lower() if isinstance(value, bool) else f"{value:.12g}" if isinstance(value, float) else value


def show_wait(busy: Busy, seconds: float) -> None:
    """Say on stderr, above the bar if there is one, that a serving engine is waited for."""
    show_message(f"{busy}: again in {seconds:.1f} s")


def show_message(message: str) -> None:
    """Show a line on stderr, above the bar if there is one."""
    tqdm.write(one_line(message), file=sys.stderr)


class ScriptCheck:
    """Count the texts in scripts that a vocabulary has no words in, and say so on stderr."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._count, self._scripts = 0, Counter[str]()

    def pass_through(self, documents: Iterable[Document]) -> Iterator[Document]:
        """Yield documents, and count those in other scripts."""
        for document in documents:
            self.count(document.text)
            yield document

    def counted(self, texts: Iterable[str]) -> Iterator[str]:
        """Yield texts, and count those in other scripts."""
        for text in texts:
            self.count(text)
            yield text

    def count(self, text: str) -> None:
        """Count a text if it is in another script."""
        if found := unknown_scripts(self._vocabulary, text):
            self._count += 1
            self._scripts.update(found)

    def warn(self, what: str) -> None:
        """Say how many texts there were, if any; `what` names them, such as ``"queries"``."""
        if self._count:
            scripts = ", ".join(script for script, _ in self._scripts.most_common(3))
            click.echo(
                f"warning: {what} in {scripts} ({self._count:,}), of which the model's vocabulary has no words: "
                "their cosines mean little",
                err=True,
            )
        self._count = 0


def one_line(text: str) -> str:
    """Text that is safe to print within a line."""
    return _CONTROL.sub(" ", text)


def json_line(value: object) -> str:
    """Return JSON that is text to every reader, and no orders to a terminal; ASCII where stdout is not in UTF-8."""
    return _C1.sub(lambda match: f"\\u{ord(match[0]):04x}", json.dumps(value, ensure_ascii=not stdout_is_utf8()))


def stdout_is_utf8() -> bool:
    """Return whether any text can be written to standard output."""
    return sys.stdout.encoding.lower().replace("-", "") == "utf8"


def show_terms(explanation: tuple[TermContribution, ...], score: float, indent: str) -> None:
    """Print shared terms as a table; the contributions sum to the score."""
    if not explanation:
        click.echo(f"{indent}(no shared term)")
        return
    width = max(len(one_line(term.term)) for term in explanation)
    click.echo(f"{indent}{'term':<{width}}  {'query':>6}  {'doc':>6}  {'adds':>7}")
    for term in explanation:
        click.echo(
            f"{indent}{one_line(term.term):<{width}}  {term.query_weight:6.3f}  {term.document_weight:6.3f}"
            f"  {term.contribution:7.4f}"
        )
    click.echo(f"{indent}{'sum':<{width}}  {'':>6}  {'':>6}  {score:7.4f}")


def show_pair(pair: Pair, format: str) -> None:
    """Print two sentences and their cosine, as a line for people or as JSON."""
    first, second = pair.first, pair.second
    if format == "jsonl":
        line = {"first": first.id, "second": second.id, "cosine": pair.cosine}
        click.echo(json_line(line | {"first_text": first.text, "second_text": second.text}))
    else:
        texts = f"{one_line(first.text)}  |  {one_line(second.text)}"
        click.echo(f"{pair.cosine:.4f}  {one_line(first.id)}  {one_line(second.id)}  {texts}")


def show_built(output: Path, manifest: Manifest, more: str = "") -> None:
    """Print what an index that was just built holds."""
    click.echo(
        f"{output}: {manifest.documents:,} sentences in {manifest.build_seconds:.1f} s "
        f"({manifest.documents / manifest.build_seconds:.0f}/s), "
        f"{manifest.postings / manifest.documents:.1f} terms each, {manifest.empty_documents:,} without a term{more}"
    )
