from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SparseEncoder
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sparse_encoder.modules import SpladePooling

from sparse_sts_index import DataError, Document, ModelError, Quantizer, SparseStsEncoder, load_pairs
from sparse_sts_index.encoding import encoder as encoder_module
from sparse_sts_index.encoding.bundled import tiny_folder
from sparse_sts_index.encoding.documents import encode_documents
from sparse_sts_index.encoding.inference_model import InferenceModel
from sparse_sts_index.vectors.quantizer import pairwise_dot

SENTENCES = ["A cat sleeps on the mat.", "", "Quarterly profits rose 12.5 % at Zürich's largest bank 😀.", "a cat"]


def test_vectors_are_those_of_sentence_transformers_normalised(tiny: SparseStsEncoder) -> None:
    expected = SparseEncoder(str(tiny_folder())).encode(SENTENCES, convert_to_sparse_tensor=False)
    expected = torch.nn.functional.normalize(expected).numpy()
    expected[1] = 0  # a blank sentence: sentence-transformers gives it the terms of [CLS] and [SEP]
    vectors = tiny.encode(SENTENCES)
    assert vectors.dtype == np.float32
    assert vectors.has_sorted_indices
    np.testing.assert_allclose(vectors.toarray(), expected, atol=1e-5)


def test_order_and_batching_do_not_matter(tiny: SparseStsEncoder) -> None:
    sentences = load_pairs("sample", "dev").sentence1[:40]
    done: list[int] = []
    together = tiny.encode(sentences, progress=done.append)
    assert sum(done) == 40
    one_by_one = SparseStsEncoder(tiny.model, "tiny", precision="float32", batch_tokens=1)
    alone = one_by_one.encode(sentences[::-1], progress=done.append)[::-1]
    assert done[-40:] == [1] * 40
    np.testing.assert_allclose(together.toarray(), alone.toarray(), atol=1e-5)


def test_no_sentences(tiny: SparseStsEncoder) -> None:
    assert tiny.encode([]).shape == (0, 30522)
    assert tiny.score_pairs([], []).shape == (0,)


def test_score_pairs_is_the_cosine(tiny: SparseStsEncoder) -> None:
    first, second = ["a cat", "a cat"], ["a cat", "stock markets fell"]
    scores = tiny.score_pairs(first, second)
    assert scores[0] == pytest.approx(1, abs=1e-6)
    assert scores[1] < 0.3
    np.testing.assert_allclose(scores, pairwise_dot(tiny.encode(first), tiny.encode(second)), atol=1e-6)
    with pytest.raises(ValueError, match="2 sentences cannot be paired with 1"):
        tiny.score_pairs(first, ["x"])


def test_what_is_not_a_list_of_sentences(tiny: SparseStsEncoder) -> None:
    with pytest.raises(ValueError, match="not one string"):
        tiny.encode("abc")
    with pytest.raises(ValueError, match="not one string"):
        tiny.score_pairs("ab", "cd")
    with pytest.raises(DataError, match="sentence 2: text holds an unpaired surrogate"):
        tiny.encode(["fine", "\udcff"])


def test_fingerprint_follows_the_model_not_its_place(tiny: SparseStsEncoder, tmp_path: Path) -> None:
    tiny.model.save_pretrained(str(tmp_path / "copy"))
    copy = SparseStsEncoder.load(tmp_path / "copy")
    assert copy.fingerprint == tiny.fingerprint
    assert len(tiny.fingerprint) == 64

    shorter = SparseStsEncoder.load(tmp_path / "copy")
    shorter.model.max_seq_length = 64
    assert shorter.fingerprint != tiny.fingerprint

    changed = SparseStsEncoder.load(tmp_path / "copy")
    with torch.no_grad():
        changed.model.transformers_model.cls.predictions.bias[7] += 1e-4
    assert changed.fingerprint != tiny.fingerprint


