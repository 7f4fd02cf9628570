"""What hostile bytes are given to, and what has to be true afterwards: a right result, or one error in one line.

Each target takes bytes and returns whether they were accepted. A wrong result fails an assertion; any exception that is
not one of this library's goes on to whoever called. The seeds are in code, so that there is nothing to keep.
"""

from __future__ import annotations

import asyncio
import dataclasses
import gzip
import io
import json
import shutil
import tempfile
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
from scipy.sparse import csr_array

from sparse_sts_index.data.documents import check_ids, read_corpus
from sparse_sts_index.data.pairs import load_pairs
from sparse_sts_index.encoding.calibration import CALIBRATION_FILE, Calibration
from sparse_sts_index.engines.backends.packing import pack, unpack
from sparse_sts_index.engines.backends.terms import escape
from sparse_sts_index.engines.target import parse_url
from sparse_sts_index.errors import SparseStsError
from sparse_sts_index.storage.layout import COLLECTION_FILE
from sparse_sts_index.storage.manifest import FORMAT_VERSION, Manifest
from sparse_sts_index.storage.shards import Collection, Shard
from sparse_sts_index.storage.snapshot import vocabulary_of
from sparse_sts_index.storage.vector_files import Extent, VectorStore, VectorWriter
from sparse_sts_index.vectors.vocabulary import Vocabulary

FOLDER = Path(tempfile.mkdtemp(prefix="sparse-sts-fuzz-"))
#: What a server may answer; 500 is none of it.
_STATUSES = {200, 201, 202, 400, 403, 404, 405, 409, 413, 415, 422, 429, 503}
_VOCABULARY = Vocabulary([*(f"t{n}" for n in range(40)), None, "##ing", "\u3000"])


def check_error(error: SparseStsError) -> None:
    """One line that does nothing to a terminal."""
    message = str(error)
    assert message, repr(error)
    assert not any(unicodedata.category(letter) in ("Cc", "Zl", "Zp", "Cs") for letter in message), repr(message)
    assert len(message) < 4_000, len(message)


def attempt(action: Callable[[], None]) -> bool:
    """Whether something was accepted; otherwise by which error is checked."""
    try:
        action()
    except SparseStsError as error:
        check_error(error)
        return False
    return True


def _file(name: str, data: bytes) -> Path:
    path = FOLDER / name
    path.write_bytes(data)
    return path


def corpus(format: str) -> Callable[[bytes], bool]:
    """Documents of a file; those of jsonl, tsv and txt are compared with what a few plain lines make of it."""

    def target(data: bytes) -> bool:
        path = _file(f"c.{format}", data)

        def read() -> None:
            documents = [(document.id, document.text) for document in check_ids(read_corpus(path))]
            expected = _plainly(format, data)
            assert expected is None or documents == expected

        return attempt(read)

    return target


def _plainly(format: str, data: bytes) -> list[tuple[str, str]] | None:
    """What an accepted file says, by another way."""
    if format.startswith("parquet"):
        return None
    text = (gzip.decompress(data) if format.endswith(".gz") else data).decode("utf-8-sig")
    if format == "txt":
        return [(str(n), line.strip()) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    if format == "csv":
        import csv

        rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if any(c.strip() for c in row)]
        return _table(rows)
    if format == "tsv":
        lines = [line.removesuffix("\r").split("\t") for line in text.split("\n")]
        return _table([row for row in lines if any(cell.strip() for cell in row)])
    values = [json.loads(line) for line in text.split("\n") if line.strip()]
    return [_document(value) for value in values]


def _table(rows: list[list[str]]) -> list[tuple[str, str]]:
    names = [cell.strip().lower() for cell in rows[0]] if rows else []
    return [_document(dict(zip(names, row, strict=True))) for row in rows[1:]]


def _document(value: dict[str, Any]) -> tuple[str, str]:
    doc_id = next(value[name] for name in ("_id", "id", "docid") if name in value)
    text = next(value[name] for name in ("text", "contents", "sentence") if name in value)
    return str(doc_id), f"{value['title']} {text}".strip() if value.get("title") else text


