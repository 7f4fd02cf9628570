"""Models read from their files, against the same ones loaded by sentence-transformers."""

from __future__ import annotations

import copy
import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SparseEncoder

from sparse_sts_index import SparseStsEncoder, load_pairs
from sparse_sts_index.encoding.bundled import tiny_folder
from sparse_sts_index.encoding.inference_model import InferenceModel
from tests.unit.encoding.test_fused_encoder import ARCHITECTURES, save

ODD = ["", " ", "\t a\u00a0b \n", "Ünï ça\u0301fé", "[MASK] [SEP] [PAD] x", "東京", "word " * 600, "a\x00b", "😀" * 20]


def assert_read_as_loaded(folder: Path, odd: list[str] = ODD) -> None:
    """Check that a folder is read, and that all that is seen of the model is as if it were loaded."""
    read = SparseStsEncoder.load(folder, device="cpu")
    loaded = SparseStsEncoder(SparseEncoder(str(folder), device="cpu"), str(folder))
    assert isinstance(read._used, InferenceModel)
    assert read.fingerprint == loaded.fingerprint
    assert read.vocabulary.terms == loaded.vocabulary.terms
    assert read.precision == loaded.precision
    assert read.max_active_dims == loaded.max_active_dims
    sentences = [*odd, *load_pairs("sample", "dev").sentence1[:60]]
    assert abs(read.encode(sentences) - loaded.encode(sentences)).max() == 0
    for found, expected in zip(read.trace(sentences), loaded.trace(sentences), strict=True):
        assert (found.words, found.sources, found.literal) == (expected.words, expected.sources, expected.literal)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    SparseEncoder(str(tiny_folder())).save_pretrained(str(folder))
    return folder


def test_the_bundled_model_is_read() -> None:
    assert_read_as_loaded(tiny_folder())


def test_a_saved_model_is_read(saved: Path) -> None:
    assert_read_as_loaded(saved)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_any_model_of_the_family_is_read(architecture: str, tmp_path: Path) -> None:
    odd = [text for text in ODD if len(text) < 500]  # some have a position too few for what they say is their maximum
    assert_read_as_loaded(save(tmp_path, architecture), odd)


def edit(folder: Path, file: str, **values: Any) -> None:
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


READ: dict[str, Callable[[Path], object]] = {
    "prompt": lambda folder: edit(
        folder, "config_sentence_transformers.json", prompts={"x": "a prompt: "}, default_prompt_name="x"
    ),
    "max_active_dims": lambda folder: edit(folder, "config_sentence_transformers.json", max_active_dims=7),
    "stored in half precision": lambda folder: weights(folder, halve),
    "max_seq_length": lambda folder: edit(folder, "sentence_bert_config.json", max_seq_length=9),
    "length of the tokenizer": lambda folder: edit(folder, "tokenizer_config.json", model_max_length=11),
    "log1p_relu": lambda folder: edit(folder, "1_SpladePooling/config.json", activation_function="log1p_relu"),
    "truncation left in the tokenizer": lambda folder: tokenizer(
        folder, truncation={"direction": "Right", "max_length": 5, "strategy": "LongestFirst", "stride": 0}
    ),
    "files of an older transformers": lambda folder: (
        (folder / "special_tokens_map.json").write_text(json.dumps(SPECIAL)),
        edit(
            folder,
            "tokenizer_config.json",
            additional_special_tokens=[],
            added_tokens_decoder={
                str(number): {"content": content, **dict.fromkeys(FLAGS, False), "special": True}
                for number, content in ((0, "[PAD]"), (100, "[UNK]"), (101, "[CLS]"), (102, "[SEP]"), (103, "[MASK]"))
            },
        ),
    ),
}
FLAGS = ("lstrip", "normalized", "rstrip", "single_word")
SPECIAL = {
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
    "pad_token": {"content": "[PAD]", **dict.fromkeys(FLAGS, False)},
    "sep_token": "[SEP]",
    "unk_token": "[UNK]",
}


@pytest.mark.parametrize("change", READ)
def test_settings_are_those_of_the_files(change: str, saved: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(saved, tmp_path / "model")
    READ[change](folder)
    assert_read_as_loaded(folder)


def weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    state = load_file(folder / "model.safetensors")
    change(state)
    (folder / "model.safetensors").unlink()
    save_file(state, folder / "model.safetensors", {"format": "pt"})


def tokenizer(folder: Path, **values: Any) -> None:
    content = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(content | values))


def halve(state: dict[str, torch.Tensor]) -> None:
    for name in state:
        state[name] = state[name].half()


