"""Filters let the same rows through by columns, by Lucene and by definition; filtered searches are brute force."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filter_support import START, TYPES, conditions, documents, filters, holds
from hypothesis import HealthCheck, given, settings, strategies as st
from support import VOCABULARY, brute_force, collect, random_vectors

from sparse_sts_index import DataError, Document, ImpactIndexError, Manifest, Quantizer
from sparse_sts_index.data.documents import Chunk
from sparse_sts_index.data.fields import FieldValue
from sparse_sts_index.data.filters import Compare, Exists, Filter, In, parse_filter, typed_filter
from sparse_sts_index.search.filtering import passing
from sparse_sts_index.search.searcher import Searcher
from sparse_sts_index.storage.field_files import FieldColumns, stream_of
from sparse_sts_index.storage.impact_index import ImpactIndex
from sparse_sts_index.storage.merging import merge


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
    st.lists(documents, min_size=1, max_size=12),
    st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 255)), min_size=1, max_size=8),
    st.integers(0, 40),
)
@settings(max_examples=400, deadline=None)
def test_damaged_columns_are_refused_or_read(
    rows: list[dict[str, FieldValue]], changes: list[tuple[int, int]], cut: int
) -> None:
    """Whatever bytes are there, before their checksum is looked at: nothing but a ValueError, and no crash."""
    content = bytearray(stream_of(rows, TYPES, first=True))
    for place, byte in changes:
        content[place % len(content)] = byte
    try:
        columns = FieldColumns(np.frombuffer(content[: len(content) - cut], np.uint8), TYPES, len(rows))
    except ValueError:
        return
    assert len(columns.values(np.arange(len(rows)))) == len(rows)
    values = [
        In("k", ("a",)),
        In("ks", ("a",)),
        Compare("n", "<", 1.0),
        Compare("d", "<", START),
        Compare("b", "=", True),
    ]
    for where in (*map(Exists, TYPES), *values):
        assert len(passing(where, columns)) == len(rows)


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
    whole = note(chunk(names, first, rng))
    half = len(first) // 2
    parts = [(0, half), (half, len(first))] if half else [(0, 1)]
    for start, stop in parts:
        part = Chunk(whole.documents[start:stop], whole.vectors[start:stop], whole.impacts[start:stop])
        new_index(folder / "shards" / f"s{start}", part)
    collect(folder / "shards", [f"s{start}" for start, _ in parts])
    with ImpactIndex.open(folder / "shards") as shards:
        check(shards)
    path = new_index(folder / "index", whole)
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