def pairs(format: str) -> Callable[[bytes], bool]:
    def target(data: bytes) -> bool:
        path = _file(f"p.{format}", data)

        def read() -> None:
            found = load_pairs(path)
            assert len(found) == len(found.sentence2) == len(found.gold) > 0
            assert ((found.gold >= 0) & (found.gold <= 1)).all()
            assert all(text.strip() for text in (*found.sentence1, *found.sentence2))

        return attempt(read)

    return target


def manifest(data: bytes) -> bool:
    def read() -> None:
        found = Manifest.from_json(data.decode("utf-8", "replace"))
        again = dataclasses.replace(found, format_version=FORMAT_VERSION, unknown=())
        assert Manifest.from_json(found.to_json()) == again
        assert "/" not in found.vectors.folder
        assert 0 <= found.vocabulary_size < 2**31

    return attempt(read)


def collection(data: bytes) -> bool:
    folder = FOLDER / "collection"
    folder.mkdir(exist_ok=True)

    def read() -> None:
        (folder / COLLECTION_FILE).write_bytes(data)
        found = Collection.read(folder)
        found.write(folder)
        assert Collection.read(folder) == found
        assert all((folder / shard.folder).resolve().is_relative_to(folder.resolve()) for shard in found.shards)

    return attempt(read)


def calibration(data: bytes) -> bool:
    _file(CALIBRATION_FILE, data)

    def read() -> None:
        found = Calibration.of_folder(FOLDER)
        assert found is not None
        scores = found(np.linspace(-0.5, 1.5, 101))
        assert (np.diff(scores) >= -1e-9).all()
        assert scores.min() >= found.scale[0] - 1e-9
        assert scores.max() <= found.scale[1] + 1e-9

    return attempt(read)


def vocabulary(data: bytes) -> bool:
    """With the checksum of another: only that one is accepted."""

    def read() -> None:
        assert vocabulary_of(data, _VOCABULARY.sha256).terms == _VOCABULARY.terms

    return attempt(read)


def packed(data: bytes) -> bool:
    text = data.decode("utf-8", "replace")

    def read() -> None:
        vector = unpack(text)
        assert unpack(pack(vector)) == vector
        assert vector.terms == sorted(set(vector.terms))
        assert all(weight >= 0 for weight in vector.weights)

    return attempt(read)


def url(data: bytes) -> bool:
    text = data.decode("utf-8", "surrogateescape")

    def read() -> None:
        target = parse_url(text)
        assert target.name
        assert target.local or target.base.startswith(("http://", "https://"))
        target.name.encode()

    return attempt(read)


def term(data: bytes) -> bool:
    text = data.decode("utf-8", "replace")
    name = escape(text)
    assert ("" if name == "%" else unquote(name, errors="strict")) == text
    assert name.strip() == name != ""
    assert "." not in name
    return True


_FILES = ("terms.i32", "weights.f32", "ends.i64", "ids.utf8", "id_ends.i64", "dead.i64")


def _store() -> tuple[Path, Extent]:
    folder = FOLDER / "vectors"
    if not folder.exists():
        rng = np.random.default_rng(1)
        rows = (rng.random((30, 40)) * (rng.random((30, 40)) < 0.2)).astype(np.float32)
        writer = VectorWriter(folder, Extent.empty("v"))
        writer.add(csr_array(rows), [f"id{row}\u00e9" for row in range(30)])
        writer.kill([3, 7])
        _store.extent = writer.extent(durable=False)  # type: ignore[attr-defined]
        writer.close()
        shutil.copytree(folder / "v", folder / "good")
    return folder, _store.extent  # type: ignore[attr-defined]


