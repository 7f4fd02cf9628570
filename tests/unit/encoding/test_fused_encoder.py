from __future__ import annotations

import copy
import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers import SparseEncoder
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sparse_encoder.modules import SpladePooling
from torch import Tensor, nn
from torch.nn.utils import prune
from transformers import (
    BertConfig,
    BertForMaskedLM,
    CamembertConfig,
    CamembertForMaskedLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
    ElectraConfig,
    ElectraForMaskedLM,
    MPNetConfig,
    MPNetForMaskedLM,
    PreTrainedModel,
    RobertaConfig,
    RobertaForMaskedLM,
    XLMRobertaConfig,
    XLMRobertaForMaskedLM,
)

from sparse_sts_index import load_pairs
from sparse_sts_index.encoding.bundled import tiny_folder
from sparse_sts_index.encoding.fused_encoder import FusedSparseEncoder, fuse, term_weights
from sparse_sts_index.encoding.term_weights import TermWeights

SENTENCES = ["A cat sleeps.", "", "The weather in spring is as changeable as the colours of the woods.", "a cat a cat"]
_NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
_SIZES = _NO_DROPOUT | {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
_COMMON = {"vocab_size": 30522, "max_position_embeddings": 140, "initializer_range": 0.3}
ARCHITECTURES: dict[str, tuple[type[PreTrainedModel], Any]] = {
    "bert": (BertForMaskedLM, BertConfig(**_SIZES, **_COMMON)),
    "untied bert": (BertForMaskedLM, BertConfig(**_SIZES, **_COMMON, tie_word_embeddings=False)),
    "distilbert": (
        DistilBertForMaskedLM,
        DistilBertConfig(dim=48, n_layers=2, n_heads=4, hidden_dim=64, dropout=0.0, attention_dropout=0.0, **_COMMON),
    ),
    "roberta": (RobertaForMaskedLM, RobertaConfig(**_SIZES, **_COMMON, pad_token_id=0)),
    "xlm-roberta": (XLMRobertaForMaskedLM, XLMRobertaConfig(**_SIZES, **_COMMON, pad_token_id=0)),
    "camembert": (CamembertForMaskedLM, CamembertConfig(**_SIZES, **_COMMON, pad_token_id=0)),
    "mpnet": (MPNetForMaskedLM, MPNetConfig(**_SIZES, **_COMMON)),
}


def stock(folder: Path, **pooling: Any) -> SparseEncoder:
    return SparseEncoder(modules=[Transformer(str(folder), transformer_task="fill-mask"), SpladePooling(**pooling)])


def save(folder: Path, architecture: str) -> Path:
    """A random model of some architecture, most of whose terms are inactive, with the tokenizer of the tiny one."""
    torch.manual_seed(0)
    kind, config = ARCHITECTURES[architecture]
    model = kind(copy.deepcopy(config))
    with torch.no_grad():
        model.get_output_embeddings().bias.normal_(mean=-5, std=2)
    model.save_pretrained(folder)
    SparseEncoder(str(tiny_folder())).tokenizer.save_pretrained(folder)
    return folder


def tiny_model() -> SparseEncoder:
    return SparseEncoder(str(tiny_folder()), config_kwargs=_NO_DROPOUT)


def gradients(model: SparseEncoder, features: dict[str, Any]) -> dict[str, Tensor]:
    model.train()  # the stock pooling has no gradient otherwise
    model.zero_grad()
    embedding = model(dict(features))["sentence_embedding"]
    upstream = torch.rand(embedding.shape, generator=torch.Generator().manual_seed(1))
    (embedding * upstream).sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_gradients_close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """To 3e-5 of the largest: a key's bias, say, has a gradient of zero but for rounding."""
    assert found.keys() == expected.keys()
    largest = max(gradient.abs().max().item() for gradient in expected.values())
    for name in expected:
        torch.testing.assert_close(found[name] / largest, expected[name] / largest, atol=3e-5, rtol=0, msg=name)


def assert_same(fused: SparseEncoder, plain: SparseEncoder, sentences: list[str]) -> None:
    features = plain.preprocess(sentences)
    expected = plain(dict(features))["sentence_embedding"]
    assert 0 < expected.count_nonzero() < 0.2 * expected.numel()
    found = fused(dict(features))["sentence_embedding"]
    assert found.dtype == expected.dtype
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)
    torch.testing.assert_close(term_weights(fused, dict(features)).to_dense(), expected, atol=2e-5, rtol=0)
    assert_gradients_close(gradients(fused, features), gradients(plain, features))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("activation", ["relu", "log1p_relu"])
def test_outputs_and_gradients_are_the_stock_ones(architecture: str, activation: str, tmp_path: Path) -> None:
    folder = save(tmp_path, architecture)
    plain = stock(folder, activation_function=activation)
    fused = fuse(stock(folder, activation_function=activation))
    assert isinstance(fused, FusedSparseEncoder)
    assert fused.fused
    assert_same(fused, plain, SENTENCES)


