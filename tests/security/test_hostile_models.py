"""Models of people who mean harm, and sentences that do on their way through a model, an index and the service."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click.testing
import httpx
import pytest
import torch
from hostile import EVIL, SENTENCES, one_line, refused
from sparse_sts_index.cli.main import main

from sparse_sts_index import (
    Document,
    ModelError,
    SparseStsIndex,
    explain_traces,
)
from sparse_sts_index.encoding import model_safety
from sparse_sts_index.encoding.bundled import tiny_folder
from sparse_sts_index.encoding.model_safety import check_model
from sparse_sts_index.encoding.models import load_dense, load_splade
from sparse_sts_index.engines.export.anserini import write_chunks
from sparse_sts_index.server.app import create_app
from sparse_sts_index.server.service import Service
from sparse_sts_index.server.settings import ServerSettings

if TYPE_CHECKING:
    from sparse_sts_index import (
        SparseStsEncoder,
    )

Write = Callable[..., Path]

# --- models


class Touch:
    """A pickle of this makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self._path, "w")


_TRANSFORMER = "sentence_transformers.sparse_encoder.models.MLMTransformer"
_POOLING = "sentence_transformers.sparse_encoder.models.SpladePooling"


def hostile_model(
    folder: Path, modules: list[tuple[str, str]] | None, settings: dict[str, Any], config: dict[str, Any]
) -> Path:
    """tiny, but for what is given; its weights left out."""
    shutil.copytree(tiny_folder(), folder, ignore=shutil.ignore_patterns("heads.pt", "model.safetensors"))
    values = json.loads((folder / "config.json").read_text()) | config
    (folder / "config.json").write_text(json.dumps({k: v for k, v in values.items() if v is not None}))
    if modules is not None:
        listed = [{"idx": n, "name": str(n), "path": path, "type": kind} for n, (kind, path) in enumerate(modules)]
        (folder / "modules.json").write_text(json.dumps(listed))
        (folder / "config_sentence_transformers.json").write_text('{"model_type": "SparseEncoder"}')
        (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 64, **settings}))
        (folder / "1_SpladePooling").mkdir()
        (folder / "1_SpladePooling" / "config.json").write_text('{"pooling_strategy": "max"}')
    return folder


_BOTH = [(_TRANSFORMER, ""), (_POOLING, "1_SpladePooling")]


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    ("modules", "settings", "config"),
    [
        (None, {}, {}),
        (_BOTH, {}, {}),
        # with these sentence-transformers 6.2 and transformers 5.23 do run what is in the pickle
        (_BOTH, {"model_args": {"weights_only": False, "dtype": "auto"}}, {"dtype": None, "torch_dtype": None}),
        (_BOTH, {"model_kwargs": {"weights_only": False, "dtype": "auto"}}, {"dtype": None, "torch_dtype": None}),
    ],
)
def test_no_pickle_is_run(
    tmp_path: Path, zipped: bool, modules: Any, settings: dict[str, Any], config: dict[str, Any]
) -> None:
    mark = tmp_path / "mark"
    folder = hostile_model(tmp_path / "model", modules, settings, config)
    torch.save({"x": Touch(mark)}, folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    for load in (load_splade, load_dense):
        refused(lambda load=load: load(folder))
        assert not mark.exists()
    # Not even if the folder's own look at it were passed by, as by a model from the hub.
    from sparse_sts_index.encoding.model_safety import MODEL_KWARGS

    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever sentence-transformers raises
        torch_loaded(folder, MODEL_KWARGS)
    assert not mark.exists()


def torch_loaded(folder: Path, kwargs: dict[str, Any]) -> object:
    from sentence_transformers import SparseEncoder

    return SparseEncoder(str(folder), local_files_only=True, model_kwargs=dict(kwargs))


def test_the_pickles_of_these_tests_are_live(tmp_path: Path) -> None:
    """Otherwise they would show nothing."""
    torch.save({"x": Touch(tmp_path / "mark")}, tmp_path / "x.bin")
    torch.load(tmp_path / "x.bin", weights_only=False)
    assert (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        ("os.system", "of a kind that is not loaded: os.system"),
        ("custom.Module", "of a kind that is not loaded: custom.Module"),
        ("sentence_transformers.util.misc.importlib", "of a kind that is not loaded"),
        ("sentence_transformers.base.model.torch", "of a kind that is not loaded"),
        ("sentence_transformers.SentenceTransformer", "of a kind that is not loaded"),
        ("sentence_transformers.models.WordEmbeddings", "of a kind that is not loaded"),
        ("\x1b[31m\n", r"\x1b[31m\n"),
        (5, "is damaged"),
    ],
)
def test_modules_of_ones_own(tmp_path: Path, kind: Any, parts: str) -> None:
    folder = hostile_model(tmp_path / "model", [(kind, ""), (_POOLING, "1_SpladePooling")], {}, {})
    (folder / "custom.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w')\nclass Module: pass\n")
    shutil.copy(tiny_folder() / "model.safetensors", folder)
    refused(lambda: load_splade(folder), parts)
    assert not (tmp_path / "mark").exists()


