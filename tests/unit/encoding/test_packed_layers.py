"""Packed layers, against the modules of transformers that hold the weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers import SparseEncoder
from torch import Tensor, nn
from transformers import BertConfig, BertForMaskedLM, PreTrainedModel

from sparse_sts_index import SparseStsEncoder, load_pairs
from sparse_sts_index.encoding import packed_layers
from sparse_sts_index.encoding.bundled import tiny_folder
from sparse_sts_index.encoding.fused_encoder import _TRANSFORMS, FusedSparseEncoder, fuse, term_weights
from sparse_sts_index.encoding.packed_layers import PackedLayers, packs, supports
from tests.unit.encoding.test_fused_encoder import ARCHITECTURES, SENTENCES, save, stock

DTYPES = [torch.float32, torch.bfloat16]
LENGTHS = [1, 3, 3, 7, 120, 5, 0, 1]


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode(False), torch.no_grad():
        yield


def model_of(architecture: str) -> tuple[PreTrainedModel, dict[str, Any], dict[str, Tensor]]:
    torch.manual_seed(0)
    kind, config = ARCHITECTURES[architecture]
    model = kind(copy.deepcopy(config)).eval()
    return model, config.to_dict(), dict(model.named_parameters(remove_duplicate=False))


def by_modules(model: Any, tokens: Tensor, lengths: list[int]) -> Tensor:
    rows = [model.base_model(ids.unsqueeze(0))[0][0] for ids in torch.split(tokens, lengths) if len(ids)]
    return _TRANSFORMS[type(model)](model, torch.cat(rows))


def tokens_of(lengths: list[int]) -> Tensor:
    tokens = torch.randint(2, 30522, (sum(lengths),), generator=torch.Generator().manual_seed(1))
    tokens[5], tokens[9] = 0, 1  # what pads RoBERTa here, and MPNet, within a sentence
    return tokens


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_layers_are_those_of_the_modules(architecture: str, dtype: torch.dtype) -> None:
    model, config, weights = model_of(architecture)
    assert supports(config["model_type"], config, weights)
    tokens = tokens_of(LENGTHS)
    expected = by_modules(model, tokens, LENGTHS)
    found = PackedLayers(config["model_type"], config, weights, dtype)(tokens, LENGTHS)
    assert found.dtype == torch.float32
    if dtype == torch.float32:
        torch.testing.assert_close(found, expected, atol=3e-5, rtol=3e-5)
    else:
        assert float(torch.cosine_similarity(found, expected).min()) > 0.99


@pytest.mark.parametrize("dtype", DTYPES)
def test_layers_without_onednn_are_the_same(dtype: torch.dtype) -> None:
    _, config, weights = model_of("bert")
    assert packs(torch.float32)
    packed = PackedLayers("bert", config, weights, dtype)
    with torch.backends.mkldnn.flags(enabled=False):
        assert not packs(dtype)
        plain = PackedLayers("bert", config, weights, dtype)
        found = plain(tokens_of(LENGTHS), LENGTHS)
    expected = packed(tokens_of(LENGTHS), LENGTHS)
    if dtype == torch.float32:
        torch.testing.assert_close(found, expected, atol=3e-5, rtol=3e-5)
    else:
        assert float(torch.cosine_similarity(found, expected).min()) > 0.99


def test_the_transform_is_in_float32_under_autocast() -> None:
    _, config, weights = model_of("bert")
    with torch.autocast("cpu", torch.bfloat16), torch.backends.mkldnn.flags(enabled=False):
        found = PackedLayers("bert", config, weights, torch.float32)(tokens_of(LENGTHS), LENGTHS)
    expected = PackedLayers("bert", config, weights, torch.float32)(tokens_of(LENGTHS), LENGTHS)
    torch.testing.assert_close(found, expected, atol=3e-5, rtol=3e-5)


def test_attention_of_one_long_sentence_holds_few_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    model, config, weights = model_of("bert")
    monkeypatch.setattr(packed_layers, "_MOST_SCORES", 100)
    tokens = tokens_of([130])
    found = PackedLayers("bert", config, weights, torch.bfloat16)(tokens, [130])
    assert float(torch.cosine_similarity(found, by_modules(model, tokens, [130])).min()) > 0.99


@pytest.mark.parametrize("dtype", DTYPES)
def test_attention_of_long_and_many_sentences(dtype: torch.dtype) -> None:
    model, config, weights = model_of("mpnet")
    lengths = [130, 130, 9, 9, 9, 9, 9, 9, 9, 9]
    tokens = tokens_of(lengths)
    found = PackedLayers("mpnet", config, weights, dtype)(tokens, lengths)
    assert float(torch.cosine_similarity(found, by_modules(model, tokens, lengths)).min()) > 0.99


def test_no_tokens_give_no_rows() -> None:
    _, config, weights = model_of("bert")
    assert PackedLayers("bert", config, weights, torch.float32)(torch.empty(0, dtype=torch.int64), [0]).shape == (0, 48)


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_act": "gelu_new"},
        {"is_decoder": True},
        {"position_embedding_type": "relative_key"},
        {"num_hidden_layers": 3},
    ],
)
def test_other_settings_are_not_supported(change: dict[str, Any]) -> None:
    _, config, weights = model_of("bert")
    assert supports("bert", config, weights)
    assert not supports("bert", config | change, weights)
    assert not supports("electra", config, weights)


def test_other_parameters_are_not_supported() -> None:
    _, config, weights = model_of("bert")
    name = "bert.encoder.layer.1.output.dense.weight"
    with torch.inference_mode():
        inference = weights[name].clone()
    for weight in (weights[name].double(), weights[name].to("meta"), weights[name].T.contiguous().T, inference):
        assert not supports("bert", config, weights | {name: weight})
    assert not supports("bert", config, weights | {"bert.lora_A": weights[name]})


def test_relu_is_supported() -> None:
    torch.manual_seed(0)
    config = BertConfig(**(ARCHITECTURES["bert"][1].to_dict() | {"hidden_act": "relu"}))
    model = BertForMaskedLM(config).eval()
    weights = dict(model.named_parameters(remove_duplicate=False))
    assert supports("bert", config.to_dict(), weights)
    found = PackedLayers("bert", config.to_dict(), weights, torch.float32)(tokens_of(LENGTHS), LENGTHS)
    torch.testing.assert_close(found, by_modules(model, tokens_of(LENGTHS), LENGTHS), atol=3e-5, rtol=3e-5)


# --- within a fused encoder


def features_of(model: SparseEncoder, sentences: list[str]) -> dict[str, Any]:
    return {name: value for name, value in model.preprocess(sentences).items() if isinstance(value, Tensor)}


def assert_follows(model: SparseEncoder) -> None:
    """Check that the packed layers give what the modules give now."""
    features = features_of(model, SENTENCES)
    with torch.enable_grad():
        expected = term_weights(model, dict(features)).to_dense().detach()
    assert expected.count_nonzero() > 0
    found = term_weights(model, dict(features)).to_dense()
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=2e-5)


def layers_of(model: SparseEncoder) -> PackedLayers | None:
    assert isinstance(model, FusedSparseEncoder)
    assert model.fused
    prepared = model._prepare()
    return None if prepared is None else prepared[0]


def optimizer_step(model: SparseEncoder) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, fused=True)
    with torch.enable_grad():
        term_weights(model, features_of(model, SENTENCES)).values.sum().backward()
    optimizer.step()


def load_state(model: SparseEncoder, assign: bool) -> None:
    state = {name: value.clone() for name, value in model.state_dict().items()}
    for name, value in state.items():
        if "layer.1" in name and name.endswith("dense.weight"):
            value.mul_(1.5)
    model.load_state_dict(state, assign=assign)


def replace_module(model: SparseEncoder) -> None:
    layer: Any = model.transformers_model.bert.encoder.layer[0].output  # type: ignore[union-attr]
    layer.dense = copy.deepcopy(layer.dense)
    layer.dense.weight.mul_(-1)


def edit(model: SparseEncoder) -> None:
    model.transformers_model.bert.encoder.layer[1].attention.self.value.bias[3] += 5  # type: ignore[union-attr]


def edit_data(model: SparseEncoder) -> None:
    for parameter in model.parameters():
        parameter.data.mul_(1.01)


CHANGES: dict[str, Callable[[SparseEncoder], object]] = {
    "optimizer step": optimizer_step,
    "load_state_dict": lambda model: load_state(model, assign=False),
    "load_state_dict, assigned": lambda model: load_state(model, assign=True),
    "to and back": lambda model: model.to(torch.float64).to(torch.float32),
    "in place": edit,
    "through .data": edit_data,
    "another module": replace_module,
}


@pytest.mark.parametrize("change", CHANGES)
def test_prepared_weights_follow_a_change(change: str, tmp_path: Path) -> None:
    model = fuse(stock(save(tmp_path, "bert"))).eval()
    before = layers_of(model)
    assert before is not None
    assert layers_of(model) is before
    assert_follows(model)
    CHANGES[change](model)
    assert layers_of(model) is not before
    assert_follows(model)


def test_packed_tokens_need_the_fused_head() -> None:
    model = fuse(SparseEncoder(str(tiny_folder())))
    model[1].pooling_strategy = "sum"
    assert isinstance(model, FusedSparseEncoder)
    with pytest.raises(ValueError, match="need the fused head"):
        model.encode_tokens(torch.tensor([101, 102]), [2])


def test_modules_are_called_where_they_must_be(tmp_path: Path) -> None:
    model = fuse(stock(save(tmp_path, "bert"))).eval()
    bert: Any = model.transformers_model
    assert layers_of(model) is not None
    with torch.enable_grad():
        assert layers_of(model) is None
    with torch.autocast("cpu", torch.float16):
        assert layers_of(model) is None
    with torch.autocast("cpu", torch.bfloat16):
        assert layers_of(model).dtype == torch.bfloat16  # type: ignore[union-attr]
    bert.bert.encoder.layer[0].train()
    assert layers_of(model) is None
    model.eval()
    assert layers_of(model) is not None
    calls = []
    hook = bert.bert.encoder.layer[0].register_forward_hook(lambda *_: calls.append(1))
    assert_follows(model)
    assert len(calls) == 2
    hook.remove()
    assert layers_of(model) is not None
    model.to(torch.float64)
    assert layers_of(model) is None


def test_training_without_dropout_calls_no_modules(tmp_path: Path) -> None:
    model = fuse(stock(save(tmp_path, "bert"))).train()
    bert: Any = model.transformers_model
    with torch.enable_grad():
        assert layers_of(model) is not None
        assert layers_of(model) is not layers_of(model), "weights change with every step"
        bert.bert.encoder.layer[0].output.dropout.p = 0.1
        assert layers_of(model) is None
    assert layers_of(model.eval()) is not None


def test_dropout_changes_no_vector(tmp_path: Path) -> None:
    model = fuse(stock(save(tmp_path, "bert"))).eval()
    bert: Any = model.transformers_model
    bert.bert.encoder.layer[0].output.dropout.p = 0.1
    assert layers_of(model) is not None
    assert_follows(model)


@pytest.mark.parametrize("architecture", ["bert", "roberta", "mpnet"])
def test_features_that_are_not_plain(architecture: str, tmp_path: Path) -> None:
    model = fuse(stock(save(tmp_path, architecture))).eval()
    features = features_of(model, SENTENCES)
    mask = features["attention_mask"]
    for change in (
        {},
        {"attention_mask": mask.flip(1), "input_ids": features["input_ids"].flip(1)},  # padded on the left
        {"attention_mask": torch.ones_like(mask)},
        {"attention_mask": mask * (torch.arange(mask.shape[1]) != 2)},  # a hole
        {"token_type_ids": torch.ones_like(mask)} if architecture == "bert" else {},
        {"position_ids": torch.arange(mask.shape[1]).flip(0).expand_as(mask)},
    ):
        with torch.enable_grad():
            expected = term_weights(model, features | change)
        found = term_weights(model, features | change)
        torch.testing.assert_close(found.to_dense(), expected.to_dense().detach(), atol=2e-5, rtol=2e-5)
        assert found.positions is not None
        assert expected.positions is not None
        assert torch.equal(found.positions, expected.positions)


def test_sentences_in_any_order(tmp_path: Path) -> None:
    model = fuse(stock(save(tmp_path, "bert"))).eval()
    sentences = [*SENTENCES, *load_pairs("sample", "dev").sentence1[:20]]
    features = features_of(model, sentences)
    with torch.enable_grad():
        expected = term_weights(model, dict(features)).to_dense().detach()
    torch.testing.assert_close(term_weights(model, dict(features)).to_dense(), expected, atol=2e-5, rtol=2e-5)


def test_vectors_are_those_of_the_modules(tiny: SparseStsEncoder) -> None:
    sentences = list(dict.fromkeys(load_pairs("sample", "dev").sentence1))
    encoder = SparseStsEncoder(SparseEncoder(str(tiny_folder())), "tiny", precision="float32")
    found = encoder.encode(sentences)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FusedSparseEncoder, "_prepare", lambda self: None)
        expected = encoder.encode(sentences)
    assert abs(found - expected).max() < 2e-6
    assert found.nnz > 10 * len(sentences)


def test_a_gpu_gets_padded_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    model = fuse(SparseEncoder(str(tiny_folder()))).eval()
    assert isinstance(model, FusedSparseEncoder)
    ids, lengths = torch.tensor([101, 4937, 5999, 102, 101, 4937, 102]), [4, 3]
    packed = model.encode_tokens(ids, lengths)
    monkeypatch.setattr(FusedSparseEncoder, "_prepare", lambda self: None)
    padded = model.encode_tokens(ids, lengths)
    torch.testing.assert_close(packed.values, padded.values, atol=1e-5, rtol=1e-5)
    for name in ("rows", "terms", "positions"):
        assert torch.equal(getattr(packed, name), getattr(padded, name))
    assert packed.shape == padded.shape == (2, 30522)


class DoubledLinear(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


class DoubledNorm(nn.LayerNorm):
    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


def other_class(module: nn.Module, kind: type[nn.Module]) -> None:
    module.__class__ = kind


EDITS: dict[str, Callable[[Any], object]] = {
    "a subclass of Linear": lambda layer: other_class(layer.output.dense, DoubledLinear),
    "a subclass of LayerNorm": lambda layer: other_class(layer.output.LayerNorm, DoubledNorm),
    "an epsilon": lambda layer: setattr(layer.output.LayerNorm, "eps", 0.5),
    "an activation": lambda layer: setattr(layer.intermediate, "intermediate_act_fn", nn.ReLU()),
    "a scale": lambda layer: setattr(layer.attention.self, "scaling", 3.0),
    "the number of heads": lambda layer: (
        setattr(layer.attention.self, "num_attention_heads", 2),
        setattr(layer.attention.self, "attention_head_size", 24),
    ),
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_model_of_other_parts_is_left_to_its_modules(edit: str, tmp_path: Path) -> None:
    model = fuse(stock(save(tmp_path, "bert"))).eval()
    bert: Any = model.transformers_model
    EDITS[edit](bert.bert.encoder.layer[1])
    assert layers_of(model) is None
    assert_follows(model)


def test_hooks_of_all_modules_are_called() -> None:
    model = fuse(SparseEncoder(str(tiny_folder()))).eval()
    assert layers_of(model) is not None
    calls: list[int] = []
    hook = nn.modules.module.register_module_forward_hook(lambda *_: calls.append(1))
    try:
        term_weights(model, features_of(model, SENTENCES))
    finally:
        hook.remove()
    assert len(calls) > 20


def test_both_precisions_stay_prepared(tmp_path: Path) -> None:
    model = fuse(stock(save(tmp_path, "bert"))).eval()
    exact = layers_of(model)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = layers_of(model)
    assert layers_of(model) is exact is not rounded


def test_pruned_weights_are_noticed(tmp_path: Path) -> None:
    model = fuse(stock(save(tmp_path, "bert"))).eval()
    assert layers_of(model) is not None
    bert: Any = model.transformers_model
    nn.utils.prune.l1_unstructured(bert.bert.encoder.layer[0].output.dense, "weight", amount=0.5)  # type: ignore[no-untyped-call]
    assert layers_of(model) is None
    assert_follows(model)