def vectors(data: bytes) -> bool:
    """Bytes at a place in one of the files; a change is refused by its shape, by its checksum, or by both."""
    folder, extent = _store()
    if len(data) < 4:
        return False
    name = _FILES[data[0] % len(_FILES)]
    good = (folder / "good" / name).read_bytes()
    place = int.from_bytes(data[1:3], "little") % max(1, len(good))
    content = good[:place] + data[3:] + good[place + len(data) - 3 :]
    (folder / "v" / name).write_bytes(content)
    try:

        def read() -> None:
            found = VectorStore(folder, extent, 40)
            rows = np.arange(len(found))
            errors = 0
            for use in (
                lambda: found.ids(rows),
                lambda: found.scores(rows, np.full(40, 0.1)),
                lambda: found.take(rows).sum(),
                lambda: [block @ np.ones(40) for _, block in found.blocks(7)],
                lambda: found.live.sum(),
            ):
                errors += not attempt(use)  # type: ignore[arg-type]
            found.verify()
            assert content[: len(good)] == good, "a change that the checksum does not tell"
            assert not errors

        return attempt(read)
    finally:
        (folder / "v" / name).write_bytes(good)


class Server:
    """The whole application, in this process."""

    def __init__(self) -> None:
        import httpx

        from sparse_sts_index import Document, SparseStsIndex
        from sparse_sts_index.server.app import create_app
        from sparse_sts_index.server.service import Service
        from sparse_sts_index.server.settings import ServerSettings

        documents = [Document(str(n), f"sentence number {n} of a few") for n in range(40)]
        SparseStsIndex.build(FOLDER / "served", documents, "tiny", precision="float32").close()
        self._loop = asyncio.new_event_loop()
        index = SparseStsIndex.open(FOLDER / "served", writable=True)
        service = Service(index, ServerSettings(refresh=0, writable=True))
        app = create_app(service)
        self._loop.run_until_complete(service.load())
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=True)
        self._client = httpx.AsyncClient(transport=transport, base_url="http://localhost")
        self._url = httpx.URL

    def ask(self, method: str, path: bytes, body: bytes, kind: str = "application/json") -> int:
        """The status of an answer, which is checked."""
        url = self._url("http://localhost", raw_path=path)
        asked = self._client.request(method, url, content=body, headers={"content-type": kind})
        answer = self._loop.run_until_complete(asyncio.wait_for(asked, 60))
        assert answer.status_code in _STATUSES, (method, path, body, answer.status_code, answer.text)
        if answer.status_code >= 400:
            detail = answer.json()["detail"]
            assert "\n" not in detail, detail
            assert "Traceback" not in detail, detail
        return int(answer.status_code)


_ROUTES = (
    ("POST", b"/v1/search"), ("POST", b"/v1/score"), ("POST", b"/v1/explain"), ("POST", b"/v1/documents"),
    ("PUT", b"/v1/documents"), ("POST", b"/v1/documents/delete"), ("GET", b"/v1/documents/"), ("GET", b"/v1/groups?"),
    ("DELETE", b"/v1/documents/"), ("GET", b"/"),
)  # fmt: skip
_server: list[Server] = []


def request(data: bytes) -> bool:
    """The first byte says which route; the rest is the body, or goes on the path."""
    if not _server:
        _server.append(Server())
    method, path = _ROUTES[data[0] % len(_ROUTES)] if data else ("GET", b"/")
    rest = data[1:]
    if path in (b"/v1/documents/", b"/v1/groups?", b"/"):
        path, rest = path + bytes(b if 0x21 <= b < 0x7F and b != 0x23 else 0x25 for b in rest), b""
    return _server[0].ask(method, path, rest) < 400


@dataclass(frozen=True)
class Target:
    """What to give bytes to, and bytes that it accepts or nearly does."""

    run: Callable[[bytes], bool]
    seeds: list[bytes]


