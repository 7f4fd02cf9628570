"""Filters: which documents count, by their fields; as text, as Python objects, as JSON, all equal.

The text form is ``product = "router" and created >= 2026-01-01 and not status in ("closed", "merged")``:

* ``=``, ``!=``, ``<``, ``<=``, ``>``, ``>=`` of a field with a value, ``in`` and ``not in`` a list, ``exists``;
* ``not`` binds tighter than ``and``, and that tighter than ``or``; parentheses group; these words are in any case;
* text in double or single quotes, with a backslash before a quote or a backslash in it; numbers; ``true``, ``false``;
  dates of ISO 8601, quoted or not.

A document without a value of a field fits no comparison with it, and so fits ``!=`` and ``not``. A list of keywords
fits ``=`` if one of them does. A date without a time is the whole day, in UTC: ``=`` is in it, ``>`` after it, ``<=``
not after it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field as attribute, replace
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from sparse_sts_index._utils.text import printable
from sparse_sts_index.data.fields import FieldType, FieldValue, field_value, plain_value
from sparse_sts_index.errors import DataError

if TYPE_CHECKING:
    from lark import Lark, Token, UnexpectedInput

Operator = Literal["=", "<", "<=", ">", ">="]

_OPERATORS: Final = get_args(Operator)
_ORDERED: Final = ("number", "date")
_MOST_CHARACTERS, _MOST_PARTS, _MOST_DEPTH = 65_536, 10_000, 50
_DAY_BUT_ONE = timedelta(days=1) - timedelta(microseconds=1)
_QUOTED = re.compile(r'"(\\["\\]|[^"\\])*"|' r"'(\\['\\]|[^'\\])*'")
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


class Filter:
    """A condition on the fields of a document; ``&``, ``|`` and ``~`` put conditions together."""

    def __and__(self, other: Filter) -> Filter:
        return And((self, other))

    def __or__(self, other: Filter) -> Filter:
        return Or((self, other))

    def __invert__(self) -> Filter:
        return Not(self)


@dataclass(frozen=True)
class Compare(Filter):
    """Compare a field's value with another.

    Attributes
    ----------
    field : str
    operator : {"=", "<", "<=", ">", ">="}
        All but ``=`` are for numbers and dates.
    value : str, float, bool or datetime
    place : int
        Where it begins in a text, from 0; -1 if it was not read from one.
    """

    field: str
    operator: Operator
    value: FieldValue
    place: int = attribute(default=-1, compare=False, repr=False)


@dataclass(frozen=True)
class In(Filter):
    """Require one of some values."""

    field: str
    values: tuple[FieldValue, ...]
    place: int = attribute(default=-1, compare=False, repr=False)


@dataclass(frozen=True)
class Exists(Filter):
    """Require any value."""

    field: str
    place: int = attribute(default=-1, compare=False, repr=False)


@dataclass(frozen=True)
class Not(Filter):
    """Require that a filter does not hold."""

    part: Filter


@dataclass(frozen=True)
class And(Filter):
    """Require that all of some filters hold; an empty one always does."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True)
class Or(Filter):
    """Require that one of some filters holds; an empty one never does."""

    parts: tuple[Filter, ...]


_GRAMMAR = r"""
?start: either
?either: both (_OR both)*
?both: single (_AND single)*
?single: _NOT single -> negation
       | "(" either ")"
       | NAME OPERATOR value -> comparison
       | NAME _IN values -> choice
       | NAME _NOT _IN values -> other_choice
       | NAME _EXISTS -> existence
values: "(" [value ("," value)*] ")"
?value: TEXT | DATE | NUMBER | TRUTH

_OR.3: /or(?![\w.-])/i
_AND.3: /and(?![\w.-])/i
_NOT.3: /not(?![\w.-])/i
_IN.3: /in(?![\w.-])/i
_EXISTS.3: /exists(?![\w.-])/i
TRUTH.3: /(true|false)(?![\w.-])/i
DATE.2: /\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d(:?\d\d)?)?)?(?![\w:.-])/
NUMBER: /[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?(?![\w.])/
TEXT: /<quoted>/
OPERATOR: "!=" | "<=" | ">=" | "=" | "<" | ">"
NAME: /[^\W\d][\w.-]*/
%ignore /\s+/
""".replace("<quoted>", _QUOTED.pattern)
_WHAT: Final = {
    "NAME": "a field",
    "OPERATOR": "= != < <= > >=",
    "_IN": "'in'",
    "_EXISTS": "'exists'",
    "_NOT": "'not'",
    "_AND": "'and'",
    "_OR": "'or'",
    "LPAR": "'('",
    "RPAR": "')'",
    "COMMA": "','",
    "$END": "the end",
}
_VALUES: Final = {"TEXT", "DATE", "NUMBER", "TRUTH"}