def test_broken_weights_are_noticed(tmp_path: Path) -> None:
    encoder = SparseStsEncoder.load("tiny")
    with torch.no_grad():
        encoder.model.transformers_model.cls.predictions.bias[7] = torch.inf
    with pytest.raises(ModelError, match="negative or not finite"):
        encoder.encode(["a cat"])


def test_bfloat16_is_near(tiny: SparseStsEncoder) -> None:
    sentences = load_pairs("sample", "test").sentence1
    rounded = SparseStsEncoder(tiny.model, "tiny", precision="bfloat16")
    assert rounded.precision == "bfloat16"
    assert rounded.fingerprint == tiny.fingerprint
    exact, near = tiny.encode(sentences), rounded.encode(sentences)
    assert (exact != near).nnz > 0
    assert pairwise_dot(exact, near).min() > 0.999


def test_auto_precision_follows_what_the_processor_reports(
    tiny: SparseStsEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for flag, precision in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda flag=flag: flag)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
        assert SparseStsEncoder(tiny.model, "tiny").precision == precision
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")  # another version of torch
    assert SparseStsEncoder(tiny.model, "tiny").precision == "float32"
    with pytest.raises(ValueError, match="one of auto, float32, bfloat16, not 'float16'"):
        SparseStsEncoder(tiny.model, "tiny", precision="float16")


def test_what_is_not_fused_is_encoded_as_sentence_transformers_does() -> None:
    transformer = Transformer(str(tiny_folder()), transformer_task="fill-mask")
    model = SparseEncoder(modules=[transformer, SpladePooling(pooling_strategy="sum")])
    sentences = load_pairs("sample", "dev").sentence1
    expected = torch.nn.functional.normalize(model.encode(sentences, convert_to_sparse_tensor=False)).numpy()
    encoder = SparseStsEncoder(model, "sum")
    assert encoder.precision == "float32"
    np.testing.assert_allclose(encoder.encode(sentences).toarray(), expected, atol=1e-6)


def test_another_use_of_the_tokenizer_does_not_matter(tiny: SparseStsEncoder) -> None:
    def documents() -> Iterator[Document]:
        for number in range(3000):
            text = f"{number} " + "word " * (700 if number % 100 == 0 else 3)
            tiny.model.tokenizer([text], truncation=False, padding=False)
            yield Document(str(number), text)

    expected = tiny.encode(["0 " + "word " * 700])
    chunk = next(iter(encode_documents(documents(), tiny, Quantizer())))
    np.testing.assert_allclose(chunk.vectors[[0]].toarray(), expected.toarray(), atol=1e-5)


def test_the_models_own_limit_of_active_dims(tiny: SparseStsEncoder) -> None:
    sentences = load_pairs("sample", "dev").sentence1[:20]
    stock = SparseEncoder(str(tiny_folder()), max_active_dims=5)
    expected = torch.nn.functional.normalize(stock.encode(sentences, convert_to_sparse_tensor=False)).numpy()
    limited = SparseStsEncoder(SparseEncoder(str(tiny_folder()), max_active_dims=5), "tiny", precision="float32")
    found = limited.encode(sentences)
    assert np.diff(found.indptr).max() == 5
    np.testing.assert_allclose(found.toarray(), expected, atol=1e-5)


def test_a_default_prompt_is_put_before_each_sentence(tiny: SparseStsEncoder) -> None:
    prompted = SparseEncoder(str(tiny_folder()), prompts={"sts": "weather: "}, default_prompt_name="sts")
    found = SparseStsEncoder(prompted, "tiny", precision="float32").encode(["a cat"])
    np.testing.assert_allclose(found.toarray(), tiny.encode(["weather: a cat"]).toarray(), atol=1e-6)
    assert found.nnz != tiny.encode(["a cat"]).nnz


def loaded(kind: str) -> SparseStsEncoder:
    """Return the tiny model, read from its files or loaded by sentence-transformers."""
    if kind == "files":
        return SparseStsEncoder.load("tiny", precision="float32", device="cpu")
    return SparseStsEncoder(SparseEncoder(str(tiny_folder()), device="cpu"), "tiny", precision="float32")