def _seeds() -> dict[str, Target]:
    jsonl = (
        b'{"id": "1", "text": "a \\u00e9 \\ud83d\\ude00"}\n{"_id": 2, "title": "t", "text": "b"}\n\n'
        b'{"docid": "3", "contents": ""}\n'
    )
    table = b'id,text,title\n1,"a, ""b""\nc",\n2,x,t\n'
    graded = b"sentence1,sentence2,score\na,b,0.5\nc,d,1\n"
    good = Manifest.without_model(_VOCABULARY, 8)
    values = json.loads(good.to_json())
    values["vectors"]["folder"] = "vectors-000001"
    several = Collection((Shard("a", 1, "x"), Shard("b/c", 2, "y")), "2026-01-01", 1.5)
    several.write(FOLDER)
    shards = (FOLDER / COLLECTION_FILE).read_bytes()
    scale = {
        "cosines": [0.0, 0.5, 1.0],
        "scores": [0.0, 2.0, 5.0],
        "scale": [0, 5],
        "model_fingerprint": "a",
        "pairs": 20,
    }
    tokens = json.dumps(_VOCABULARY.tokens).encode()
    bodies = [
        b"\0" + json.dumps({"queries": ["a sentence"], "k": 3, "mode": "exact", "explain": True}).encode(),
        b"\1" + json.dumps({"pairs": [{"sentence1": "a", "sentence2": "b"}]}).encode(),
        b"\2" + json.dumps({"pairs": [{"sentence1": "a cat", "sentence2": "the cat"}]}).encode(),
        b"\3" + json.dumps({"documents": [{"id": "x", "text": "y"}]}).encode(),
        b"\4" + json.dumps({"documents": [{"id": "1", "text": "y"}]}).encode(),
        b"\5" + json.dumps({"ids": ["1", "2"]}).encode(),
        b"\6" + b"1", b"\6..%2f..%2fetc", b"\7threshold=0.9&limit=5", b"\x08" + b"caf%c3%a9", b"\x09..%2f",
    ]  # fmt: skip
    return {
        "jsonl": Target(
            corpus("jsonl"), [jsonl, b"\xef\xbb\xbf" + jsonl, b"[" * 2000, b'{"id": 1e5, "id": "\\ud800"}']
        ),
        "csv": Target(corpus("csv"), [table, table.replace(b"\n", b"\r\n"), b'id,text\n"1', b"id,id\n"]),
        "tsv": Target(corpus("tsv"), [b'id\ttext\n1\ta "b\n2\tc\r\n', b"docid\tsentence\n"]),
        "txt": Target(corpus("txt"), [b"one\n\n two \r\nthree\x0b\x85", "\u2028\ufeff".encode()]),
        "jsonl.gz": Target(corpus("jsonl.gz"), [gzip.compress(jsonl, mtime=0), gzip.compress(b"", mtime=0)]),
        "parquet": Target(corpus("parquet"), _parquet_seeds()),
        "pairs.csv": Target(pairs("csv"), [graded, b"a,b,0.5\n", b'"a","b","1e-3"\n']),
        "pairs.jsonl": Target(pairs("jsonl"), [b'{"sentence1": "a", "sentence2": "b", "score": 0.5}\n']),
        "manifest": Target(manifest, [json.dumps(values).encode(), good.to_json().encode()]),
        "collection": Target(collection, [shards]),
        "calibration": Target(calibration, [json.dumps(scale).encode()]),
        "vocabulary": Target(vocabulary, [tokens, b'["a", null]']),
        "vectors": Target(vectors, [bytes([n, 8, 0, 255, 255, 255, 255]) for n in range(6)]),
        "packed": Target(packed, [b"AQAAAAIAAAAAAAA/AAAAPw==", b""]),
        "url": Target(url, [b"elasticsearch+https://u%40x:p%3A@[::1]:9200/a/b/n", b"milvus+file:data/milvus.db/n"]),
        "term": Target(term, [b"3.5", b"##ing", "\u2028\u00a0%".encode(), b""]),
        "request": Target(request, bodies),
    }


def _parquet_seeds() -> list[bytes]:
    import pyarrow
    import pyarrow.parquet

    seeds = []
    for table in (
        {"id": ["1", "2"], "text": ["a", "b"]},
        {"id": [1, 2], "text": pyarrow.array(["a", "a"]).dictionary_encode(), "title": [None, "t"]},
        {"_id": ["1"], "text": [["nested"]]},
    ):
        file = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.table(table), file)
        seeds.append(file.getvalue())
    return seeds


TARGETS = _seeds()
