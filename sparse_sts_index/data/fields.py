"""Fields: what a document has beside its text, each of one type."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final, Literal, Protocol, get_args
from uuid import UUID

from sparse_sts_index._utils.text import check_unicode, printable
from sparse_sts_index.data.records import kind
from sparse_sts_index.errors import DataError

FieldType = Literal["keyword", "keywords", "number", "date", "boolean"]
#: A value of each type: str; tuple of str, none twice; float; datetime in UTC; bool.
FieldValue = str | tuple[str, ...] | float | datetime | bool
#: What may become one; see :func:`field_value`.
FieldInput = FieldValue | list[str] | date | Decimal | UUID | bytes | None
FIELD_TYPES: Final[tuple[FieldType, ...]] = get_args(FieldType)
#: Of documents without fields.
NO_FIELDS: Final[Mapping[str, FieldType]] = MappingProxyType({})
#: Names that a document's own parts have, and what a filter may begin with.
RESERVED: Final = frozenset({"not", "_id", "id", "text", "title", "contents", "raw", "row", "cosine", "score"})
_NAME = re.compile(r"[^\W\d][\w.-]*")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_PLAIN_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?")  # no code with zeros before it, no +49...
_DATE = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d(:?\d\d)?)?)?")
_MOST_FIELDS = 100
_MOST_NAME = 100
_MOST_BYTES = 32_766  # of a keyword: Lucene's longest indexed term, IndexWriter.MAX_TERM_LENGTH
_MOST_KEYWORDS = 1_000
_MOST_DIGITS = 15  # of text that is taken for a number: longer ones are codes
_EXACT = 2**53  # whole numbers up to here are exact in float64
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class HasFields(Protocol):
    """A document, which :mod:`.data.documents` defines in terms of this module."""

    @property
    def id(self) -> str:
        """Return its id."""
        ...

    @property
    def where(self) -> str:
        """Return where it was read."""
        ...

    @property
    def fields(self) -> Mapping[str, FieldInput]:
        """Return its fields by name."""
        ...


@dataclass(frozen=True, slots=True)
class Field:
    """A field to be read.

    Attributes
    ----------
    name : str
        A letter or underscore, then letters, digits, dots, dashes and underscores.
    type : {"keyword", "keywords", "number", "date", "boolean"}, optional
        Default: what all values of the collection can be.
    column : str
        The column that it is in. Default: the one of its name.

    Raises
    ------
    DataError
        The name is not of this form, or one that a document's own parts have, or no such type.
    """

    name: str
    type: FieldType | None = None
    column: str = ""

    def __post_init__(self) -> None:
        check_field_name(self.name)
        if self.type is not None and self.type not in FIELD_TYPES:
            raise DataError(f"field {self.name}: {self.type!r:.40} is no type; choose from {', '.join(FIELD_TYPES)}")
        object.__setattr__(self, "column", self.column or self.name)

    @classmethod
    def of_column(cls, column: str) -> Field:
        """Return a field for a column, named after it as far as a field can be."""
        name = re.sub(r"[^\w.-]+", "_", column).strip("_.-")[:_MOST_NAME]
        if not _NAME.fullmatch(name) or name.lower() in RESERVED:
            name = f"field_{name}"
        return cls(name, column=column)


def check_field_name(name: str) -> None:
    """Refuse a name that no field can have; see :class:`Field`."""
    if not isinstance(name, str):
        raise ValueError(f"a field's name must be a string, not {type(name).__name__}")
    if not _NAME.fullmatch(name) or len(name) > _MOST_NAME:
        raise DataError(
            f"{printable(name, 40)!r} cannot be a field's name, which has letters, digits, '.', '-' and '_' and begins "
            "with a letter; take another, as in created=Created At"
        )
    if name.lower() in RESERVED:
        raise DataError(
            f"a field cannot be called {name}, as a document's own parts are, or a word of filters; take another: "
            f"doc_{name}={name}"
        )


def parse_fields(text: str) -> tuple[Field, ...]:
    """Read fields as an option has them: ``status,product=Product Name,price:number``.

    Raises
    ------
    DataError
        A part that is not of this form, or a name twice.
    """
    fields = []
    for part in text.split(","):
        name, _, column = part.strip().partition("=")
        left, _, last = (column or name).rpartition(":")
        given = last.strip() if left else None
        whole = left if left else column or name
        if given is not None and given not in FIELD_TYPES and column:
            given, whole = None, column  # a colon in a column's name
        name, column = (name, whole) if column else (whole, "")
        fields.append(Field(name.strip(), given, column.strip()))  # type: ignore[arg-type]
    return check_fields(fields)


def check_fields(fields: Iterable[Field]) -> tuple[Field, ...]:
    """Refuse fields of one name, and too many.

    Raises
    ------
    DataError
        Two fields have one name (by letters without their case), or there are more than 100.
    """
    checked, seen = tuple(fields), set()
    for field in checked:
        if field.name.lower() in seen:
            raise DataError(f"field {field.name} is named twice")
        seen.add(field.name.lower())
    if len(checked) > _MOST_FIELDS:
        raise DataError(f"{len(checked)} fields; at most {_MOST_FIELDS} can be kept")
    return checked


def field_value(value: Any, type_: FieldType, name: str, where: str) -> FieldValue | None:
    """Return a value as a field of a type holds it, or None where it is empty.

    Parameters
    ----------
    value : object
        None, nan, and text that is empty or white space are no value. Numbers, dates and booleans may be text: a number
        as ``-1.5e3``, a date in ISO 8601 (without a time it is midnight, without an offset UTC), ``true`` or ``false``.
        A list of keywords may be JSON in text; other text is a list of one. A keyword may be a number, a date or a
        boolean, as JSON writes it.
    type_ : {"keyword", "keywords", "number", "date", "boolean"}
    name, where : str
        The field and the place, for the message.

    Raises
    ------
    DataError
        It cannot be of this type: also a whole number beyond 2**53, which float64 does not hold, a keyword of more
        than 32,766 bytes, and a list of more than 1,000.
    """
    if isinstance(value, bytes | bytearray):
        try:
            value = value.decode()
        except UnicodeDecodeError as error:
            raise DataError(f"{where}: {name} is not UTF-8 (byte {error.start + 1})") from error
    if _is_empty(value):
        return None
    found = _CONVERSIONS[type_](value, name, where)
    if found is None:
        shown = f"{kind(value)} {printable(str(value), 40)!r}" if isinstance(value, str) else kind(value)
        raise DataError(f"{where}: {name} must be {_ARTICLES[type_]}, found {shown}")
    return None if found == () else found


def _is_empty(value: Any) -> bool:
    if isinstance(value, str):
        return not value or value.isspace()
    return value is None or (isinstance(value, float) and math.isnan(value))


def microseconds(value: datetime) -> int:
    """Return the microseconds since 1970 in UTC."""
    return (value - _EPOCH) // _MICROSECOND


_ARTICLES: Final[dict[FieldType, str]] = {
    "keyword": "a keyword",
    "keywords": "a list of keywords",
    "number": "a number",
    "date": "a date such as 2026-01-31 (ISO 8601)",
    "boolean": "true or false",
}


def _keyword(value: Any, name: str, where: str) -> str | None:
    if isinstance(value, bool):
        value = str(value).lower()
    elif isinstance(value, float) and math.isfinite(value):
        value = str(int(value)) if value.is_integer() else repr(value)
    elif isinstance(value, int | UUID):
        value = str(value)
    elif isinstance(value, Decimal) and value.is_finite():
        value = f"{value:f}"
    elif isinstance(value, date):
        value = value.isoformat()
    if not isinstance(value, str):
        return None
    check_unicode(value, name, where)
    if len(value) > _MOST_BYTES // 4 and len(value.encode()) > _MOST_BYTES:
        raise DataError(f"{where}: {name} is longer than {_MOST_BYTES:,} bytes, the most that a keyword may have")
    return str(value)


def _keywords(value: Any, name: str, where: str) -> tuple[str, ...] | None:
    if isinstance(value, str):
        value = _json_list(value) if value.lstrip().startswith("[") else [value]
    if not isinstance(value, list | tuple):
        return None
    if len(value) > _MOST_KEYWORDS:
        raise DataError(f"{where}: {name} has {len(value):,} keywords, more than {_MOST_KEYWORDS:,}")
    keywords = [_keyword(part, name, where) for part in value if part not in (None, "")]
    return None if None in keywords else tuple(dict.fromkeys(keywords))  # type: ignore[arg-type]


def _json_list(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return [text]


def _number(value: Any, name: str, where: str) -> float | None:
    whole = isinstance(value, int)
    if isinstance(value, str):
        text = value.strip()
        if not _NUMBER.fullmatch(text):
            return None
        value, whole = Decimal(text), text.lstrip("+-").isdecimal()
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    if whole and not -_EXACT <= value <= _EXACT:
        raise DataError(
            f"{where}: {name} is a whole number beyond 2**53, which float64 does not hold; make it a keyword"
        )
    number = float(value) + 0.0  # no negative zero, which Lucene keeps apart
    if not math.isfinite(number):
        raise DataError(f"{where}: {name} is a number that float64 does not hold; make it a keyword")
    return number


def _date(value: Any, name: str, where: str) -> datetime | None:
    if isinstance(value, str):
        if not _DATE.fullmatch(value.strip()):
            return None
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError as error:
            raise DataError(f"{where}: {name} {value.strip()!r} is no date ({error})") from error
    if not isinstance(value, datetime):
        if not isinstance(value, date):
            return None
        value = datetime(value.year, value.month, value.day)
    elif type(value) is not datetime:  # pandas', of nanoseconds
        value = datetime.fromisoformat(value.isoformat(timespec="microseconds"))
    moment: datetime = value
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError as error:
        raise DataError(f"{where}: {name} is a date beyond the years 1 to 9999") from error


def _boolean(value: Any, name: str, where: str) -> bool | None:
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.strip().lower())
    return value if isinstance(value, bool) else None


_CONVERSIONS: Final = {
    "keyword": _keyword,
    "keywords": _keywords,
    "number": _number,
    "date": _date,
    "boolean": _boolean,
}


def typed_fields(document: HasFields, types: Mapping[str, FieldType]) -> dict[str, FieldValue]:
    """Return a document's fields as an index with these types holds them.

    Raises
    ------
    DataError
        A field that the index does not have, or a value of another type.
    """
    if not document.fields:
        return {}
    where = document.where or f"document {document.id!a:.40}"
    if strange := document.fields.keys() - types.keys():
        there = f"it has {', '.join(types)}" if types else "it has none"
        raise DataError(f"{where}: the index has no field {printable(min(strange), 40)!r}; {there}")
    values = {name: field_value(value, types[name], name, where) for name, value in document.fields.items()}
    return {name: value for name, value in values.items() if value is not None}


def plain_fields(fields: Mapping[str, FieldInput]) -> dict[str, Any]:
    """Return a document's fields as JSON has them; see :func:`plain_value`."""
    return {name: plain_value(value) for name, value in fields.items()}


