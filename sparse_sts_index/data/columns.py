"""Column names: what a reader needs from a file, under the names that a format or the user gives them."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sparse_sts_index._utils.text import check_unicode, printable
from sparse_sts_index.data.records import Record, kind, some_names
from sparse_sts_index.errors import DataError

#: A role given this name takes the number of the line or row.
ROW_NUMBER = "#"
#: Column names of public data sets, in lower case. Messages suggest them; they are never taken unasked.
_SUGGESTED = {
    "id": ("qid", "pid", "docno", "doc_id", "document_id", "passage_id", "query-id", "corpus-id", "uuid", "key"),
    "text": ("question", "query", "passage", "body", "content", "sentence1", "title", "description", "claim"),
    "sentence1": ("sentence_a", "sentence_1", "text1", "text_a", "s1", "source1", "question1", "premise"),
    "sentence2": ("sentence_b", "sentence_2", "text2", "text_b", "s2", "source2", "question2", "hypothesis"),
    "score": ("similarity", "similarity_score", "relatedness_score", "relatedness", "gold", "sim", "is_duplicate"),
}
#: What columns are called where nobody says otherwise.
DEFAULT_NAMES = {
    "id": ("_id", "id", "docid"),
    "text": ("text", "contents", "sentence"),
    "title": ("title",),
    "sentence1": ("sentence1",),
    "sentence2": ("sentence2",),
    "score": ("score", "label"),
}
#: The STSbenchmark as its authors publish it: seven columns or nine, and no header.
_STS_BENCHMARK = {"sentence1": "6", "sentence2": "7", "score": "5"}


@dataclass(frozen=True)
class Columns:
    """The columns that a reader takes from a file.

    Attributes
    ----------
    roles : mapping of str to tuple of str
        What the reader needs, and the names that its column may have, the preferred name first.
    required : tuple of str
        The roles that no row can be without.
    positional : tuple of str
        Names of the columns of a csv or tsv file without a header that has just these columns, a number in the last.
        Empty: such a file needs names.
    chosen : mapping of str to str
        The names that the user gave, by role.
    more : tuple of str, or None
        Further columns to read, which a file with a header has to have; None: all that there are.
    """

    roles: Mapping[str, tuple[str, ...]]
    required: tuple[str, ...]
    positional: tuple[str, ...] = ()
    chosen: Mapping[str, str] = field(default_factory=dict)
    more: tuple[str, ...] | None = ()

    def choose(self, chosen: Mapping[str, str | int] | None) -> Columns:
        """Return these columns with other names for some roles.

        Parameters
        ----------
        chosen : mapping of str to str or int, optional
            Role to the name of its column; to its number, from 1, in a csv or tsv file without a header; or, for
            ``id``, to ``"#"``, the number of the line or row.

        Raises
        ------
        DataError
            Unknown role, no name, a number below 1, or numbers beside names.
        ValueError
            `chosen` is no mapping of this kind.
        """
        if not chosen:
            return self
        if not isinstance(chosen, Mapping) or not all(type(name) in (str, int) for name in chosen.values()):
            raise ValueError("columns must map id, text, ... to the names or numbers of columns")
        names = {role: str(name) for role, name in chosen.items()}
        for role, name in names.items():
            if role not in self.roles:
                raise DataError(f"unknown column {printable(role, 40)!r}; choose from {', '.join(self.roles)}")
            if not name or (name == ROW_NUMBER and role != "id"):
                raise DataError(f"column {role}: {name!r} is not the name of a column")
            if name.isdecimal() and not int(name):
                raise DataError(f"column {role}: columns are numbered from 1, not from {name}")
        numbers = {name.isdecimal() for name in names.values() if name != ROW_NUMBER}
        if len(numbers) > 1:
            raise DataError("columns: give names (of a file with a header) or numbers (of one without), not both")
        roles = {**self.roles, **{role: (name,) for role, name in names.items()}}
        if "text" in names and "title" not in names:  # somebody who names the text means that text
            roles.pop("title", None)
        return dataclasses.replace(self, roles=roles, chosen=names)

    @property
    def numbers(self) -> tuple[str, ...]:
        """Numbers of columns, from 1, that the user gave: a csv or tsv file then has no header."""
        return tuple(name for name in self.chosen.values() if name.isdecimal())

    @property
    def by_number(self) -> bool:
        """The user gave numbers."""
        return bool(self.numbers)

    @property
    def known(self) -> frozenset[str]:
        """All names that a column of interest may have."""
        return frozenset((*self._own, *(self.more or ())))

    @property
    def _own(self) -> frozenset[str]:
        return frozenset(name for names in self.roles.values() for name in names if name != ROW_NUMBER)

    def name_of(self, role: str, found: Collection[str]) -> str | None:
        """Return the name that a role's column has among those found, or None."""
        for name in self.roles.get(role, ()):
            if name in found:
                return name
        return None

    def reads(self, name: str) -> bool:
        """Return whether a column is of interest."""
        return self.more is None or name in self.known

    def is_more(self, name: str) -> bool:
        """Return whether a column is a further one."""
        return name not in self._own if self.more is None else name in self.more

    def check_more(self, found: Collection[str], where: str) -> None:
        """Refuse a file that lacks a further column.

        Raises
        ------
        DataError
            It does.
        """
        for name in self.more or ():
            if name not in found:
                raise DataError(f"{where}: missing column {printable(name, 40)} (found: {some_names(found)})")

    def check(self, found: Collection[str], where: str, hint: str = "") -> None:
        """Refuse a file or row that lacks a column that is required, or that the user named.

        Parameters
        ----------
        found : collection of str
            Names of its columns.
        where : str
            The place, for the message.
        hint : str
            What else to say.

        Raises
        ------
        DataError
            It does. The message names the columns found, and the option that says which to take.
        """
        wanted = dict.fromkeys((*self.required, *self.chosen))
        lacking = [role for role in wanted if not (self._is_counted(role) or self.name_of(role, found))]
        if lacking:
            names = " and ".join(" or ".join(self.roles[role]) for role in lacking)
            raise DataError(
                f"{where}: missing column {names} (found: {some_names(found)})"
                + (hint or f"; say which to take: {self._suggestion(lacking, list(found))}")
            )

    def check_no_header(self, cells: Sequence[str], where: str) -> None:
        """Refuse a first row of names where columns are given by number.

        Raises
        ------
        DataError
            All cells of interest are names of columns.
        """
        taken = {role: cells[int(name) - 1] for role, name in self.chosen.items() if name.isdecimal()}
        usual = {role: {role, *DEFAULT_NAMES.get(role, ()), *_SUGGESTED.get(role, ())} for role in taken}
        if all(name.lower() in usual[role] for role, name in taken.items()):
            names = {role: printable(name, 40) for role, name in {**self.chosen, **taken}.items()}
            raise DataError(f"{where}: the first row is a header: name the columns, {_option(names)}")

    def _is_counted(self, role: str) -> bool:
        return self.roles[role] == (ROW_NUMBER,)

    def _suggestion(self, lacking: Sequence[str], found: Sequence[str]) -> str:
        """Return the option that names the columns, as far as their names tell, beside those that the user gave."""
        by_name = {name.strip().lower(): name.strip() for name in found}
        chosen = {role: name for role, name in self.chosen.items() if role not in lacking}
        for role in lacking:
            name = next((by_name[name] for name in _SUGGESTED.get(role, ()) if name in by_name), None)
            chosen[role] = printable(name, 40) if name else ROW_NUMBER if role == "id" else "COLUMN"
        numbered = " (# numbers the rows)" if chosen.get("id") == ROW_NUMBER else ""
        return _option(chosen) + numbered

    def without_header(self, cells: Sequence[str], where: str, hint: str) -> DataError:
        """Return the error of a csv or tsv file whose first row holds none of the known names."""
        found = f"{where}: no header with any of {', '.join(sorted(self.known))} (found: {some_names(cells)})"
        if hint:
            return DataError(found + hint)
        if "score" in self.required and len(cells) >= 7 and _is_number(cells[4]):
            options = f"{_option(_STS_BENCHMARK)} --score-range 0 5"
            return DataError(f"{found}; if these are the columns of the STSbenchmark, add {options}")
        suggestion = self._suggestion(self.required, cells)
        if "=COLUMN" in suggestion and len(cells) >= len(self.required):
            numbers = {role: str(number) for number, role in enumerate(self.required, 1)}
            suggestion += f", or number those of a file without a header, {_option(numbers)}"
        elif "=COLUMN" in suggestion and self.required == ("id", "text"):
            suggestion += f", or number that of a file without a header, {_option({'id': ROW_NUMBER, 'text': '1'})}"
        return DataError(f"{found}; name the columns, {suggestion}")

    def are_in(self, row: Sequence[str]) -> bool:
        """Return whether `row` can be the first row of a file without a header, see `positional`."""
        return bool(self.positional) and len(row) == len(self.positional) and _is_number(row[-1])

    def value(self, record: Record, role: str) -> Any:
        """Return a row's value of a role.

        Raises
        ------
        DataError
            The row has no such column.
        """
        if self._is_counted(role):
            return record.number
        for name in self.roles[role]:
            if name in record.values:
                return record.values[name]
        self.check(record.values, record.where)
        raise AssertionError(f"{role} is not required")

    def text(self, record: Record, role: str) -> str:
        """Return a row's text of a role; bytes are taken as UTF-8.

        Raises
        ------
        DataError
            The row has no such column, or it holds something else, or invalid Unicode.
        """
        value = self.value(record, role)
        if isinstance(value, str) and value.isascii():
            return value
        name = self.name_of(role, record.values) or role
        if isinstance(value, bytes | bytearray):
            try:
                return value.decode()
            except UnicodeDecodeError as error:
                raise DataError(f"{record.where}: {name} is not UTF-8 (byte {error.start + 1})") from error
        if not isinstance(value, str):
            raise DataError(f"{record.where}: {name} must be a string, found {kind(value)}")
        check_unicode(value, name, record.where)
        return value


def _option(chosen: Mapping[str, str]) -> str:
    """Return an option as a shell takes it."""
    return f"--columns {shlex.quote(','.join(f'{role}={name}' for role, name in chosen.items()))}"


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell  # 1_0 is ten in Python only