def _unquoted(token: Token) -> FieldValue:
    if token.type == "TEXT":
        return _ESCAPED.sub(r"\1", token[1:-1])
    if token.type == "NUMBER":
        return float(token)
    if token.type == "TRUTH":
        return token.lower() == "true"
    return str(token)  # a date, which becomes one where the field is


@functools.cache
def _parser() -> Lark:
    from lark import Lark, Transformer  # which most commands have no use for

    class ToFilter(Transformer):  # type: ignore[type-arg]
        def comparison(self, parts: list[Token]) -> Filter:
            name, operator, value = parts
            place = name.start_pos or 0
            if operator == "!=":
                return Not(Compare(str(name), "=", _unquoted(value), place))
            return Compare(str(name), str(operator), _unquoted(value), place)  # type: ignore[arg-type]

        def choice(self, parts: list[Any]) -> Filter:
            name, values = parts
            return In(str(name), tuple(_unquoted(value) for value in values), name.start_pos or 0)

        def other_choice(self, parts: list[Any]) -> Filter:
            return Not(self.choice(parts))

        def existence(self, parts: list[Token]) -> Filter:
            return Exists(str(parts[0]), parts[0].start_pos or 0)

        def values(self, parts: list[Token | None]) -> list[Token]:
            return [part for part in parts if part is not None]

        def negation(self, parts: list[Filter]) -> Filter:
            return Not(parts[0])

        def both(self, parts: list[Filter]) -> Filter:
            return And(tuple(parts))

        def either(self, parts: list[Filter]) -> Filter:
            return Or(tuple(parts))

    return Lark(_GRAMMAR, parser="lalr", transformer=ToFilter(), maybe_placeholders=True)


def parse_filter(text: str) -> Filter:
    """Read a filter's text form; see this module's head.

    Raises
    ------
    DataError
        It is not of this form, longer than 65,536 characters, or nested deeper than 50 levels; the message says where.
    """
    if len(text) > _MOST_CHARACTERS:
        raise DataError(f"filter: longer than {_MOST_CHARACTERS:,} characters")
    if not text.strip():
        raise DataError("filter: empty")
    from lark import UnexpectedInput

    try:
        found = _parser().parse(text)
    except UnexpectedInput as error:
        raise DataError(_misread(text, error)) from error
    return _bounded(found)  # type: ignore[arg-type]


def _misread(text: str, error: UnexpectedInput) -> str:
    token = getattr(error, "token", None)
    place = error.pos_in_stream if token is None or token.type != "$END" else len(text)
    place = len(text) if place is None or place < 0 else place
    accepted = set(
        getattr(error, "accepts", None) or getattr(error, "expected", None) or getattr(error, "allowed", None) or ()
    )
    wanted = [what for name, what in _WHAT.items() if name in accepted]
    if accepted & _VALUES:
        wanted.insert(0, "a value (text in quotes, a number, a date, true or false)")
    if text[place : place + 1] in ("'", '"') and not _QUOTED.match(text, place):
        more = "a quote that is not closed, or has a backslash before something else than itself and quotes"
        return f"filter, character {place + 1}: {more}"
    found = "the end" if not text[place:].strip() else repr(printable(text[place:].split()[0], 20))
    return f"filter, character {place + 1}: expected {' or '.join(wanted) or 'something else'}, found {found}"