def plain_value(value: FieldInput) -> Any:
    """Return a value as JSON has it: a list for a tuple, ISO 8601 for a date."""
    if isinstance(value, tuple):
        return list(value)
    return value.isoformat() if isinstance(value, datetime) else value


class FieldGuess:
    """The types that values of a field can have, seen one after the other.

    Parameters
    ----------
    field : Field
        If it has a type, values are only checked.
    typed : bool
        Values have types of their own, as in JSON: text in it is no number, though it may be a date.

    Attributes
    ----------
    seen : bool
        Whether there was a value.
    """

    def __init__(self, field: Field, typed: bool) -> None:
        self._field, self._typed = field, typed
        self._types: list[FieldType] = []
        self.seen = False

    def see(self, value: Any, where: str) -> None:
        """Take another value into account, unless it is empty.

        Raises
        ------
        DataError
            It is not of the field's type, or of none that those before it could be.
        """
        name = self._field.name
        if self._field.type is not None:
            self.seen |= field_value(value, self._field.type, name, where) is not None
            return
        if _is_empty(value):
            return
        can_be = _possible(value, self._typed)
        if not can_be:
            raise DataError(f"{where}: {name} is {kind(value)}, which no field holds")
        left = [type_ for type_ in self._types if type_ in can_be] if self.seen else can_be
        if not left:
            before, now = _ARTICLES[self._types[0]], _ARTICLES[can_be[0]]
            raise DataError(f"{where}: {name} is {now} here, and {before} before; say which, as in {name}:keyword")
        field_value(value, left[0], name, where)
        self._types, self.seen = left, True

    def field(self, *, needed: bool = True) -> Field:
        """Return the field with its type.

        Raises
        ------
        DataError
            There was no value, so that the name may be a mistake; if `needed`, or if it has no type.
        """
        if not self.seen and (needed or self._field.type is None):
            raise DataError(f"no document has a value of {printable(self._field.column, 40)}")
        return self._field if self._field.type is not None else replace(self._field, type=self._types[0])


