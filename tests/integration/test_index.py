from __future__ import annotations

import json
import pickle
import shutil
import signal
import subprocess
import sys
import textwrap
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from sparse_sts_index import (
    DataError,
    Document,
    ImpactIndexError,
    ModelError,
    ModelMismatchError,
    Quantizer,
    SparseStsEncoder,
    SparseStsIndex,
    read_corpus,
)
from sparse_sts_index._utils.files import from_sealed_json
from sparse_sts_index.storage.lucene.writer import ImpactWriter

SMALL = ["A cat sleeps on the mat.", "Stocks fell sharply on Monday.", "A kitten naps on a rug."]


def test_explanations_sum_to_the_score(sample_index: SparseStsIndex) -> None:
    for hits in sample_index.search(["Two girls paint a fence.", "How do I reset my password?"], 5, explain=True):
        for hit in hits:
            assert hit.explanation
            assert sum(term.contribution for term in hit.explanation) == pytest.approx(hit.cosine, abs=1e-12)
            values = [term.contribution for term in hit.explanation]
            assert values == sorted(values, reverse=True)
            assert all(t.contribution == t.query_weight * t.document_weight > 0 for t in hit.explanation)


def test_a_paraphrase_is_found(sample_index: SparseStsIndex) -> None:
    (hits,) = sample_index.search(["Three girls paint a green fence."], 1)
    assert hits[0].id == "s0770"
    assert hits[0].explanation is None


def test_get_len_and_pairs(sample_index: SparseStsIndex, tiny: SparseStsEncoder) -> None:
    assert len(sample_index) == 1000
    assert sample_index.get("s0770") == Document("s0770", "Three girls are painting a fence green.")
    assert sample_index.get("none") is None
    np.testing.assert_array_equal(sample_index.score_pairs(SMALL, SMALL[::-1]), tiny.score_pairs(SMALL, SMALL[::-1]))


def test_manifest(sample_index: SparseStsIndex, tiny: SparseStsEncoder) -> None:
    manifest = sample_index.manifest
    assert (manifest.documents, manifest.empty_documents, manifest.bits) == (1000, 0, 8)
    assert (manifest.model, manifest.model_fingerprint) == ("tiny", tiny.fingerprint)
    assert manifest.software["lucene"].startswith(("9.", "10."))
    copy = (sample_index.path / "manifest.json").read_text(encoding="utf-8")
    assert from_sealed_json(copy) == json.loads(manifest.to_json())
    vectors = tiny.encode([document.text for document in read_corpus("sample")])
    assert manifest.postings == Quantizer().quantize(vectors).nnz
    assert manifest.max_document_error == pytest.approx(Quantizer().errors(vectors).max(), rel=1e-3)


def test_empty_sentences_and_queries_without_terms_keep_their_place(tmp_path: Path) -> None:
    """The real model with its output bias lowered until no term is active."""
    import torch

    encoder = SparseStsEncoder.load("tiny")
    with torch.no_grad():
        encoder.model.transformers_model.cls.predictions.bias -= 1000
    with SparseStsIndex.build(tmp_path / "index", SMALL, encoder) as index:
        assert (len(index), index.manifest.empty_documents, index.manifest.postings) == (3, 3, 0)
        assert index.get("2") == Document("2", SMALL[1])
        (hits,) = index.search(["A cat"], 3)
        assert (len(hits), hits.certified, hits.bound) == (0, True, 0)
        assert index.score_pairs(["a"], ["a"]).tolist() == [0]


def test_failed_builds_leave_things_as_they_were(tmp_path: Path, tiny: SparseStsEncoder) -> None:
    path = tmp_path / "new" / "index"
    with pytest.raises(DataError, match="duplicate id 'x'"):
        SparseStsIndex.build(path, [Document("x", "a"), Document("x", "b")], tiny)
    with pytest.raises(DataError, match="no documents"):
        SparseStsIndex.build(path, [], tiny)
    assert not (tmp_path / "new").exists()
    path.mkdir(parents=True)  # a folder of the caller's stays
    with pytest.raises(DataError):
        SparseStsIndex.build(path, [], tiny)
    assert list(path.iterdir()) == []

    SparseStsIndex.build(path, SMALL, tiny).close()
    (path / ".manifest.json.123.partial").touch()  # as a killed build might leave it
    with pytest.raises(ImpactIndexError, match="already holds an index"):
        SparseStsIndex.build(path, SMALL, tiny)
    (path / ".manifest.json.123.partial").unlink()
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    with pytest.raises(DataError):
        SparseStsIndex.build(path, [*SMALL, Document("1", "again")], tiny, overwrite=True)
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before

    with SparseStsIndex.build(path, SMALL[:1], tiny, overwrite=True) as index:
        assert len(index) == 1

    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("dear diary")
    with pytest.raises(ImpactIndexError, match="is not an index and not empty"):
        SparseStsIndex.build(tmp_path / "other", SMALL, tiny, overwrite=True)