def filter_of_json(values: Any) -> Filter:
    """Read a filter's JSON form.

    ``{"field": "created", "op": ">=", "value": "2026-01-01"}``, with ``op`` also ``=``, ``!=``, ``<``, ``<=``, ``>``,
    ``in`` and ``not in`` (a list of values), and ``exists`` (none); ``{"and": [...]}``, ``{"or": [...]}`` and
    ``{"not": ...}``.

    Raises
    ------
    DataError
        It is not of this form, or nested deeper than 50 levels.
    """
    return _bounded(_of_json(values, 0))


def _of_json(values: Any, depth: int) -> Filter:
    if depth > _MOST_DEPTH:
        raise DataError(f"filter: nested deeper than {_MOST_DEPTH} levels")
    if isinstance(values, Mapping):
        keys = set(values)
        if keys == {"not"}:
            return Not(_of_json(values["not"], depth + 1))
        for key, kind in (("and", And), ("or", Or)):
            if keys == {key} and isinstance(values[key], list):
                return kind(tuple(_of_json(part, depth + 1) for part in values[key]))
        if {"field", "op"} <= keys <= {"field", "op", "value"}:
            return _condition_of_json(**values)
    shown = printable(str(values), 60)
    raise DataError(
        f'filter: {shown} is no {{"field", "op", "value"}}, {{"and": [...]}}, {{"or": [...]}} or {{"not": ...}}'
    )


def _condition_of_json(field: Any, op: Any, value: Any = None) -> Filter:
    if not isinstance(field, str):
        raise DataError("filter: field must be a string")
    if op == "exists" and value is None:
        return Exists(field)
    if (
        op in ("in", "not in")
        and isinstance(value, list)
        and all(isinstance(part, str | int | float) for part in value)
    ):
        chosen = In(field, tuple(value))
        return chosen if op == "in" else Not(chosen)
    if isinstance(value, date) and not isinstance(value, datetime):
        value = value.isoformat()
    if op in (*_OPERATORS, "!=") and isinstance(value, str | int | float | datetime):
        return Not(Compare(field, "=", value)) if op == "!=" else Compare(field, op, value)
    raise DataError(f"filter: {field} cannot be {printable(str(op), 20)!r} {printable(str(value), 40)}")


def filter_to_json(filter_: Filter, plain: Callable[[FieldValue], Any] = plain_value) -> dict[str, Any]:
    """Return a filter's JSON form, which :func:`filter_of_json` reads.

    Parameters
    ----------
    filter_ : Filter
    plain : callable, optional
        Makes values what JSON holds. Default: dates become ISO 8601.
    """
    match filter_:
        case Compare(name, operator, value):
            return {"field": name, "op": operator, "value": plain(value)}
        case In(name, values):
            return {"field": name, "op": "in", "value": [plain(value) for value in values]}
        case Exists(name):
            return {"field": name, "op": "exists"}
        case Not(part):
            return {"not": filter_to_json(part, plain)}
        case And(parts):
            return {"and": [filter_to_json(part, plain) for part in parts]}
        case Or(parts):
            return {"or": [filter_to_json(part, plain) for part in parts]}
    raise ValueError(f"{type(filter_).__name__} is no filter")


#: A filter in any of its forms, or none.
Where = Filter | str | Mapping[str, Any] | None


def as_filter(where: Where) -> Filter | None:
    """Return a filter, whatever form it has.

    Raises
    ------
    DataError
        See :func:`parse_filter` and :func:`filter_of_json`.
    ValueError
        It has none of the forms.
    """
    if where is None or isinstance(where, Filter):
        return where if where is None else _bounded(where)
    if isinstance(where, str):
        return parse_filter(where)
    if isinstance(where, Mapping):
        return filter_of_json(where)
    raise ValueError(f"a filter must be text, a Filter or a mapping, not {type(where).__name__}")


def _bounded(filter_: Filter) -> Filter:
    """Refuse what is nested too deep, or has too many parts, before anything walks through it by recursion."""
    level, count = [filter_], 0
    for _ in range(_MOST_DEPTH + 1):
        count += len(level)
        level = [part for whole in level for part in _parts(whole)]
        if not level:
            break
    else:
        raise DataError(f"filter: nested deeper than {_MOST_DEPTH} levels")
    if count > _MOST_PARTS:
        raise DataError(f"filter: {count:,} conditions, more than {_MOST_PARTS:,}")
    return filter_


