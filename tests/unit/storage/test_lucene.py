from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from scipy.sparse import csr_array

from sparse_sts_index import ImpactIndexError, Vocabulary
from sparse_sts_index.storage.lucene.query import query_terms
from sparse_sts_index.storage.lucene.reader import ImpactReader
from sparse_sts_index.storage.lucene.writer import ImpactWriter

if TYPE_CHECKING:
    from sparse_sts_index import SparseStsEncoder

TERMS = tuple("abcdefghijkl")


def write(folder: Path, impacts: csr_array, ids: list[str], terms: tuple[str, ...] = TERMS, text: str = "") -> None:
    with ImpactWriter(folder) as writer:
        writer.add(ids, [text] * len(ids), impacts, terms)
        writer.commit({"key": "wert ü"})


@contextmanager
def opened(folder: Path) -> Iterator[ImpactReader]:
    reader = ImpactReader(folder)
    try:
        yield reader
    finally:
        reader.close()


def found(reader: ImpactReader, terms: Sequence[str], weights: Sequence[float], k: int) -> list[tuple[int, float]]:
    (matches,) = reader.search_impacts([(terms, weights)], k)
    return list(zip(matches.rows.tolist(), matches.scores.tolist(), strict=True))


def impacts_of(reader: ImpactReader, doc_id: str, terms: Sequence[str]) -> list[float]:
    """Each term's impact in a document, by a query of that term alone."""
    matches = reader.search_impacts([([term], [1]) for term in terms], 1, ids=[doc_id] * len(terms))
    return [match.scores.sum() for match in matches]


ids = st.lists(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5), min_size=1, max_size=9, unique=True
)
matrix = st.lists(st.lists(st.sampled_from([0, 0, 1, 2, 254, 255]), min_size=12, max_size=12), min_size=9, max_size=9)


@given(ids, matrix, st.integers(1, 12))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_search_is_the_integer_dot_product_with_ties_by_row(
    tmp_path: Path, ids: list[str], rows: list[list[int]], k: int
) -> None:
    """Against numpy: every score, the order, the ties, the documents without a term."""
    dense = np.array(rows[: len(ids)])
    impacts = csr_array(dense)
    write(tmp_path, impacts, ids)
    with opened(tmp_path) as reader:
        assert len(reader) == len(ids)
        assert reader.user_data == {"key": "wert ü"}
        for row in range(len(ids)):
            assert reader.find([ids[row], "none of them"]) == [(row, row), None]
            assert impacts_of(reader, ids[row], TERMS) == dense[row].tolist()
            terms, weights = query_terms(impacts, row, TERMS)
            if not terms:
                continue
            scores = (dense @ dense[row]).tolist()
            order = sorted((n for n in range(len(ids)) if scores[n]), key=lambda n: (-scores[n], n))
            assert found(reader, terms, weights, k) == [(n, scores[n]) for n in order[:k]]
            alone = reader.search_impacts([(terms, weights)] * len(ids), 1, ids=ids)
            assert [matches.scores.sum() for matches in alone] == scores
        assert reader.texts(range(len(ids))) == [""] * len(ids)


def test_the_whole_vocabulary_survives(tmp_path: Path, tiny: SparseStsEncoder) -> None:
    """Each of 30,522 terms comes back from Lucene with its own impact, and is found by a query of itself."""
    terms = tiny.vocabulary.terms
    weights = np.arange(1, len(terms) + 1, dtype=np.int32)
    write(tmp_path, csr_array(weights[None, :]), ["all"], terms)
    with opened(tmp_path) as reader:
        assert impacts_of(reader, "all", terms) == weights.tolist()
        assert found(reader, terms, [1] * len(terms), 1) == [(0, pytest.approx(weights.sum(), rel=1e-7))]
        for term_id in range(0, len(terms), 97):
            assert found(reader, [terms[term_id]], [3], 1) == [(0, 3.0 * (term_id + 1))]


def test_an_odd_vocabulary_survives(tmp_path: Path) -> None:
    odd = ["", " ", "a b", "\t", "\n", "\x1c", "\u3000", "\u00a0", "\x00", "\x1f", "\x7f", "\x85", "\ue000", "a\ue0005"]
    odd += ["\ud800", "😀", "東", "##ing", ".", "|", "\\", '"', "a^2", "-a", "*", "[term0]", "x" * 300, None, "a", "A"]
    vocabulary = Vocabulary(odd)
    impacts = csr_array(np.arange(1, len(odd) + 1, dtype=np.int32)[None, :])
    write(tmp_path, impacts, ["odd"], vocabulary.terms)
    with opened(tmp_path) as reader:
        assert impacts_of(reader, "odd", vocabulary.terms) == impacts.data.tolist()


