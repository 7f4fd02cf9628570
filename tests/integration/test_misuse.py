"""The library called as people call it: with tables, arrays, generators, one string, several threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array

from sparse_sts_index import (
    DataError,
    Document,
    ImpactIndexError,
    ModelError,
    ModelMismatchError,
    Pairs,
    SparseStsEncoder,
    SparseStsIndex,
    evaluate,
)
from sparse_sts_index.evaluation.correlation import correlation

TEXTS = ["A cat sleeps.", "A dog runs."]


@pytest.fixture(scope="module")
def small(tiny: SparseStsEncoder, tmp_path_factory: pytest.TempPathFactory) -> SparseStsIndex:
    return SparseStsIndex.build(tmp_path_factory.mktemp("small") / "index", TEXTS, tiny)


KINDS: dict[str, Callable[[list[str]], Any]] = {
    "list": list,
    "tuple": tuple,
    "generator": iter,
    "dictionary keys": lambda values: dict.fromkeys(values).keys(),
    "numpy strings": np.array,
    "numpy objects": lambda values: np.array(values, dtype=object),
    "pandas series": pd.Series,
    "pandas series with another index": lambda values: pd.Series(values, index=[7, 3]),
    "pandas strings": lambda values: pd.Series(values, dtype="string"),
    "pandas index": pd.Index,
}


@pytest.mark.parametrize("kind", KINDS)
def test_texts_and_ids_in_any_container(
    small: SparseStsIndex, tiny: SparseStsEncoder, tmp_path: Path, kind: str
) -> None:
    make = KINDS[kind]
    expected = tiny.encode(TEXTS)
    assert abs(tiny.encode(make(TEXTS)) - expected).max() == 0
    assert tiny.score_pairs(make(TEXTS), make(TEXTS)) == pytest.approx([1, 1])
    assert [hits[0].id for hits in small.search(make(TEXTS), 1)] == ["1", "2"]
    assert small.get_many(make(["2", "none"])) == [Document("2", TEXTS[1]), None]
    assert len(tiny.trace(make(TEXTS))) == 2
    with SparseStsIndex.build(tmp_path / "index", make(TEXTS), tiny) as built:
        assert [hits[0].id for hits in built.search(TEXTS, 1)] == ["1", "2"]
    with SparseStsIndex.open(tmp_path / "index", tiny, writable=True) as opened:
        assert opened.delete(make(["1", "none"])) == 1
        ids, texts = make(["a", "b"]), make(TEXTS)
        opened.add(Document(doc_id, text) for doc_id, text in zip(ids, texts, strict=True))
        assert [type(document.id) for document in opened.get_many(["a", "b"]) if document] == [str, str]


@pytest.mark.parametrize("value", [None, float("nan"), 3, b"a", ("a", "b"), ["a"], np.array(["a"]), Document("1", "a")])
def test_what_is_no_text_is_named(small: SparseStsIndex, tiny: SparseStsEncoder, tmp_path: Path, value: Any) -> None:
    name = type(value).__name__
    for call in (tiny.encode, tiny.trace, small.search, lambda texts: tiny.score_pairs(texts, texts)):
        with pytest.raises(ValueError, match=f"^sentence 2 must be a string, not {name}$"):
            call(["a cat", value])
    with pytest.raises(ValueError, match=f"^id 2 must be a string, not {name}$"):
        small.get_many(["1", value])
    for arguments in ((value, "a"), ("1", value)):
        with pytest.raises(ValueError, match=f"must be a string, not {name}$"):
            Document(*arguments)
    if not isinstance(value, Document):
        with pytest.raises(ValueError, match=f"^document 2 must be a Document or a string, not {name}$"):
            SparseStsIndex.build(tmp_path / "index", ["a", value], tiny)
        assert not (tmp_path / "index").exists()


@pytest.mark.parametrize("value", ["A cat", b"A cat", 3, None])
def test_one_where_several_are_expected(
    small: SparseStsIndex, tiny: SparseStsEncoder, tmp_path: Path, value: Any
) -> None:
    kind = "string" if isinstance(value, str) else type(value).__name__
    for call in (tiny.encode, tiny.trace, small.search, small.get_many):
        with pytest.raises(ValueError, match=f"^expected a sequence of (sentences|ids), not one {kind}$"):
            call(value)
    with pytest.raises(ValueError, match="^expected a sequence of documents, not one "):
        SparseStsIndex.build(tmp_path / "index", value if not isinstance(value, bytes) else "x", tiny)
    with pytest.raises(ValueError, match="^expected a sequence of sentences, not a table"):
        tiny.encode(pd.DataFrame({"text": TEXTS}))
    for table in (pd.DataFrame({"text": TEXTS}), {"q1": TEXTS[0]}, np.array([TEXTS])):
        with pytest.raises(ValueError, match="^expected a sequence of documents, not a table"):
            SparseStsIndex.build(tmp_path / "index", table, tiny)


def test_documents_to_change(tiny: SparseStsEncoder, tmp_path: Path) -> None:
    SparseStsIndex.build(tmp_path / "index", TEXTS, tiny).close()
    with SparseStsIndex.open(tmp_path / "index", tiny, writable=True) as opened:
        for change in (opened.add, opened.update, lambda some: opened.write_vectors(some, tiny.encode(["a"]))):
            with pytest.raises(ValueError, match="^document 1 must be a Document, not str"):
                change(["a red cat"])
            with pytest.raises(ValueError, match="^expected a sequence of documents, not one Document$"):
                change(Document("1", "a"))
        assert len(opened) == 2
    with pytest.raises(ImpactIndexError, match="is closed$"):
        opened.add([])


@pytest.mark.parametrize("factor", [0.5, 1.001, 5])
def test_vectors_have_unit_length(tiny: SparseStsEncoder, tmp_path: Path, factor: float) -> None:
    SparseStsIndex.build(tmp_path / "index", TEXTS, tiny).close()
    vectors = tiny.encode(TEXTS)
    with SparseStsIndex.open(tmp_path / "index", tiny, writable=True) as opened:
        with pytest.raises(ValueError, match="must be L2-normalised .*; row 0 has length "):
            opened.search_vectors(vectors * factor)
        with pytest.raises(ValueError, match="must be L2-normalised .*; row 0 has length "):
            opened.write_vectors([Document("a", "a"), Document("b", "b")], vectors * factor)
        with pytest.raises(ValueError, match="must be a csr_array, not ndarray"):
            opened.search_vectors(vectors.toarray())
        assert opened.search_vectors(csr_array(vectors.shape, dtype=np.float32))[0].certified  # empty ones are fine
        assert opened.search_vectors(vectors.tocoo(), 1)[0][0].id == "1"


def test_threads_change_one_index(tiny: SparseStsEncoder, tmp_path: Path) -> None:
    """Each change is whole, none is lost, and the index opens again."""
    SparseStsIndex.build(tmp_path / "index", TEXTS, tiny).close()
    vectors = tiny.encode(["a threaded cat"])
    with SparseStsIndex.open(tmp_path / "index", tiny, writable=True) as opened, ThreadPoolExecutor(4) as pool:
        added = [pool.submit(opened.write_vectors, [Document(f"t{n}", "a threaded cat")], vectors) for n in range(24)]
        deleted = pool.submit(opened.delete, ["1"])
        searched = [pool.submit(opened.search_vectors, vectors, 3) for _ in range(8)]
        pool.submit(opened.compact).result()
        assert [future.result() for future in added] == [0] * 24
        assert deleted.result() == 1
        assert all(future.result()[0].certified for future in searched)
    with SparseStsIndex.open(tmp_path / "index", tiny) as again:
        assert len(again) == again.verify() == 25
        assert again.get("t23") is not None


def test_a_change_may_read_its_own_index(tiny: SparseStsEncoder, tmp_path: Path) -> None:
    SparseStsIndex.build(tmp_path / "index", TEXTS, tiny).close()

    def upper_case(ids: list[str]) -> Iterator[Document]:
        for doc_id in ids:
            document = opened.get(doc_id)
            assert document is not None
            yield Document(doc_id, document.text.upper())

    with SparseStsIndex.open(tmp_path / "index", tiny, writable=True) as opened:
        opened.update(upper_case(["1", "2"]))
        assert opened.get("2") == Document("2", "A DOG RUNS.")


@pytest.mark.parametrize("change", ["add", "update", "delete", "commit", "compact", "close"])
def test_a_change_within_a_change_is_refused(tiny: SparseStsEncoder, tmp_path: Path, change: str) -> None:
    """All of the outer one is dropped; the index is as it was, and takes the next change."""
    SparseStsIndex.build(tmp_path / "index", TEXTS, tiny).close()
    arguments: dict[str, Any] = {"add": [[Document("x", "x")]], "update": [[Document("1", "x")]], "delete": [["1"]]}

    def documents() -> Iterator[Document]:
        yield Document("new", "A new one.")
        getattr(opened, change)(*arguments.get(change, []))

    with SparseStsIndex.open(tmp_path / "index", tiny, writable=True) as opened:
        with pytest.raises(ImpactIndexError, match="a change is being made; make the next one, or"):
            opened.add(documents())
        opened.add([Document("after", "An other one.")])
    with SparseStsIndex.open(tmp_path / "index", tiny) as again:
        assert again.verify() == 3
        assert [document is None for document in again.get_many(["1", "2", "new", "after"])] == [0, 0, 1, 0]


def test_close_waits_for_a_change(tiny: SparseStsEncoder, tmp_path: Path) -> None:
    SparseStsIndex.build(tmp_path / "index", TEXTS, tiny).close()
    opened = SparseStsIndex.open(tmp_path / "index", tiny, writable=True)
    begun, go_on = threading.Event(), threading.Event()

    def documents() -> Any:
        begun.set()
        go_on.wait(60)
        yield Document("new", "A new one.")

    with ThreadPoolExecutor(2) as pool:
        change = pool.submit(opened.add, documents())
        assert begun.wait(60)
        closed = pool.submit(opened.close)
        go_on.set()
        change.result()
        closed.result()
    with SparseStsIndex.open(tmp_path / "index", tiny) as again:
        assert again.get("new") == Document("new", "A new one.")


def test_a_model_that_moved(tiny: SparseStsEncoder, tmp_path: Path) -> None:
    for name in ("model", "other"):
        tiny.model.save_pretrained(str(tmp_path / name))
    other = SparseStsEncoder.load(tmp_path / "other")
    other.model.max_seq_length = 77
    other.model.save_pretrained(str(tmp_path / "other"))
    SparseStsIndex.build(tmp_path / "index", TEXTS, tmp_path / "model").close()
    (tmp_path / "model").rename(tmp_path / "moved")
    with SparseStsIndex.open(tmp_path / "index") as index, pytest.raises(ModelError, match="sparse-sts relocate"):
        index.search(["a cat"])
    with SparseStsIndex.open(tmp_path / "index", writable=True) as index:
        with pytest.raises(ModelMismatchError, match="was built with model"):
            index.relocate(tmp_path / "other")
        with pytest.raises(ModelError, match="no model folder"):
            index.relocate(tmp_path / "model")
        index.relocate(tmp_path / "moved")
        assert index.search(["a cat"], 1)[0][0].id == "1"
    with SparseStsIndex.open(tmp_path / "index") as index:
        assert index.manifest.model == str(tmp_path / "moved")
        assert index.search(["a cat"], 1)[0][0].id == "1"
        assert index.verify() == 2
        with pytest.raises(ImpactIndexError, match="was not opened to be changed"):
            index.relocate(tmp_path / "moved")


def test_cosines_that_differ_by_rounding_alone(tiny: SparseStsEncoder) -> None:
    """Pairs of a sentence with itself: their ranks would be noise, of either sign."""
    texts = [f"Sentence number {n} of many." for n in range(30)]
    result = evaluate(tiny, Pairs(texts, texts, np.linspace(0, 1, 30)))
    assert np.isnan([result.cosine.spearman, result.cosine.pearson]).all()
    assert np.isnan(correlation(np.array([0.5, 0.5 + 1e-7]), np.array([0.0, 1.0])).spearman)
    assert correlation(np.array([0.5, 0.50001]), np.array([0.0, 1.0])).spearman == pytest.approx(1)


def test_messages_name_the_pairs(tiny: SparseStsEncoder, tmp_path: Path) -> None:
    from sparse_sts_index import load_pairs

    (tmp_path / "const.csv").write_text("a,b,0.5\nc,d,0.5\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"const.csv: correlation needs pairs with at least two different scores"):
        evaluate(tiny, load_pairs(tmp_path / "const.csv"))
    (tmp_path / "const-dev.csv").write_text("a,b,0.5\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"const-dev.csv: correlation needs"):
        evaluate(tiny, load_pairs(tmp_path, "dev"))
    assert load_pairs("sample", "dev").source.endswith("dev.csv")