@pytest.mark.parametrize("kind", ["files", "sentence-transformers"])
@pytest.mark.parametrize(("usable", "expected"), [(8, 3), (2, 2), (1, 1)])
def test_batches_are_computed_side_by_side(
    kind: str, usable: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sentences = [*load_pairs("sample", "train").sentence1, "", "word " * 600] * 2
    encoder = loaded(kind)
    alone = encoder.encode(sentences)
    seen: set[tuple[int, int]] = set()
    compute = type(encoder._used).term_weights

    def spy(self: Any, batch: Any) -> Any:
        seen.add((threading.get_ident(), torch.get_num_threads()))
        return compute(self, batch)

    monkeypatch.setattr(type(encoder._used), "term_weights", spy)
    monkeypatch.setattr(encoder_module, "cores", lambda: usable)
    before, done = torch.get_num_threads(), list[int]()
    try:
        torch.set_num_threads(3)
        together = encoder.encode(sentences, progress=done.append)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert len({thread for thread, _ in seen}) == expected
    assert {threads for _, threads in seen} == {1}
    assert sum(done) == len(sentences)
    assert abs(together - alone).max() < 2e-6


def test_one_sentence_is_computed_by_all_threads(tiny: SparseStsEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    compute = type(tiny._used).term_weights

    def spy(self: Any, batch: Any) -> Any:
        seen.append(torch.get_num_threads())
        return compute(self, batch)

    monkeypatch.setattr(type(tiny._used), "term_weights", spy)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        for usable, expected in ((8, 3), (2, 2)):
            monkeypatch.setattr(encoder_module, "cores", lambda usable=usable: usable)
            tiny.encode(["a cat"])
            assert seen.pop() == expected
            assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_other_threads_keep_their_number_of_threads(tiny: SparseStsEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    before, found = torch.get_num_threads(), list[int]()
    try:
        torch.set_num_threads(5)
        for usable in (8, 1):
            monkeypatch.setattr(encoder_module, "cores", lambda usable=usable: usable)
            tiny.encode(load_pairs("sample", "train").sentence1)
            thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
            thread.start()
            thread.join()
    finally:
        torch.set_num_threads(before)
    assert found == [5, 5]


def test_an_error_beside_other_batches_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = loaded("files")

    def fail(self: Any, batch: Any) -> Any:
        raise RuntimeError("no")

    monkeypatch.setattr(type(encoder._used), "term_weights", fail)
    before = torch.get_num_threads()
    with pytest.raises(RuntimeError, match="no"):
        encoder.encode(load_pairs("sample", "train").sentence1)
    assert torch.get_num_threads() == before


def test_the_sparse_encoder_is_loaded_when_asked_for() -> None:
    encoder = loaded("files")
    assert isinstance(encoder._used, InferenceModel)
    before, fingerprint = encoder.encode(SENTENCES), encoder.fingerprint
    assert isinstance(encoder.model, SparseEncoder)
    assert not isinstance(encoder._used, InferenceModel)
    assert encoder.fingerprint == fingerprint
    assert abs(encoder.encode(SENTENCES) - before).max() == 0
    with torch.no_grad():
        for parameter in encoder.model.parameters():
            parameter.mul_(1.1)
    assert abs(encoder.encode(SENTENCES) - before).max() > 0.01


def test_a_folder_that_has_changed_is_refused(tiny: SparseStsEncoder, tmp_path: Path) -> None:
    tiny.model.save_pretrained(str(tmp_path / "model"))
    encoder = SparseStsEncoder.load(tmp_path / "model", device="cpu")
    other = SparseEncoder(str(tmp_path / "model"))
    with torch.no_grad():
        other.transformers_model.cls.predictions.bias += 1
    other.save_pretrained(str(tmp_path / "other"))
    shutil.copy(tmp_path / "other" / "model.safetensors", tmp_path / "model" / "new")
    (tmp_path / "model" / "new").rename(tmp_path / "model" / "model.safetensors")
    with pytest.raises(ModelError, match="has changed since it was loaded"):
        _ = encoder.model
