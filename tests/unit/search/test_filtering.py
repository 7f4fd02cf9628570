"""Filters let the same rows through by columns, by Lucene and by definition; filtered searches are brute force."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from support import VOCABULARY, brute_force, random_vectors

from sparse_sts_index import DataError, Document, ImpactIndexError, Manifest, Quantizer
from sparse_sts_index.data.documents import Chunk
from sparse_sts_index.data.fields import FieldType, FieldValue
from sparse_sts_index.data.filters import And, Compare, Exists, Filter, In, Not, Or, parse_filter, typed_filter
from sparse_sts_index.search.filtering import passing
from sparse_sts_index.search.searcher import Searcher
from sparse_sts_index.storage.field_files import FieldColumns, stream_of
from sparse_sts_index.storage.impact_index import ImpactIndex
from sparse_sts_index.storage.merging import merge

TYPES: dict[str, FieldType] = {"k": "keyword", "ks": "keywords", "n": "number", "d": "date", "b": "boolean"}
START = datetime(2026, 1, 1, tzinfo=UTC)

words = st.sampled_from(["a", "b", 'q"\\', "\u00e4 \U0001f600", "true", "z\n"])
numbers = st.sampled_from([-1e300, -1.5, 0.0, 1.0, 1.0000000000000002, 3.0, 1e300])
dates = st.integers(-2, 2).map(lambda days: START + timedelta(days=days)) | st.just(START + timedelta(microseconds=1))
values = {
    "k": words,
    "ks": st.lists(words, max_size=3, unique=True).map(tuple),
    "n": numbers,
    "d": dates,
    "b": st.booleans(),
}
documents = st.fixed_dictionaries({}, optional=values).map(lambda row: {k: v for k, v in row.items() if v != ()})


def comparisons(name: str) -> st.SearchStrategy[Filter]:
    of_list = name == "ks"
    operators = st.sampled_from(["=", "<", "<=", ">", ">="] if name in ("n", "d") else ["="])
    return st.builds(Compare, st.just(name), operators, words if of_list else values[name])


conditions = st.one_of(
    *(comparisons(name) for name in TYPES),
    st.builds(In, st.sampled_from(["k", "ks"]), st.lists(words, max_size=3).map(tuple)),
    st.builds(Exists, st.sampled_from(list(TYPES))),
)
filters = st.recursive(
    conditions,
    lambda parts: (
        st.builds(Not, parts)
        | st.builds(And, st.lists(parts, max_size=3).map(tuple))
        | st.builds(Or, st.lists(parts, max_size=3).map(tuple))
    ),
    max_leaves=6,
)


def holds(filter_: Filter, fields: Mapping[str, FieldValue]) -> bool:
    """Return whether a document passes, by the definition of each filter."""
    match filter_:
        case Not(part):
            return not holds(part, fields)
        case And(parts):
            return all(holds(part, fields) for part in parts)
        case Or(parts):
            return any(holds(part, fields) for part in parts)
        case Exists(name):
            return name in fields
        case In(name, wanted):
            return any(holds(Compare(name, "=", value), fields) for value in wanted)
        case Compare(name, operator, wanted):
            found: Any = fields.get(name, ())
            each = found if isinstance(found, tuple) else (found,)
            orders = {"<": (-1,), "<=": (-1, 0), "=": (0,), ">=": (0, 1), ">": (1,)}
            return any(((one > wanted) - (one < wanted)) in orders[operator] for one in each)
    raise AssertionError(filter_)


def chunk(names: list[str], fields: list[dict[str, FieldValue]], rng: np.random.Generator) -> Chunk:
    vectors = random_vectors(rng, len(names))
    pairs = zip(names, fields, strict=True)
    return Chunk([Document(name, name, "", own) for name, own in pairs], vectors, Quantizer(8).quantize(vectors))


def new_index(path: Path, *chunks: Chunk) -> Path:
    ImpactIndex.build(path, chunks, Manifest.without_model(VOCABULARY, 8).with_fields(TYPES), VOCABULARY)
    return path


@given(st.lists(st.lists(documents, max_size=6), max_size=4), filters)
@settings(max_examples=300, deadline=None)
def test_columns_say_what_documents_say(batches: list[list[dict[str, FieldValue]]], filter_: Filter) -> None:
    rows = [row for batch in batches for row in batch]
    content = b"".join(stream_of(batch, TYPES, first=not number) for number, batch in enumerate(batches))
    columns = FieldColumns(np.frombuffer(content, np.uint8), TYPES, len(rows))
    assert columns.values(np.arange(len(rows))) == rows
    found = passing(typed_filter(filter_, TYPES), columns)
    assert found.tolist() == [holds(filter_, row) for row in rows]


@given(
    st.lists(documents, min_size=1, max_size=30), st.lists(documents, max_size=10), filters, st.integers(0, 2**32 - 1)
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_filtered_search_is_brute_force(
    tmp_path_factory: pytest.TempPathFactory,
    first: list[dict[str, FieldValue]],
    second: list[dict[str, FieldValue]],
    filter_: Filter,
    seed: int,
) -> None:
    """In memory, by Lucene and over shards; after a build, an update, a deletion and compaction."""
    rng, folder = np.random.default_rng(seed), tmp_path_factory.mktemp("filtered")
    held: dict[str, tuple[Document, Any]] = {}

    def note(part: Chunk) -> Chunk:
        held.update({doc.id: (doc, part.vectors[[row]]) for row, doc in enumerate(part.documents)})
        return part

    def check(index: ImpactIndex) -> None:
        queries = random_vectors(rng, 2)
        with index.using() as snapshot:
            for in_memory, k in itertools.product((True, False), (1, 4)):
                found = Searcher(snapshot, in_memory).search(queries, k, "exact", filter_)
                for row, near in enumerate(found):
                    among = {name: vector for name, (doc, vector) in held.items() if holds(filter_, doc.fields)}
                    expected = sorted(
                        pair
                        for name, vector in among.items()
                        for pair in brute_force([name], vector, queries[[row]], 1)
                    )
                    expected.sort(key=lambda pair: (-pair[1], pair[0]))
                    assert near.certified
                    assert list(zip(near.ids, near.cosines, strict=True)) == expected[:k]
                    assert near.bound >= max((cosine for _, cosine in expected[k:]), default=0)

    names = [f"d{number}" for number in range(len(first))]
    path = new_index(folder / "index", note(chunk(names, first, rng)))
    with ImpactIndex.open(path, writable=True) as index:
        check(index)
        changed = [f"d{number + len(first) // 2}" for number in range(len(second))]
        if changed:
            index.write([note(chunk(changed, second, rng))], replace=True, commit=True)
        index.delete(["d0"])
        del held["d0"]
        check(index)
        assert index.get_many(list(held)) == [doc for doc, _ in held.values()]
        if held:
            index.compact()
            assert index.verify() == len(held)
            merge(folder / "merged", [path])
            with ImpactIndex.open(folder / "merged") as merged:
                check(merged)


def test_masks_are_kept_for_the_snapshot(tmp_path: Path) -> None:
    path = new_index(tmp_path / "i", chunk(["a", "b"], [{"n": 1.0}, {"n": 2.0}], np.random.default_rng(0)))
    with ImpactIndex.open(path) as index, index.using() as snapshot:
        searcher = Searcher(snapshot)
        first = searcher.passing(parse_filter("n > 1"))
        assert searcher.passing(parse_filter("n > 1")) is first
        assert first.tolist() == [False, True]
        with pytest.raises(DataError, match="no field 'x'"):
            searcher.passing(parse_filter("x > 1"))


@pytest.mark.parametrize("damage", [b"", b"\0" * 40, b"\xff\xff\xff\xff\x08\0\0\0" * 9])
def test_streams_that_cannot_be(damage: bytes) -> None:
    content = stream_of([{"n": 1.0}], TYPES, first=True)
    broken = {content[: len(content) // 2] + damage, damage + content, content + content, content[:-400] + damage}
    for stream in broken - {content}:
        with pytest.raises(ValueError, match="."):
            FieldColumns(np.frombuffer(stream, np.uint8), TYPES, 1)
    with pytest.raises(ValueError, match="other fields"):
        FieldColumns(np.frombuffer(content, np.uint8), {"n": "date"}, 1)


@given(st.lists(documents, min_size=1, max_size=20), conditions, st.integers(0, 99))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_counts_and_groups(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, FieldValue]], filter_: Filter, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    part = chunk([f"d{number}" for number in range(len(rows))], rows, rng)
    queries = random_vectors(rng, 2)
    path = new_index(tmp_path_factory.mktemp("counts") / "index", part)
    among = [row for row, fields in enumerate(rows) if holds(filter_, fields)]
    with ImpactIndex.open(path) as index, index.using() as snapshot:
        for name in ("k", "ks", "b"):
            each = [rows[row][name] for row in among if name in rows[row]]
            expected = Counter(word for value in each for word in (value if isinstance(value, tuple) else (value,)))
            found = Searcher(snapshot).counts(name, filter_)
            assert found == expected
            assert list(found.values()) == sorted(found.values(), reverse=True)
        for name, in_memory, k in itertools.product(("k", "n", "d", "b"), (True, False), (1, 3)):
            for row, near in enumerate(Searcher(snapshot, in_memory).search_groups(queries, k, name, where=filter_)):
                ids = [f"d{number}" for number in among]
                ranked = brute_force(ids, part.vectors[among], queries[[row]], len(ids))
                groups: dict[object, tuple[str, float]] = {}
                for doc_id, cosine in ranked:
                    groups.setdefault(rows[int(doc_id[1:])].get(name), (doc_id, cosine))
                assert near.certified
                assert list(zip(near.ids, near.cosines, strict=True)) == list(groups.values())[:k]
                assert near.bound >= max((cosine for _, cosine in list(groups.values())[k:]), default=0)
        for name in ("ks", "x"):
            with pytest.raises(DataError, match=f"cannot group by {name}"):
                Searcher(snapshot).search_groups(queries, 1, name)
        for name in ("n", "x"):
            with pytest.raises(DataError, match=f"cannot count the values of {name}"):
                Searcher(snapshot).counts(name)


def test_damaged_fields_are_refused(tmp_path: Path) -> None:
    path = new_index(tmp_path / "i", chunk(["a", "b"], [{"n": 1.0}, {"n": 2.0}], np.random.default_rng(0)))
    file = path / "vectors-000001" / "fields.arrows"
    whole = file.read_bytes()
    for content in (whole[:-1], b"\0" * len(whole), whole[:600] + b"\xff" * (len(whole) - 600)):
        file.write_bytes(content)
        with pytest.raises(ImpactIndexError, match=r"fields\.arrows: (not as it was written|truncated)"):
            ImpactIndex.open(path)
        if len(content) == len(whole):
            with (
                ImpactIndex.open(path, check=False) as index,
                index.using() as snapshot,
                pytest.raises(ImpactIndexError, match=r"fields\.arrows: damaged"),
            ):
                Searcher(snapshot).passing(parse_filter("n > 1"))
    file.unlink()
    with pytest.raises(ImpactIndexError, match=r"fields\.arrows"):
        ImpactIndex.open(path)