def test_a_model_of_pooling_alone(tmp_path: Path) -> None:
    """Found by fuzzing: it loaded, and failed at the first sentence."""
    folder = hostile_model(tmp_path / "model", [(_POOLING, "1_SpladePooling")], {}, {})
    refused(lambda: load_splade(folder), "its first module takes no text")


def test_modules_of_a_router(tmp_path: Path) -> None:
    router = ("sentence_transformers.models.Router", "1_SpladePooling")
    folder = hostile_model(tmp_path / "model", [router], {}, {})
    for routes in ({"a": "os.system"}, {"a": "sentence_transformers.SentenceTransformer"}, {"../../a": _POOLING}):
        (folder / "1_SpladePooling" / "router_config.json").write_text(json.dumps({"types": routes}))
        refused(lambda: load_splade(folder), "has a module")
    for route in ("", "./"):
        routes = {route: "sentence_transformers.models.Router"}
        (folder / "1_SpladePooling" / "router_config.json").write_text(json.dumps({"types": routes}))
        refused(lambda: load_splade(folder), "has more than 100 modules, or one within itself")


@pytest.mark.parametrize("kind", sorted(model_safety._MODULES))
def test_code_that_comes_with_a_module(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is asked on stdin is not answered by a corpus that comes that way."""
    automatic = {"AutoConfig": "code.C", "AutoModelForMaskedLM": "code.M", "AutoTokenizer": ["code.T", "code.T"]}
    package = "sentence_transformers.sparse_encoder.models." if "S" in kind else "sentence_transformers.models."
    folder = hostile_model(tmp_path / "model", [(package + kind, "0_M")], {}, {})
    code = f"open({str(tmp_path / 'mark')!r}, 'w')\nclass T: pass\nclass C: pass\nclass M: pass\n"
    (folder / "0_M").mkdir()
    for place in (folder, folder / "0_M"):
        shutil.copy(tiny_folder() / "model.safetensors", place)
        shutil.copy(tiny_folder() / "tokenizer.json", place)
        (place / "code.py").write_text(code)
        (place / "config.json").write_text(json.dumps({"model_type": "their_own", "auto_map": automatic}))
        (place / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "Own", "auto_map": automatic}))
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 100))
    with pytest.raises(ModelError):
        load_splade(folder)
    assert not (tmp_path / "mark").exists()


def test_code_that_comes_with_a_model(tmp_path: Path) -> None:
    """A configuration may name classes in files of its own (``auto_map``); with or without them, they are not run."""
    automatic = {"AutoConfig": "code.C", "AutoModelForMaskedLM": "code.M", "AutoTokenizer": ["code.T", "code.T"]}
    for model_type in ("bert", "their_own"):
        folder = hostile_model(tmp_path / model_type, None, {}, {"auto_map": automatic, "model_type": model_type})
        shutil.copy(tiny_folder() / "model.safetensors", folder)
        (folder / "code.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w')\n")
        tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
        (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer | {"auto_map": automatic}))
        try:
            load_splade(folder)
        except ModelError as error:
            one_line(error)
        assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    ("path", "settings", "config", "parts"),
    [
        ("../../x", {}, {}, "a module elsewhere"),
        ("/etc", {}, {}, "a module elsewhere"),
        ("", {"model_args": {"device_map": "disk", "offload_folder": "/tmp"}}, {}, "not for it to say: device_map"),
        ("", {"model_args": {"use_safetensors": False}}, {}, "not for it to say: use_safetensors"),
        ("", {"model_args": {"attn_implementation": "a/b"}}, {}, "asks for code from the hub"),
        ("", {}, {"attn_implementation": "a/b"}, "asks for code from the hub"),
        ("", {}, {"transformers_weights": "../x.bin"}, "no safetensors file"),
        ("", {}, {"vocab_size": 2**40}, ""),
        ("", {}, {"hidden_size": -1}, ""),
        ("", {}, {"num_hidden_layers": "many"}, ""),
        ("", {}, {"num_attention_heads": 0}, ""),
    ],
)
def test_settings_of_models(
    tmp_path: Path, path: str, settings: dict[str, Any], config: dict[str, Any], parts: str
) -> None:
    folder = hostile_model(tmp_path / "model", [(_TRANSFORMER, path), _BOTH[1]], settings, config)
    shutil.copy(tiny_folder() / "model.safetensors", folder)
    refused(lambda: load_splade(folder), parts)


@pytest.mark.parametrize(
    "file",
    ["config.json", "modules.json", "tokenizer.json", "sentence_bert_config.json", "1_SpladePooling/config.json"],
)
def test_damaged_models(tmp_path: Path, file: str) -> None:
    folder = hostile_model(tmp_path / "model", _BOTH, {}, {})
    shutil.copy(tiny_folder() / "model.safetensors", folder)
    good = (folder / file).read_bytes()
    for content in (b"[" * 100_000, good[: len(good) // 2], b"\xff\xfe", b"[1]"):
        (folder / file).write_bytes(content)
        refused(lambda: load_splade(folder))
    (folder / file).write_bytes(good)
    check_model(str(folder))


def test_a_panic_in_the_tokenizer_is_an_error_like_others(tmp_path: Path) -> None:
    """Rust's panics derive from BaseException; a tokenizer without its unknown token may cause one."""
    from sparse_sts_index.encoding.models import _load_error

    class PanicException(BaseException):
        pass

    assert isinstance(_load_error("x", True, False, PanicException("index out of bounds")), ModelError)
    with pytest.raises(KeyboardInterrupt):
        _load_error("x", True, False, KeyboardInterrupt())


# --- sentences, from end to end


@pytest.fixture(scope="module")
def hostile(tiny: SparseStsEncoder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparseStsIndex]:
    documents = [Document(doc_id, text) for doc_id, text in SENTENCES.items()]
    index = SparseStsIndex.build(tmp_path_factory.mktemp("hostile") / "index", documents, tiny)
    yield index
    index.close()


def test_sentences_come_out_of_an_index_as_they_went_in(hostile: SparseStsIndex) -> None:
    assert hostile.verify() == len(SENTENCES)
    read = {document.id: document.text for chunk in hostile.read() for document in chunk.documents}
    assert read == SENTENCES
    assert list(read) == list(SENTENCES)
    for doc_id, text in SENTENCES.items():
        assert hostile.get(doc_id) == Document(doc_id, text)
    assert hostile.get("cafe") is None
    assert hostile.get("x" * 32_767) is None


def test_every_sentence_finds_itself(hostile: SparseStsIndex) -> None:
    for doc_id, hits in zip(SENTENCES, hostile.search(list(SENTENCES.values()), k=len(SENTENCES)), strict=True):
        assert hits.certified
        found = {hit.id: hit for hit in hits}
        if doc_id in ("empty", "blank", "controls"):  # no token: near to nothing, not even to each other
            assert not hits
            continue
        assert found[doc_id].cosine == pytest.approx(1, abs=1e-5)
        assert found[doc_id].text == SENTENCES[doc_id]


def test_sentences_are_explained(hostile: SparseStsIndex) -> None:
    texts = [text[:20_000] for text in SENTENCES.values()]
    traces = hostile.encoder.trace(texts)
    for trace, text in zip(traces, texts, strict=True):
        explanation = explain_traces(hostile.encoder.vocabulary, trace, traces[0])
        assert explanation.cosine == pytest.approx(float((trace.vector @ traces[0].vector.T).sum()), abs=1e-6)
        assert all(0 <= word.start < word.end <= len(text) for word in explanation.first.words)


def test_sentences_are_exported_and_compared(hostile: SparseStsIndex) -> None:
    file = io.StringIO(newline="\n")
    write_chunks(hostile.read(), hostile.encoder.vocabulary.terms, file)
    lines = [json.loads(line) for line in file.getvalue().split("\n") if line]
    assert {line["id"]: line["contents"] for line in lines} == SENTENCES
    pairs = {(pair.first.id, pair.second.id) for pair in hostile.duplicates(0.999)}
    assert ("caf\u00e9", "cafe\u0301") not in pairs  # ids and sentences that look alike are not the same
    assert all(first != second for first, second in pairs)


def test_lone_surrogates_are_refused(hostile: SparseStsIndex) -> None:
    refused(lambda: hostile.search(["\udcff"]), "unpaired surrogate (or a byte that is not UTF-8, 0xFF) at character 1")
    refused(lambda: hostile.score_pairs(["a"], ["\ud800"]), "unpaired surrogate")
    refused(lambda: Document("\udcff", "a"), "unpaired surrogate")


def test_tables_show_no_control_characters(hostile: SparseStsIndex) -> None:
    """Escape sequences and line ends in a sentence are not sent to the terminal."""
    runner = click.testing.CliRunner()
    for arguments in (
        ["search", str(hostile.path), EVIL, "-k", "30", "--explain"],
        ["score", EVIL, "a\x1b[2J\nb", "--model", "tiny", "--explain"],
        ["duplicates", str(hostile.path), "--threshold", "0.3"],
        ["cluster", str(hostile.path), "--threshold", "0.3"],
    ):
        result = runner.invoke(main, arguments, color=True)  # as at a terminal: click takes nothing out
        assert result.exit_code == 0, result.output
        shown = result.output.replace("\n", "")
        assert not any(unicodedata.category(letter) == "Cc" for letter in shown), repr(shown)


def test_requests(hostile: SparseStsIndex) -> None:
    """Through the whole application, in this process; another suite sends what the schema allows."""
    deep = b'{"queries":' + b"[" * 100_000
    bodies: list[tuple[bytes, int]] = [
        (b"", 422), (b"\xff", 400), (b"null", 422), (b"[]", 422), (deep, 400), (b'{"queries": ["\\ud800"]}', 422),
        (b'{"queries": ["a"], "k": 1e400}', 422), (b'{"queries": ["a"], "k": NaN}', 422),
        (b'{"queries": ["a"], "k": ' + b"9" * 5_000 + b"}", 400), (b'{"queries": ["a"], "\\u001b\\n": 1}', 422),
        (b'{"queries": ["' + b"a" * 10_001 + b'"]}', 422), (b'{"queries": [""], "queries": ["a"]}', 200),
        (b'{"queries": ["\\u0000\\u202e"]}', 200), (json.dumps({"queries": [EVIL]}).encode(), 200),
    ]  # fmt: skip
    paths = [("/v1/documents/%ff", 404), ("/v1/documents/..%2f..%2fetc%2fpasswd", 200), ("/v1/documents/..%2f..", 404),
             ("/v1/documents/%2500", 404), ("/v1/documents/nul%00id", 200), ("/v1/documents/nl%0Aid%0D%0A%09tab", 404),
             ("/v1/documents/caf%C3%A9", 200), ("/v1/documents/cafe%CC%81", 200), ("/%2e%2e/%2e%2e/etc/passwd", 404),
             ("/page.css/..%2f..%2fapp.py", 404), ("/v1/documents/" + "a" * 5_000, 422)]  # fmt: skip

    async def ask() -> None:
        index = SparseStsIndex.open(hostile.path, hostile.encoder)
        service = Service(index, ServerSettings(refresh=0))
        app = create_app(service)
        await service.load()
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=True)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            for body, status in bodies:
                answer = await client.post("/v1/search", content=body, headers={"content-type": "application/json"})
                assert answer.status_code == status, (body[:50], answer.text)
                if status != 200:
                    assert "\n" not in answer.json()["detail"]
            for path, status in paths:
                answer = await client.get(httpx.URL("http://localhost", raw_path=path.encode()))
                assert answer.status_code == status, (path, answer.text)
            answer = await client.get(httpx.URL("http://localhost", raw_path=b"/v1/documents/cafe%CC%81"))
            assert answer.json() == {"id": "cafe\u0301", "text": SENTENCES["cafe\u0301"], "fields": {}}
            answer = await client.post("/v1/search", json={"queries": [EVIL], "k": 1, "explain": True})
            assert answer.headers["content-type"] == "application/json"
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.json()["results"][0]["hits"][0]["text"] == EVIL
        await service.close()

    asyncio.run(ask())