def _possible(value: Any, typed: bool) -> list[FieldType]:
    """Return the types that a value can be taken for without being told, the most special first."""
    if isinstance(value, bytes | bytearray):
        value = value.decode(errors="replace")
    if isinstance(value, bool):
        return ["boolean"]
    if isinstance(value, int | float | Decimal):
        return ["number"]
    if isinstance(value, date):
        return ["date"]
    if isinstance(value, list | tuple):
        return ["keywords"] if all(isinstance(part, str) or part is None for part in value) else []
    if not isinstance(value, str):
        return ["keyword"] if isinstance(value, UUID) else []
    text = value.strip()
    special: list[FieldType] = []
    if _DATE.fullmatch(text) and _is_date(text):
        special.append("date")
    elif typed:
        pass
    elif text.lower() in ("true", "false"):
        special.append("boolean")
    elif _PLAIN_NUMBER.fullmatch(text) and len(text) <= _MOST_DIGITS:
        special.append("number")
    if typed:
        return [*special, "keyword", "keywords"]
    return ["keywords", "keyword"] if _is_list(text) else [*special, "keyword"]


def _is_list(text: str) -> bool:
    """Return whether text is a list of texts in JSON."""
    values = _json_list(text) if text.startswith("[") else None
    return values not in (None, [text]) and isinstance(values, list) and all(isinstance(part, str) for part in values)


def _is_date(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def check_types(types: Mapping[str, Any]) -> dict[str, FieldType]:
    """Return the fields of an index, by name.

    Raises
    ------
    DataError
        A name or a type that no field has.
    """
    fields = check_fields(Field(name, type_) for name, type_ in types.items())
    return {field.name: field.type for field in fields if field.type is not None}