def test_a_build_beside_another_does_it_no_harm(tmp_path: Path, tiny: SparseStsEncoder) -> None:
    with ImpactWriter(tmp_path / "index" / "lucene") as first:
        with pytest.raises(ImpactIndexError, match="another writer is at this index"):
            SparseStsIndex.build(tmp_path / "index", SMALL, tiny)
        first.commit({"from": "the first"})
    assert list((tmp_path / "index" / "lucene").glob("segments_*"))


def test_what_is_not_an_index(tmp_path: Path, sample_index: SparseStsIndex) -> None:
    with pytest.raises(ImpactIndexError, match="no index at"):
        SparseStsIndex.open(tmp_path / "none")
    with pytest.raises(ImpactIndexError, match="not an index"):
        SparseStsIndex.open(tmp_path)
    (tmp_path / "a" / "lucene").mkdir(parents=True)
    with pytest.raises(ImpactIndexError, match="no complete index"):
        SparseStsIndex.open(tmp_path / "a")
    assert not list((tmp_path / "a" / "lucene").iterdir())
    for name, user_data, message in (
        ("foreign", {}, "that sparse-sts did not build"),
        ("newer", {"sparse-sts-manifest": '{"format_version": 99}'}, "the index has format version 99"),
        ("broken", {"sparse-sts-manifest": "{"}, "manifest cannot be read"),
        ("short", {"sparse-sts-manifest": '{"format_version": 3}'}, "manifest cannot be read"),
    ):
        with ImpactWriter(tmp_path / name / "lucene") as writer:
            writer.commit(user_data)
        with pytest.raises(ImpactIndexError, match=message):
            SparseStsIndex.open(tmp_path / name)


def test_another_model_is_refused_by_name(tmp_path: Path, sample_index: SparseStsIndex, tiny: SparseStsEncoder) -> None:
    tiny.model.save_pretrained(str(tmp_path / "copy"))
    with SparseStsIndex.open(sample_index.path, tmp_path / "copy") as index:  # the same model elsewhere will do
        assert index.search(["fence"], 1)[0]
    other = SparseStsEncoder.load(tmp_path / "copy")
    other.model.max_seq_length = 8
    with SparseStsIndex.open(sample_index.path, other) as index:
        message = f"built with model tiny .{tiny.fingerprint[:12]}., not with .*copy .{other.fingerprint[:12]}"
        with pytest.raises(ModelMismatchError, match=message):
            index.search(["fence"])


def test_a_model_that_has_moved(tmp_path: Path, tiny: SparseStsEncoder) -> None:
    tiny.model.save_pretrained(str(tmp_path / "model"))
    SparseStsIndex.build(tmp_path / "index", SMALL, tmp_path / "model").close()
    shutil.move(tmp_path / "model", tmp_path / "moved")
    with (
        SparseStsIndex.open(tmp_path / "index") as index,
        pytest.raises(ModelError, match="no model folder: .*say where the model is now"),
    ):
        index.search(["cat"])
    with SparseStsIndex.open(tmp_path / "index", tmp_path / "moved") as index:
        assert index.search(["cat"], 1)[0][0].id == "1"