def _parts(filter_: Filter) -> Sequence[Filter]:
    match filter_:
        case Not(part):
            return (part,)
        case And(parts) | Or(parts):
            return parts
        case Compare() | In() | Exists():
            return ()
    raise ValueError(f"a filter is made of filters, not of {type(filter_).__name__}")


def typed_filter(filter_: Filter, types: Mapping[str, FieldType]) -> Filter:
    """Return the filter with values of the fields' types, whole days as ranges of times.

    Parameters
    ----------
    filter_ : Filter
    types : mapping of str to str
        The fields that there are.

    Returns
    -------
    Filter
        Numbers are floats, dates are datetimes in UTC.

    Raises
    ------
    DataError
        A field that there is not, a value of another type, or an order of what has none; the message says where.
    """
    match filter_:
        case Not(part):
            return Not(typed_filter(part, types))
        case And(parts):
            return And(tuple(typed_filter(part, types) for part in parts))
        case Or(parts):
            return Or(tuple(typed_filter(part, types) for part in parts))
        case Compare(name, operator, value, place):
            type_, where = _type_of(name, place, types)
            if operator != "=" and type_ not in _ORDERED:
                raise DataError(f"{where}: {name} is a {type_}, which has no order; it can be =, != or in")
            return _compared(name, type_, operator, value, where)
        case In(name, values, place):
            type_, where = _type_of(name, place, types)
            if type_ in ("keyword", "keywords"):
                return In(name, tuple(dict.fromkeys(_value(value, type_, name, where) for value in values)))
            return Or(tuple(_compared(name, type_, "=", value, where) for value in values))
        case Exists(name, place):
            _type_of(name, place, types)
            return replace(filter_, place=-1)
    raise ValueError(f"{type(filter_).__name__} is no filter")


def filter_for(where: Where, types: Mapping[str, FieldType]) -> Filter | None:
    """Return a filter with values of the fields' types, whatever form it has.

    Raises
    ------
    DataError, ValueError
        See :func:`as_filter` and :func:`typed_filter`.
    """
    found = as_filter(where)
    return None if found is None else typed_filter(found, types)


def _type_of(name: str, place: int, types: Mapping[str, FieldType]) -> tuple[FieldType, str]:
    where = "filter" if place < 0 else f"filter, character {place + 1}"
    if name not in types:
        there = f"there are {', '.join(sorted(types))}" if types else "the index has none"
        raise DataError(f"{where}: no field {printable(name, 40)!r}; {there}")
    return types[name], where


def _value(value: FieldValue, type_: FieldType, name: str, where: str) -> FieldValue:
    kind: FieldType = "keyword" if type_ == "keywords" else type_
    if kind == "keyword" and not isinstance(value, str):
        shown = printable(f"{value:.12g}" if isinstance(value, float) else str(value).lower(), 40)
        raise DataError(f"{where}: {name} is a {type_}: put {shown} into quotes")
    if kind in ("number", "boolean") and isinstance(value, str):
        raise DataError(f"{where}: {name} is a {type_}, and {printable(value, 40)!r} is text")
    found = field_value(value, kind, name, where)
    if found is None:
        raise DataError(f"{where}: empty text is no value; a document without one is not ({name} exists)")
    return found


def _compared(name: str, type_: FieldType, operator: Operator, value: FieldValue, where: str) -> Filter:
    found = _value(value, type_, name, where)
    if type_ != "date" or not isinstance(value, str) or len(value.strip()) > len("2026-01-01"):
        return Compare(name, operator, found)
    assert isinstance(found, datetime)
    last = found + _DAY_BUT_ONE
    whole_days: dict[Operator, Filter] = {
        "=": And((Compare(name, ">=", found), Compare(name, "<=", last))),
        "<": Compare(name, "<", found),
        "<=": Compare(name, "<=", last),
        ">": Compare(name, ">", last),
        ">=": Compare(name, ">=", found),
    }
    return whole_days[operator]


def fields_of(filter_: Filter) -> Iterator[str]:
    """Yield the names of the fields in a filter, perhaps several times."""
    if isinstance(filter_, Compare | In | Exists):
        yield filter_.field
    for part in _parts(filter_):
        yield from fields_of(part)