def test_text_and_ids_of_any_kind(tmp_path: Path) -> None:
    text = 'quote " back\\slash \0 \x1b[31m \u2028 日本 😀\r\n\ttab'
    impacts = csr_array(np.zeros((2, 12), dtype=np.int32))
    write(tmp_path, impacts, ["id with space\n", "😀"], text=text)
    with opened(tmp_path) as reader:
        assert reader.texts([1, 0]) == [text, text]
        assert reader.find(["😀", "id", "id with space\n"]) == [(1, 1), None, (0, 0)]
        assert found(reader, ["a"], [1], 5) == []


def test_queries_with_more_terms_than_lucene_allows_by_default(tmp_path: Path) -> None:
    terms = tuple(f"t{i}" for i in range(5000))
    write(tmp_path, csr_array(np.ones((1, 5000), dtype=np.int32)), ["1"], terms)
    with opened(tmp_path) as reader:
        assert found(reader, terms, [2] * 5000, 1) == [(0, 10_000.0)]


def test_nothing_shows_before_the_commit_and_nothing_stays_without_it(tmp_path: Path) -> None:
    one = csr_array(np.eye(1, 12, dtype=np.int32))
    with ImpactWriter(tmp_path) as writer:
        writer.add(["1"], [""], one, TERMS)
        with pytest.raises(ImpactIndexError, match="no complete index"):
            ImpactReader(tmp_path)
    with pytest.raises(ImpactIndexError, match="no complete index"):
        ImpactReader(tmp_path)
    write(tmp_path, one, ["old"])
    with opened(tmp_path) as reader:
        with ImpactWriter(tmp_path) as writer:
            writer.add(["new"], [""], one, TERMS)
            with opened(tmp_path) as other:
                assert other.find(["old"]) == [(0, 0)]
            writer.commit({})
        assert reader.find(["old"]) == [(0, 0)]  # a reader keeps what it opened
    with opened(tmp_path) as reader:
        assert reader.find(["old", "new"]) == [None, (0, 0)]


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    with ImpactWriter(tmp_path), pytest.raises(ImpactIndexError, match="another writer is at this index"):
        ImpactWriter(tmp_path)
    with ImpactWriter(tmp_path):
        pass


def test_a_merge_that_fails_is_told_by_the_error_alone(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Lucene merges in threads of its own, whose failures Java would print."""
    one = csr_array(np.eye(1, 12, dtype=np.int32))
    with ImpactWriter(tmp_path) as writer:
        for number in range(2):
            writer.add([f"identifier-{number}"], [""], one, TERMS)
            writer.commit({})
    (segment,) = tmp_path.glob("_1.cfs")
    content = bytearray(segment.read_bytes())
    content[content.index(b"identifier")] ^= 1
    segment.write_bytes(content)
    with (
        ImpactWriter(tmp_path, create=False) as writer,
        pytest.raises(ImpactIndexError, match="CorruptIndexException: checksum failed"),
    ):
        writer.merge()
    assert capfd.readouterr() == ("", "")


def test_a_damaged_index_is_an_error_not_a_crash(tmp_path: Path) -> None:
    write(tmp_path, csr_array(np.eye(1, 12, dtype=np.int32)), ["1"])
    segments = next(tmp_path.glob("segments_*"))
    segments.write_bytes(segments.read_bytes()[:-7] + b"garbage")
    with pytest.raises(ImpactIndexError, match="Corrupt|checksum"):
        ImpactReader(tmp_path)


def test_threads_do_not_mix_up_their_answers(tmp_path: Path) -> None:
    """Pyjnius alone would: its methods remember the last object they were looked up on."""
    write(tmp_path, csr_array(np.diag(np.arange(1, 13, dtype=np.int32))), list("0123456789AB"))
    wrong: list[object] = []
    with opened(tmp_path) as reader:

        def ask(number: int) -> None:
            for _ in range(60):
                hits = found(reader, [TERMS[number]], [2], 3)
                if hits != [(number, 2.0 * (number + 1))] or reader.find([str(number)]) != [(number, number)]:
                    wrong.append((number, hits))

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_weights_are_exact_in_float32(tmp_path: Path) -> None:
    """What Lucene parses is the weight to within half a unit of its ninth decimal."""
    write(tmp_path, csr_array(np.eye(1, 12, dtype=np.int32) * 255), ["1"])
    with opened(tmp_path) as reader:
        for weight in (1.0, 0.9999999, 0.123456789, 1e-3, 3.1e-8):
            ((_, score),) = found(reader, ["a"], [weight], 1)
            assert score == pytest.approx(255 * weight, abs=255 * 6e-8)


def test_many_queries_at_once_keep_their_order(tmp_path: Path) -> None:
    write(tmp_path, csr_array(np.diag(np.arange(1, 13, dtype=np.int32))), list("0123456789AB"))
    with opened(tmp_path) as reader:
        asked = [([TERMS[n % 12]], [1]) for n in range(500)]
        assert [match.rows.tolist() for match in reader.search_impacts(asked, 3)] == [[n % 12] for n in range(500)]
        assert reader.search_impacts([], 3) == []
        with pytest.raises(ValueError, match="shorter"):
            reader.search_impacts(asked, 1, ids=["0"])
        assert reader.texts([]) == []