def test_a_folder_called_tiny_does_not_take_the_name(
    tmp_path: Path, tiny: SparseStsEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()
    with SparseStsIndex.build("index", SMALL, tiny) as index:
        assert index.manifest.model == "tiny"


def test_more_hits_than_documents(sample_index: SparseStsIndex) -> None:
    (hits,) = sample_index.search(["a cat"], 2**40)
    assert 1 < len(hits) <= 1000


_KILLED_BUILD = """
    import os, signal, sys
    import numpy as np
    from pathlib import Path
    from scipy.sparse import csr_array
    from sparse_sts_index.storage.lucene.writer import ImpactWriter
    moment, folder = sys.argv[1], Path(sys.argv[2])
    with ImpactWriter(folder) as writer:
        for number in range(20_000):
            ids = [f"{number}-{n}" for n in range(10)]
            writer.add(ids, ids, csr_array(np.eye(10, 12, dtype=np.int32)), tuple("abcdefghijkl"))
            if moment == "adding" and number == 2000:
                os.kill(os.getpid(), signal.SIGKILL)
            if number == 4000:
                break
        if moment == "before the commit":
            writer._writer.forceMerge(1)
            writer._writer.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        if moment == "preparing the commit":
            writer._writer.prepareCommit()
            os.kill(os.getpid(), signal.SIGKILL)
        writer.commit({})
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["adding", "before the commit", "preparing the commit", "after the commit"])
def test_kill_9_at_any_moment(tmp_path: Path, tiny: SparseStsEncoder, moment: str) -> None:
    """A killed build leaves no index, or the one before; a killed overwrite the old one; and the next build works."""
    fresh, old = tmp_path / "fresh", tmp_path / "old"
    SparseStsIndex.build(old, SMALL, tiny).close()
    for folder in (fresh, old):
        run = subprocess.run([sys.executable, "-c", textwrap.dedent(_KILLED_BUILD), moment, folder / "lucene"])
        assert run.returncode == -signal.SIGKILL
    if moment == "after the commit":  # Lucene's commit is the moment of truth: here it has no manifest in it
        with pytest.raises(ImpactIndexError, match="did not build"):
            SparseStsIndex.open(old)
        return
    with pytest.raises(ImpactIndexError, match="no complete index"):
        SparseStsIndex.open(fresh)
    with SparseStsIndex.open(old, tiny) as index:
        assert len(index) == 3
        assert index.search(["cat"], 1)[0][0].id == "1"
    SparseStsIndex.build(fresh, SMALL, tiny).close()
    with SparseStsIndex.open(fresh) as index:
        assert len(index) == 3
    assert sum(file.stat().st_size for file in fresh.rglob("*") if file.is_file()) < 500_000  # no litter is left


def test_manifest_json_is_a_copy(tmp_path: Path, tiny: SparseStsEncoder) -> None:
    """The manifest in the Lucene commit is the one that counts, so a crash between the two writes does no harm."""
    SparseStsIndex.build(tmp_path / "index", SMALL, tiny).close()
    manifest = tmp_path / "index" / "manifest.json"
    assert json.loads(manifest.read_text())["documents"] == 3
    manifest.unlink()
    with SparseStsIndex.open(tmp_path / "index") as index:
        assert index.manifest.documents == 3


def test_pickling_an_index_says_what_to_do(sample_index: SparseStsIndex) -> None:
    with pytest.raises(TypeError, match="an open index cannot be pickled: send its path"):
        pickle.dumps(sample_index)


def test_threads_load_one_model(sample_index: SparseStsIndex) -> None:
    with SparseStsIndex.open(sample_index.path) as index, ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: index.search(["A cat."], 3), range(4)))
        assert found == [index.search(["A cat."], 3)] * 4


@pytest.mark.parametrize("change", ["delete", "refresh", "compact", "close"])
def test_an_index_in_memory_goes_with_its_snapshot(tmp_path: Path, tiny: SparseStsEncoder, change: str) -> None:
    """Or with the first search after it, which takes over what has not changed."""
    SparseStsIndex.build(tmp_path / "index", ["A cat.", "A dog.", "A bird."], tiny).close()
    index = SparseStsIndex.open(tmp_path / "index", tiny, in_memory=True, writable=change != "refresh")
    index.search(["cat"])
    with index._vectors.using() as snapshot:
        held = weakref.ref(snapshot.derived["memory_index"])
    if change == "delete":
        index.delete(["1"])
    elif change == "compact":
        index.compact()
    elif change == "refresh":
        with SparseStsIndex.open(tmp_path / "index", tiny, writable=True) as other:
            other.delete(["1"])
        assert index.refresh()
    if change in ("delete", "refresh"):
        assert held() is not None
        assert sorted(hit.id for hit in index.search(["A cat."], 3)[0]) == ["2", "3"]
    if change == "close":
        index.close()
    assert held() is None
    index.close()


def test_vectors_are_searched_without_torch(sample_index: SparseStsIndex) -> None:
    code = (
        "import sys\n"
        "from sparse_sts_index import SparseStsIndex\n"
        "from sparse_sts_index.server import service\n"
        "from sparse_sts_index.evaluation import benchmarking\n"
        "with SparseStsIndex.open(sys.argv[1]) as index:\n"
        "    chunk = next(index.read())\n"
        "    hits = index.search_vectors(chunk.vectors[:3], 1, explain=True)\n"
        "    assert [found[0].id for found in hits] == [document.id for document in chunk.documents[:3]]\n"
        "    assert not {'torch', 'transformers', 'sentence_transformers', 'numba'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code, sample_index.path], check=True)