def test_a_real_model_on_real_batches() -> None:
    plain, fused = tiny_model(), fuse(tiny_model())
    pairs = load_pairs("sample", "train")
    for start in (0, 32, 64):
        assert_same(fused, plain, pairs.sentence1[start : start + 32])
    assert_same(fused, plain, pairs.sentence2[:1])


def test_a_sentence_without_a_term(tmp_path: Path) -> None:
    folder = save(tmp_path, "bert")
    plain, fused = stock(folder), fuse(stock(folder))
    for model in (plain, fused):
        with torch.no_grad():
            model.transformers_model.get_output_embeddings().bias.fill_(-1000)
    features = plain.preprocess(SENTENCES)
    assert not plain(dict(features))["sentence_embedding"].any()
    weights = term_weights(fused, dict(features))
    assert weights.values.shape == (0,)
    assert weights.shape == (4, 30522)
    found = gradients(fused, features)
    assert not any(gradient.any() for gradient in found.values())


def test_what_is_saved_is_a_plain_sparse_encoder(tmp_path: Path) -> None:
    fused = fuse(SparseEncoder(str(tiny_folder())))
    expected = fused.encode(SENTENCES, convert_to_sparse_tensor=False)
    fused.save_pretrained(str(tmp_path))
    stock_model = SparseEncoder(str(tiny_folder()))
    stock_model.encode(SENTENCES)
    assert fused.get_embedding_dimension() == stock_model.get_embedding_dimension() == 30522
    stock_model.save_pretrained(str(tmp_path / "stock"))
    for file in (path for path in (tmp_path / "stock").rglob("*") if path.is_file()):
        ours = (tmp_path / file.relative_to(tmp_path / "stock")).read_bytes()
        assert ours == file.read_bytes(), file
    plain = SparseEncoder(str(tmp_path))
    assert type(plain) is SparseEncoder
    torch.testing.assert_close(plain.encode(SENTENCES, convert_to_sparse_tensor=False), expected, atol=1e-5, rtol=0)
    again = fuse(plain).encode(SENTENCES, convert_to_sparse_tensor=False)
    torch.testing.assert_close(again, expected, atol=0, rtol=0)


def test_copies_and_pickles() -> None:
    fused = fuse(SparseEncoder(str(tiny_folder())))
    expected = fused.encode(SENTENCES, convert_to_sparse_tensor=False)
    for other in (copy.deepcopy(fused), pickle.loads(pickle.dumps(fused))):
        assert isinstance(other, FusedSparseEncoder)
        assert torch.equal(other.encode(SENTENCES, convert_to_sparse_tensor=False), expected)


class _Linear(nn.Linear):
    """What an adapter or a quantizer would put in the decoder's place."""


def test_what_cannot_be_fused_is_computed_as_before(tmp_path: Path) -> None:
    folder = save(tmp_path / "bert", "bert")
    torch.manual_seed(0)
    ElectraForMaskedLM(ElectraConfig(**_SIZES, **_COMMON)).save_pretrained(tmp_path / "electra")
    SparseEncoder(str(tiny_folder())).tokenizer.save_pretrained(tmp_path / "electra")

    def adapted() -> SparseEncoder:
        model = stock(folder)
        decoder = model.transformers_model.cls.predictions.decoder
        decoder.__class__ = _Linear
        return model

    for make in (lambda: stock(folder, pooling_strategy="sum"), lambda: stock(tmp_path / "electra"), adapted):
        plain, fused = make().eval(), fuse(make()).eval()
        assert not fused.fused
        features = plain.preprocess(SENTENCES)
        expected = plain(dict(features))["sentence_embedding"]
        assert torch.equal(fused(dict(features))["sentence_embedding"], expected)
        assert torch.equal(term_weights(fused, dict(features)).to_dense(), expected)

    class Own(SparseEncoder):
        def forward(self, input: dict[str, Any]) -> dict[str, Any]:  # and no other argument
            return super().forward(input)

    own = fuse(Own(modules=list(stock(folder).children())).eval())
    assert type(own) is Own
    assert torch.equal(term_weights(own, dict(features)).to_dense(), own(dict(features))["sentence_embedding"])


def test_a_folder_of_an_older_sentence_transformers(tmp_path: Path) -> None:
    SparseEncoder(str(tiny_folder())).save_pretrained(str(tmp_path))
    modules = json.loads((tmp_path / "modules.json").read_text())
    modules[0]["type"] = "sentence_transformers.sparse_encoder.models.MLMTransformer"
    modules[1]["type"] = "sentence_transformers.sparse_encoder.models.SpladePooling"
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    model = fuse(SparseEncoder(str(tmp_path)))
    assert isinstance(model, FusedSparseEncoder)
    assert model.fused


