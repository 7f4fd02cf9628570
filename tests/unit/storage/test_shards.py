"""Shards searched as one index, and folded into one, against the index that one build gives."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings, strategies as st
from scipy.sparse import vstack
from sparse_sts_index.cli.main import main
from support import build, chunk, collect, random_vectors, store

from sparse_sts_index import DataError, ImpactIndexError, SparseStsIndex, read_corpus
from sparse_sts_index._utils.files import from_sealed_json, to_sealed_json
from sparse_sts_index.search.results import Hit, Hits, merge_hits
from sparse_sts_index.search.searcher import Searcher
from sparse_sts_index.search.similarity_join import similar_rows, similar_rows_between
from sparse_sts_index.storage import shards
from sparse_sts_index.storage.impact_index import ImpactIndex
from sparse_sts_index.storage.lucene.reader import ImpactReader, ImpactShards
from sparse_sts_index.storage.lucene.writer import ImpactWriter
from sparse_sts_index.storage.merging import merge
from sparse_sts_index.storage.shards import Collection, VectorShards
from sparse_sts_index.storage.snapshot import open_index_snapshot

if TYPE_CHECKING:
    from sparse_sts_index import SparseStsEncoder
    from sparse_sts_index.search.certified import Mode
    from sparse_sts_index.storage.snapshot import Snapshot

IDS = [f"d{number:02}" for number in np.random.default_rng(2).permutation(60)]
POOL = random_vectors(np.random.default_rng(0), 60)
QUERIES = random_vectors(np.random.default_rng(1), 40)
BORDERS = (0, 20, 21, 60)


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    build(tmp_path / "whole", IDS, POOL)
    return tmp_path / "whole"


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    path = tmp_path / "sharded"
    for start, stop in itertools.pairwise(BORDERS):
        build(path / f"s{start}", IDS[start:stop], POOL[start:stop])
    collect(path, [f"s{start}" for start in BORDERS[:-1]])
    return path


def assert_same(one: ImpactIndex, other: ImpactIndex, mode: Mode = "exact", in_memory: bool = False) -> None:
    assert len(one) == len(other)
    for a, b in zip(one.read(), other.read(), strict=True):
        assert a.documents == b.documents
        for part in ("indptr", "indices", "data"):
            np.testing.assert_array_equal(getattr(a.vectors, part), getattr(b.vectors, part))
    with one.using() as first, other.using() as second:
        for k in (1, 5, 100):
            expected = Searcher(first, in_memory).search(QUERIES, k, mode)
            assert Searcher(second, in_memory).search(QUERIES, k, mode) == expected


@pytest.mark.parametrize("in_memory", [True, False])
def test_shards_are_searched_as_one_index(whole: Path, sharded: Path, in_memory: bool) -> None:
    with (
        ImpactIndex.open(whole) as one,
        ImpactIndex.open(sharded) as shards,
    ):
        assert_same(one, shards, in_memory=in_memory)
        assert shards.verify() == 60
        assert shards.get_many([*IDS, "none"]) == one.get_many([*IDS, "none"])
        counted = ("documents", "empty_documents", "postings", "max_document_error")
        assert [getattr(shards.manifest, n) for n in counted] == [getattr(one.manifest, n) for n in counted]
        assert shards.manifest.build_seconds == 1.5


def test_near_duplicates_and_groups_of_shards(whole: Path, sharded: Path) -> None:
    with SparseStsIndex.open(whole) as one, SparseStsIndex.open(sharded) as shards:
        for threshold in (0.3, 0.7, 1.0):
            pairs = list(one.duplicates(threshold))
            assert pairs == list(shards.duplicates(threshold))
            assert pairs
            assert list(one.clusters(threshold)) == list(shards.clusters(threshold))
        assert one.search_vectors(QUERIES, 7, explain=True) == shards.search_vectors(QUERIES, 7, explain=True)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    border=st.integers(0, 30),
    threshold=st.sampled_from([0.05, 0.4, 0.8, 1.0]),
    dead=st.sets(st.integers(0, 29), max_size=8),
)
def test_a_join_is_the_sum_of_its_parts(
    tmp_path_factory: pytest.TempPathFactory, seed: int, border: int, threshold: float, dead: set[int]
) -> None:
    path = tmp_path_factory.mktemp("join")
    vectors = random_vectors(np.random.default_rng(seed), 30)
    all_rows = store(path / "all", vectors, sorted(dead))
    first = store(path / "first", vectors[:border], [row for row in sorted(dead) if row < border])
    second = store(path / "second", vectors[border:], [row - border for row in sorted(dead) if row >= border])
    expected = {(a, b): c for rows in similar_rows(all_rows, threshold) for a, b, c in zip(*rows, strict=True)}
    found = {}
    for shift, other_shift, blocks in (
        (0, 0, similar_rows(first, threshold)),
        (border, border, similar_rows(second, threshold)),
        (0, border, similar_rows_between(first, second, threshold)),
    ):
        for rows in blocks:
            found |= {(a + shift, b + other_shift): c for a, b, c in zip(*rows, strict=True)}
    assert found == expected  # cosines too, to the last bit
    shards = VectorShards([first, second])
    rows = np.random.default_rng(seed).integers(30, size=12)
    np.testing.assert_array_equal(shards.take(rows).toarray(), vectors[rows].toarray())
    assert shards.ids(rows) == [str(row if row < border else row - border) for row in rows]
    assert len(shards) == 30
    np.testing.assert_array_equal(shards.live, all_rows.live)
    blocks = list(shards.blocks(7))
    np.testing.assert_array_equal(vstack([block for _, block in blocks]).toarray(), vectors.toarray())
    assert [start for start, _ in blocks] == np.cumsum([0, *(b.shape[0] for _, b in blocks)]).tolist()[:-1]
    shards.verify()


def test_hits_of_shards_are_merged_to_those_of_the_whole(whole: Path, sharded: Path) -> None:
    with contextlib.ExitStack() as opened:
        paths = (whole, *(sharded / f"s{start}" for start in BORDERS[:-1]))
        one, *shards = (opened.enter_context(SparseStsIndex.open(path)) for path in paths)
        for k in (1, 3, 10, 30, 100):  # above the size of each shard, of two, of all
            parts = zip(*(shard.search_vectors(QUERIES, k) for shard in shards), strict=True)
            for expected, some in zip(one.search_vectors(QUERIES, k), parts, strict=True):
                merged = merge_hits(some, k)
                assert merged.hits == expected.hits
                assert merged.certified


@settings(max_examples=200, deadline=None)
@given(
    cosines=st.lists(st.sampled_from([0.25, 0.5, 0.75, 1.0]), min_size=1, max_size=20),
    owners=st.lists(st.integers(0, 3), min_size=20, max_size=20),
    k=st.integers(1, 24),
    doubts=st.dictionaries(st.integers(0, 3), st.sampled_from([0.3, 0.5, 0.9, 1.0])),
)
def test_what_is_known_of_merged_hits(
    cosines: list[float], owners: list[int], k: int, doubts: dict[int, float]
) -> None:
    """Of shards with ties among them; one in doubt has found its best only, others may have up to a bound."""
    everything = sorted((Hit(f"{n:02}", "", cosine) for n, cosine in enumerate(cosines)), key=rank)
    parts = []
    for owner in range(4):
        own = [hit for hit in everything if owners[int(hit.id)] == owner]
        found = [hit for hit in own if hit.cosine > doubts[owner]] if owner in doubts else own
        rest = max((hit.cosine for hit in own[len(found[:k]) :]), default=0.0)
        parts.append(Hits(tuple(found[:k]), owner not in doubts, max(rest, doubts.get(owner, 0.0))))
    merged = merge_hits(parts, k)
    missed = [hit for hit in everything if hit not in merged.hits]
    assert all(hit.cosine <= merged.bound for hit in missed)
    assert merged.certified == (not doubts)
    if not doubts:
        assert list(merged.hits) == everything[:k]
        assert merged.bound == max((hit.cosine for hit in missed), default=0.0)
    assert list(merged.hits) == sorted(merged.hits, key=rank)


def rank(hit: Hit) -> tuple[float, str]:
    return -hit.cosine, hit.id


def test_another_collection_in_its_place_is_seen_on_refresh(sharded: Path) -> None:
    with ImpactIndex.open(sharded) as index:
        assert not index.refresh()
        collect(sharded, ["s20", "s21"])
        assert len(index) == 60
        assert index.refresh()
        assert len(index) == 40
        assert index.verify() == 40


def test_collections_are_only_read(sharded: Path) -> None:
    with pytest.raises(ImpactIndexError, match=r"is a collection of shards, which is only read: merge it"):
        ImpactIndex.open(sharded, writable=True)
    with pytest.raises(ImpactIndexError, match=r"is not an index and not empty \(it holds collection.json\)"):
        build(sharded, IDS[:3], POOL[:3])


def test_shards_that_have_changed_or_do_not_belong_together(sharded: Path, tmp_path: Path) -> None:
    with ImpactIndex.open(sharded / "s20", writable=True) as shard:
        shard.delete([IDS[20]])
    with pytest.raises(ImpactIndexError, match=r"s20 is not as it was when the collection was made"):
        ImpactIndex.open(sharded)
    shutil.rmtree(sharded / "s20")
    with pytest.raises(ImpactIndexError, match="s20"):
        ImpactIndex.open(sharded)
    build(sharded / "s20", IDS[20:21], POOL[20:21], bits=6)
    collect(sharded, ["s0", "s20"])
    with pytest.raises(ImpactIndexError, match=r"s0 and .*s20 differ in bits: 8, 6"):
        ImpactIndex.open(sharded)
    build(sharded / "twin", IDS[:1], POOL[:1])
    collect(sharded, ["s0", "twin"])
    with ImpactIndex.open(sharded) as index, pytest.raises(ImpactIndexError, match="is not the same in Lucene"):
        index.verify()


@pytest.mark.parametrize(
    "damage",
    [
        lambda values: values | {"shards": []},
        lambda values: values | {"shards": [values["shards"][0] | {"folder": "../whole"}]},
        lambda values: values | {"shards": [values["shards"][0] | {"folder": "/"}]},
        lambda values: values | {"shards": [{"folder": "s0"}]},
        lambda _: [],
        lambda _: "",
    ],
)
def test_a_broken_collection_file(sharded: Path, whole: Path, damage: Callable[[dict[str, object]], object]) -> None:
    file = sharded / "collection.json"
    damaged = damage(from_sealed_json(file.read_text()))
    file.write_text(to_sealed_json(damaged) if isinstance(damaged, dict) else json.dumps(damaged))
    with pytest.raises(ImpactIndexError, match=r"collection.json cannot be read"):
        ImpactIndex.open(sharded)


def test_additions_to_a_collection_file_are_passed_over(sharded: Path) -> None:
    file = sharded / "collection.json"
    values = from_sealed_json(file.read_text())
    shards = [shard | {"region": "eu"} for shard in values["shards"]]
    before = Collection.read(sharded)
    file.write_text(to_sealed_json(values | {"more": 1, "shards": shards}))
    after = Collection.read(sharded)
    assert after == dataclasses.replace(before, unknown=after.unknown)
    assert set(after.unknown) == {"more", "region of a shard"}
    with pytest.raises(ImpactIndexError, match="the index has more, region of a shard"):
        merge(sharded.parent / "merged", [sharded])


def test_a_collection_file_of_another_version_or_edited_by_hand(sharded: Path) -> None:
    file = sharded / "collection.json"
    text = file.read_text()
    file.write_text(text.replace('"build_seconds": 1.5', '"build_seconds": 2.5'))
    with pytest.raises(ImpactIndexError, match=r"collection.json cannot be read, or is not as it was written"):
        ImpactIndex.open(sharded)
    file.write_text(to_sealed_json(from_sealed_json(text) | {"format_version": 99}))
    with pytest.raises(ImpactIndexError, match="format version 99; this version reads 1"):
        ImpactIndex.open(sharded)


def test_a_collection_that_is_replaced_while_it_is_opened(sharded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def replaced_meanwhile(folder: Path, *options: Any) -> Snapshot:
        if folder.name == "s20":
            collect(sharded, ["s0", "s21"])
            shutil.rmtree(folder, ignore_errors=True)
        return open_index_snapshot(folder, *options)

    monkeypatch.setattr(shards, "open_index_snapshot", replaced_meanwhile)
    with ImpactIndex.open(sharded) as index:
        assert index.verify() == 59


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files as Linux shows them")
def test_more_shards_than_files_may_be_open(sharded: Path) -> None:
    resource = importlib.import_module("resource")
    before, limits = open_files(), resource.getrlimit(resource.RLIMIT_NOFILE)
    with ImpactIndex.open(sharded):
        assert len(open_files()) - len(before) == 15
    free = [number for number in range(max(before) + 20) if number not in before]
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[8], limits[1]))  # a limit of numbers, of which eight are free
    try:
        with pytest.raises(ImpactIndexError, match="Too many open files: 15 are held by 3 shards"):
            ImpactIndex.open(sharded)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert len(open_files()) == len(before)


def open_files() -> set[int]:
    return {int(entry.name) for entry in Path("/proc/self/fd").iterdir()}


def test_merged_shards_are_one_index(whole: Path, sharded: Path, tmp_path: Path) -> None:
    counts: list[int] = []
    merge(tmp_path / "merged", [sharded], progress=counts.append)
    assert counts == [60]
    with (
        ImpactIndex.open(whole) as one,
        ImpactIndex.open(tmp_path / "merged") as merged,
    ):
        assert merged.verify() == 60
        assert_same(one, merged)
        assert_same(one, merged, "two-step")
        assert_same(one, merged, "approximate")
    merge(tmp_path / "of three", [sharded / f"s{start}" for start in BORDERS[:-1]])
    with ImpactIndex.open(whole) as one, ImpactIndex.open(tmp_path / "of three") as merged:
        assert_same(one, merged)
    assert sorted(path.name for path in sharded.iterdir()) == ["collection.json", "s0", "s20", "s21"]


def test_merging_more_segments_than_a_java_method_takes_arguments(tmp_path: Path) -> None:
    build(tmp_path / "one", IDS[:2], POOL[:2])
    with (
        contextlib.closing(
            ImpactShards(tmp_path, [ImpactReader(tmp_path / "one" / "lucene") for _ in range(260)], range(0, 520, 2))
        ) as reader,
        ImpactWriter(tmp_path / "many") as writer,
    ):
        writer.add_reader(reader)
        writer.merge()
        writer.commit({})
    with contextlib.closing(ImpactReader(tmp_path / "many")) as reader:
        assert len(reader) == 520
        (found,) = reader.search([f"id:{IDS[0]}"], 1000)
        assert len(found) == 260


def test_only_rows_that_move_are_numbered_anew(sharded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbered: list[str] = []
    number = ImpactWriter.number

    def spy(self: ImpactWriter, ids: list[str], rows: Any) -> None:
        numbered.extend(ids)
        number(self, ids, rows)

    monkeypatch.setattr(ImpactWriter, "number", spy)
    merge(tmp_path / "merged", [sharded])
    assert numbered == IDS[20:]
    with ImpactIndex.open(tmp_path / "merged") as index:
        assert index.verify() == 60


def test_merging_indexes_that_have_changed_and_changing_what_was_merged(tmp_path: Path) -> None:
    build(tmp_path / "a", IDS[:30], POOL[:30])
    build(tmp_path / "b", IDS[30:], POOL[30:])
    with ImpactIndex.open(tmp_path / "a", writable=True) as index:
        index.delete(IDS[3:9])
        index.write([chunk(IDS[10:12], POOL[40:42])], replace=True, commit=True)
        merge(tmp_path / "merged", [tmp_path / "a", tmp_path / "b"])  # beside an open writer
    kept = [number for number in range(60) if not 3 <= number < 9 and number not in (10, 11)]
    order = [number for number in kept if number < 30] + [10, 11] + [number for number in kept if number >= 30]
    vectors = POOL[[{10: 40, 11: 41}.get(number, number) for number in order]]
    build(tmp_path / "expected", [IDS[number] for number in order], vectors)
    with (
        ImpactIndex.open(tmp_path / "merged", writable=True) as merged,
        ImpactIndex.open(tmp_path / "expected", writable=True) as expected,
    ):
        assert merged.verify() == 54
        assert_same(merged, expected)
        for index in (merged, expected):
            index.delete(IDS[40:50])
            index.write([chunk(["new", IDS[0]], POOL[7:9])], replace=True, commit=True)
            assert index.verify() == 45
        assert_same(merged, expected)
        merged.compact()
        expected.compact()
        assert merged.verify() == 45
        assert_same(merged, expected)


def test_what_cannot_be_merged(whole: Path, sharded: Path, tmp_path: Path) -> None:
    build(tmp_path / "coarse", ["x"], POOL[:1], bits=5)
    for sources, error, message in (
        ([whole, sharded], DataError, r"sharded: there is a document with id '.*' in another index already"),
        ([whole, tmp_path / "coarse"], ImpactIndexError, "differ in bits: 8, 5"),
        ([tmp_path / "none"], ImpactIndexError, "no index at"),
    ):
        with pytest.raises(error, match=message):
            merge(tmp_path / "merged", sources)
        assert not (tmp_path / "merged").exists()
    with pytest.raises(ValueError, match="nothing to merge"):
        merge(tmp_path / "merged", [])
    with pytest.raises(ImpactIndexError, match="already holds an index"):
        merge(whole, [tmp_path / "coarse"])
    merge(whole, [tmp_path / "coarse"], overwrite=True)
    with ImpactIndex.open(whole) as index:
        assert index.verify() == len(index) == 1


def test_commands_on_a_collection_of_real_sentences(tmp_path: Path, tiny: SparseStsEncoder) -> None:
    documents = list(read_corpus("sample"))[:90]
    for number, start in enumerate((0, 40)):
        shard = documents[start : (40, 90)[number]]
        SparseStsIndex.build(tmp_path / "parts" / str(number), shard, tiny).close()
    collect(tmp_path / "parts", ["0", "1"])
    SparseStsIndex.build(tmp_path / "whole", documents, tiny).close()
    run = CliRunner().invoke
    merged = run(main, ["merge", str(tmp_path / "merged"), str(tmp_path / "parts")])
    assert merged.exit_code == 0, merged.output
    assert ": 90 sentences in " in merged.output
    outputs = {}
    for name in ("whole", "parts", "merged"):
        searched = ["search", str(tmp_path / name), "a man is playing music", "--format", "jsonl", "--explain"]
        results = [run(main, searched), run(main, ["duplicates", str(tmp_path / name), "--threshold", "0.5"])]
        assert all(result.exit_code == 0 for result in results), results
        outputs[name] = [result.stdout for result in results]
    assert outputs["parts"] == outputs["merged"]
    found = [[json.loads(line)["id"] for line in outputs[name][0].splitlines()] for name in outputs]
    assert found[0] == found[1]
    assert len(found[0]) == 10
    with ImpactIndex.open(tmp_path / "merged") as index, ImpactIndex.open(tmp_path / "whole") as whole:
        varying = ("vectors", "created", "updated", "build_seconds", "max_document_error")
        same = {name: getattr(whole.manifest, name) for name in varying}
        assert dataclasses.replace(index.manifest, **same) == whole.manifest