UNREAD: dict[str, Callable[[Path], object]] = {
    "sum pooling": lambda folder: edit(folder, "1_SpladePooling/config.json", pooling_strategy="sum"),
    "a chunk size": lambda folder: edit(folder, "1_SpladePooling/config.json", chunk_size=4),
    "lower case by sentence-transformers": lambda folder: edit(folder, "sentence_bert_config.json", do_lower_case=True),
    "another setting": lambda folder: edit(folder, "config_sentence_transformers.json", truncate_dim=8),
    "another type": lambda folder: edit(folder, "config_sentence_transformers.json", model_type="SentenceTransformer"),
    "a prompt for queries": lambda folder: edit(
        folder, "config_sentence_transformers.json", prompts={"query": "q: ", "document": ""}
    ),
    "another activation": lambda folder: edit(folder, "config.json", hidden_act="gelu_new"),
    "another architecture": lambda folder: edit(folder, "config.json", model_type="electra"),
    "half precision": lambda folder: (edit(folder, "config.json", dtype="float16"), weights(folder, halve)),
    "a weight too few": lambda folder: weights(
        folder, lambda state: state.pop("bert.encoder.layer.0.output.dense.bias")
    ),
    "an adapter": lambda folder: (folder / "adapter_config.json").write_text("{}"),
    "another case": lambda folder: edit(folder, "tokenizer_config.json", do_lower_case=False),
    "tokens of its own": lambda folder: edit(folder, "tokenizer_config.json", extra_special_tokens=["<x>"]),
    "truncation on the left": lambda folder: edit(folder, "tokenizer_config.json", truncation_side="left"),
    "another tokenizer": lambda folder: edit(folder, "tokenizer_config.json", tokenizer_class="XLMRobertaTokenizer"),
    "another normalizer": lambda folder: tokenizer(folder, normalizer={"type": "Lowercase"}),
    "another pre-tokenizer": lambda folder: tokenizer(folder, pre_tokenizer={"type": "Whitespace"}),
    "no maximum length": lambda folder: (
        edit(folder, "tokenizer_config.json", model_max_length=10**30),
        edit(folder, "config.json", max_position_embeddings=-1),
    ),
    "no room for a word": lambda folder: edit(folder, "tokenizer_config.json", model_max_length=2),
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "half of the weights": lambda folder: (folder / "model.safetensors").write_bytes(
        (tiny_folder() / "model.safetensors").read_bytes()[:9_000_000]
    ),
    "no tokenizer": lambda folder: (folder / "tokenizer.json").unlink(),
    "an older name of tokens of its own": lambda folder: edit(
        folder, "tokenizer_config.json", additional_special_tokens=["[unused0]"]
    ),
    "another special token": lambda folder: edit(folder, "tokenizer_config.json", eos_token="[unused0]"),
    "a map of special tokens": lambda folder: (folder / "special_tokens_map.json").write_text(
        json.dumps(SPECIAL | {"cls_token": "[MASK]"})
    ),
    "added tokens": lambda folder: (folder / "added_tokens.json").write_text('{"[unused0]": 1}'),
    "a flag of a special token": lambda folder: edit(
        folder, "tokenizer_config.json", added_tokens_decoder={"103": {"content": "[MASK]", "lstrip": True}}
    ),
    "arguments for the tokenizer": lambda folder: edit(folder, "tokenizer_config.json", init_inputs=[1]),
    "other weights": lambda folder: edit(folder, "config.json", transformers_weights="other.safetensors"),
    "a pooling elsewhere": lambda folder: (folder / "modules.json").write_text(
        (folder / "modules.json").read_text().replace("1_SpladePooling", "../model/1_SpladePooling")
    ),
    "other names of modules": lambda folder: (folder / "modules.json").write_text(
        (folder / "modules.json").read_text().replace('"name": "0"', '"name": "transformer"')
    ),
    "how to be loaded": lambda folder: edit(folder, "config.json", use_safetensors=False),
    "code from the hub": lambda folder: edit(folder, "config.json", attn_implementation="evil/kernel"),
    "a pickle beside it": lambda folder: (folder / "1_SpladePooling" / "pytorch_model.bin").write_bytes(b""),
    "quantization": lambda folder: edit(folder, "config.json", quantization_config={"quant_method": "torchao"}),
    "an unknown pre-tokenizer": lambda folder: tokenizer(folder, pre_tokenizer={"type": "Nonsense"}),
    "a truncation that panics": lambda folder: (
        tokenizer(folder, truncation={"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 5}),
        edit(folder, "tokenizer_config.json", model_max_length=2),
    ),
    "heads of other sizes": lambda folder: edit(folder, "config.json", num_attention_heads=3),
    "heads as a text": lambda folder: edit(folder, "config.json", num_attention_heads="4"),
    "an epsilon as a text": lambda folder: edit(folder, "config.json", layer_norm_eps="1e-12"),
    "another size": lambda folder: edit(folder, "config.json", intermediate_size=64),
    "no epsilon": lambda folder: (folder / "config.json").write_text(
        (folder / "config.json").read_text().replace("layer_norm_eps", "_name_or_path")
    ),
    "no type, and half precision first": lambda folder: (
        edit(folder, "config.json", dtype=None),
        weights(folder, lambda state: state.update({"aaa": torch.zeros(2, dtype=torch.float16)})),
    ),
    "a list for a configuration": lambda folder: (folder / "config.json").write_text("[]"),
    "deep nesting": lambda folder: (folder / "config.json").write_text('{"a":' * 100_000),
}


@pytest.mark.parametrize("change", UNREAD)
def test_anything_else_is_left_to_sentence_transformers(change: str, saved: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(saved, tmp_path / "model")
    assert InferenceModel.read(folder, ["a probe"]) is not None
    UNREAD[change](folder)
    assert InferenceModel.read(folder, ["a probe"]) is None


def test_a_query_needs_no_slow_imports(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from sparse_sts_index import SparseStsEncoder\n"
        "encoder = SparseStsEncoder.load('tiny', device='cpu')\n"
        "assert encoder.encode(['a cat']).nnz\n"
        "assert encoder.fingerprint\n"
        "slow = {'transformers', 'sentence_transformers', 'sklearn', 'pandas', 'datasets'} & set(sys.modules)\n"
        "assert not slow, slow\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


def test_an_encoder_is_copied_and_pickled_after_use() -> None:
    encoder = SparseStsEncoder.load("tiny", device="cpu")
    vectors = encoder.encode(ODD)
    for other in (copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))):
        assert other.fingerprint == encoder.fingerprint
        assert abs(other.encode(ODD) - vectors).max() == 0


def test_a_relative_folder_is_found_from_elsewhere(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(saved.parent)
    encoder = SparseStsEncoder.load("model", device="cpu")
    monkeypatch.chdir(tmp_path)
    assert isinstance(encoder.model, SparseEncoder)