def test_modules_that_somebody_watches_are_called() -> None:
    model = fuse(tiny_model()).eval()
    features = model.preprocess(SENTENCES)
    expected = model(dict(features))["sentence_embedding"]
    decoder = model.transformers_model.get_output_embeddings()
    seen: list[Tensor] = []
    for module in (decoder, model[1]):
        hook = module.register_forward_hook(lambda *arguments: seen.append(arguments[-1]))
        assert not model.fused
        torch.testing.assert_close(model(dict(features))["sentence_embedding"], expected, atol=1e-5, rtol=0)
        hook.remove()
        assert model.fused
    assert len(seen) == 2
    prune.l1_unstructured(decoder, "weight", 0.5)
    for _ in range(2):
        gradients(model, features)


def test_data_parallel_gathers_dense_rows() -> None:
    model = fuse(tiny_model()).eval()
    features = model.preprocess(SENTENCES)
    expected = term_weights(model, dict(features)).to_dense()
    assert torch.equal(term_weights(nn.DataParallel(model), dict(features)).to_dense(), expected)


def test_a_mask_of_floats() -> None:
    model = fuse(tiny_model()).eval()
    features = model.preprocess(SENTENCES)
    expected = model(dict(features))["sentence_embedding"]
    floats = features | {"attention_mask": features["attention_mask"].float()}
    assert torch.equal(model(floats)["sentence_embedding"], expected)


def test_under_autocast_and_in_half_precision(tmp_path: Path) -> None:
    fused = fuse(tiny_model())
    features = fused.preprocess(SENTENCES)
    expected = fused(dict(features))["sentence_embedding"]
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        rounded = fused(dict(features))["sentence_embedding"]
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, expected)
    torch.testing.assert_close(rounded, expected, atol=0.05, rtol=0)
    with torch.autocast("cpu", torch.bfloat16):
        found = gradients(fused, features)
    wanted = gradients(fused, features)
    assert found.keys() == wanted.keys()
    together = (torch.cat([gradient.flatten() for gradient in some.values()]) for some in (found, wanted))
    assert torch.nn.functional.cosine_similarity(*together, dim=0) > 0.95
    half = fuse(tiny_model()).bfloat16()
    found = half(dict(features))["sentence_embedding"]
    assert found.dtype == tiny_model().bfloat16()(dict(features))["sentence_embedding"].dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, atol=0.1, rtol=0)


def test_gradients_accumulate() -> None:
    fused = fuse(tiny_model())
    sentences = load_pairs("sample", "dev").sentence1[:8]

    def accumulate(batches: list[list[str]]) -> dict[str, Tensor]:
        fused.zero_grad()
        for batch in batches:
            fused(fused.preprocess(batch))["sentence_embedding"].square().sum().backward()
        return {name: p.grad.clone() for name, p in fused.named_parameters() if p.grad is not None}

    assert_gradients_close(accumulate([sentences[:3], sentences[3:]]), accumulate([sentences]))


def _distributed(rank: int, rendezvous: str, sentences: list[str], output: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    fused = fuse(tiny_model())
    wrapped = nn.parallel.DistributedDataParallel(fused)
    features = fused.preprocess(sentences[rank::2])
    term_weights(wrapped, features).values.square().sum().backward()
    if rank == 0:
        torch.save({name: p.grad for name, p in fused.named_parameters() if p.grad is not None}, output)
    torch.distributed.barrier()
    os._exit(0)  # torch may wait for ever, holding Python's lock, for a thread of the group's that waits for that lock


def test_distributed_training_sees_the_mean_of_the_gradients(tmp_path: Path) -> None:
    sentences = load_pairs("sample", "dev").sentence1[:8]
    arguments = (str(tmp_path / "rendezvous"), sentences, str(tmp_path / "gradients.pt"))
    torch.multiprocessing.spawn(_distributed, arguments, nprocs=2)
    found = torch.load(tmp_path / "gradients.pt", weights_only=True)
    fused = fuse(tiny_model())
    fused(fused.preprocess(sentences))["sentence_embedding"].square().sum().backward()
    expected = {name: p.grad / 2 for name, p in fused.named_parameters() if p.grad is not None}
    assert_gradients_close(found, expected)


def test_term_weights_from_dense_and_back() -> None:
    dense = torch.tensor([[0.0, 2.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, 3.0]], requires_grad=True)
    weights = TermWeights.from_dense(dense)
    assert weights.rows.tolist() == [0, 2, 2]
    assert weights.terms.tolist() == [1, 0, 2]
    assert torch.equal(weights.to_dense(), dense)
    weights.values.sum().backward()
    assert dense.grad is not None
    assert torch.equal(dense.grad, (dense != 0).float())
