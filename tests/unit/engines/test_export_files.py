"""Feature names, packed vectors, and the files that engines' importers take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp
from support import VOCABULARY, build, random_vectors, unit_vectors

from sparse_sts_index import DataError, EngineError, Quantizer, Vocabulary, read_corpus
from sparse_sts_index.engines import connect
from sparse_sts_index.engines.backends.feature_engine import key
from sparse_sts_index.engines.backends.packing import pack, unpack
from sparse_sts_index.engines.backends.terms import FEATURE_ERROR, escape, feature_weights
from sparse_sts_index.engines.base import Metadata, Vector, seconds_to_wait, vectors_of
from sparse_sts_index.engines.export.files import FORMATS, export_files
from sparse_sts_index.engines.pushing import push
from sparse_sts_index.engines.sources import Source
from sparse_sts_index.engines.target import parse_url
from sparse_sts_index.storage.impact_index import ImpactIndex
from sparse_sts_index.vectors.vocabulary import DELIMITER

if TYPE_CHECKING:
    from sparse_sts_index import SparseStsEncoder

COUNT = 60


def unescape(name: str) -> str:
    return "" if name == "%" else unquote(name, errors="strict")


@given(
    st.lists(st.one_of(st.text(), st.none(), st.text(".%_ \x00\n[]term0123"), st.text("é.", min_size=400)), unique=True)
)
def test_no_two_terms_share_a_feature_name(tokens: list[str | None]) -> None:
    named = [token for token in tokens if token is not None]
    vocabulary = Vocabulary(tokens)
    names = [escape(term) for term in vocabulary.terms]
    assert len(set(names)) == len(tokens)
    assert [unescape(name) for name in names] == list(vocabulary.terms)
    for name in names:
        assert name
        assert "." not in name
        assert name == name.strip()
        assert not any(ord(letter) < 0x20 or 0x7F <= ord(letter) < 0xA0 for letter in name)
        assert len(name.encode()) < 32_000  # Lucene's longest term
    assert len(set(map(escape, [*named, ""]))) == len({*named, ""})  # even of what is no vocabulary


def test_word_pieces_stay_readable(tiny: SparseStsEncoder) -> None:
    changed = {term: escape(term) for term in tiny.vocabulary.terms if escape(term) != term}
    assert changed == {".": "%2E", "%": "%25", "##.": "##%2E", "##%": "##%25", "...": "%2E%2E%2E"}
    assert len(set(map(escape, tiny.vocabulary.terms))) == 30_522


@given(hnp.arrays(np.float32, 20, elements=st.floats(2.0**-100, 1, width=32)))
def test_weights_are_rounded_to_nine_bits(weights: np.ndarray[Any, np.dtype[np.float32]]) -> None:
    rounded = feature_weights(weights)
    exact = weights.astype(np.float64)
    assert (abs(rounded - exact) <= FEATURE_ERROR * exact).all()
    assert (rounded.view(np.uint32) & 0x7FFF == 0).all()
    assert (feature_weights(rounded) == rounded).all()


@given(st.dictionaries(st.integers(0, 2**31 - 1), st.floats(0, 1, width=32)))
def test_vectors_are_packed(weights: dict[int, float]) -> None:
    vector = Vector(sorted(weights), [weights[term] for term in sorted(weights)])
    assert unpack(pack(vector)) == vector


@pytest.mark.parametrize("text", ["?", "AAA=", "AAAAAAA=", "ü"])
def test_what_is_no_packed_vector(text: str) -> None:
    with pytest.raises(EngineError, match="not as sparse-sts wrote it"):
        unpack(text)


def test_ids_of_any_length() -> None:
    assert key("ü" * 256) == "ü" * 256
    assert key("ü" * 257).startswith("sha256:")
    assert key(key("ü" * 257)) != key("ü" * 257)  # an id that looks like a digest is no other's digest


def test_retry_after() -> None:
    assert seconds_to_wait("7") == 7
    assert seconds_to_wait("Fri, 01 Jan 1999 00:00:00 GMT") == 0
    assert (seconds_to_wait("Fri, 01 Jan 2100 00:00:00 GMT") or 0) > 1e9
    assert seconds_to_wait("soon") is None
    assert seconds_to_wait(None) is None


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """One of the documents has no term."""
    path = tmp_path_factory.mktemp("files") / "index"
    weights = random_vectors(np.random.default_rng(5), COUNT).toarray()
    weights[7] = 0
    build(path, [f"d{row:03}" for row in range(COUNT)], unit_vectors(weights))
    return Source.of_index(ImpactIndex.open(path))


def vectors(source: Source) -> dict[str, dict[int, float]]:
    """Weights by term, by id."""
    (chunk,) = source.read(0)
    pairs = zip(chunk.documents, vectors_of(chunk.vectors), strict=True)
    return {document.id: dict(zip(v.terms, v.weights, strict=True)) for document, v in pairs if v.terms}


def documents(folder: Path, format: str) -> dict[str, dict[int, float]]:
    """The same, from files."""
    found = {}
    for path in sorted(folder.glob("part-*")):
        text = path.read_text()
        if format in ("elasticsearch", "opensearch"):
            lines = [json.loads(line) for line in text.splitlines()]
            for action, document in zip(lines[::2], lines[1::2], strict=True):
                assert action == {"index": {"_id": document["id"]}}
                packed = unpack(document["vector"])
                weights = dict(zip(packed.terms, packed.weights, strict=True))
                features = {VOCABULARY.terms.index(unescape(n)): weight for n, weight in document["terms"].items()}
                assert features == pytest.approx(weights, rel=FEATURE_ERROR)
                found[document["id"]] = weights
        elif format == "solr":
            for line in text.splitlines():
                document = json.loads(line)
                pairs = [pair.split(DELIMITER) for pair in document["sts_terms"].split()]
                terms = [VOCABULARY.terms.index(term) for term, _ in pairs]
                found[document["id"]] = {t: float(np.float32(w)) for t, (_, w) in zip(terms, pairs, strict=True)}
        elif format == "milvus":
            for row in json.loads(text)["rows"]:
                found[row["id"]] = {int(term): weight for term, weight in row["vector"].items()}
        else:
            for point in json.loads(text)["points"]:
                vector = point["vector"]["vector"]
                found[point["payload"]["id"]] = dict(zip(vector["indices"], vector["values"], strict=True))
    return found


@pytest.mark.parametrize("format", [format for format in FORMATS if format != "ciff"])
def test_files_hold_the_vectors(source: Source, format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparse_sts_index.engines.export.files._PART_BYTES", 9000)
    steps: list[int] = []
    assert export_files(source, format, tmp_path / "out", progress=steps.append) == COUNT - 1
    assert sum(steps) == COUNT
    assert documents(tmp_path / "out", format) == vectors(source)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert (manifest["export"], manifest["documents"]) == (format, COUNT - 1)
    assert {*manifest["files"], "manifest.json"} == {path.name for path in (tmp_path / "out").iterdir()}
    parts = [path for path in (tmp_path / "out").iterdir() if path.name.startswith("part-")]
    assert len(parts) > 1
    assert all(path.stat().st_size < 9100 for path in parts)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_corpus_is_exported_like_its_index(tiny: SparseStsEncoder, sample_index: Any, tmp_path: Path) -> None:
    encoded = Source.of_corpus(read_corpus("sample"), tiny, Quantizer())
    for name, source in (("a", encoded), ("b", Source.of_index(ImpactIndex.open(sample_index.path)))):
        assert export_files(source, "qdrant", tmp_path / name) == 1000
    assert (tmp_path / "a" / "part-00001.json").read_bytes() == (tmp_path / "b" / "part-00001.json").read_bytes()


def test_a_folder_is_there_whole_or_not_at_all(source: Source, tmp_path: Path) -> None:
    def fails(skip: int) -> Any:
        yield from source.read(skip)
        raise DataError("line 9")

    broken = Source(source.metadata, source.vocabulary, "", None, fails)
    with pytest.raises(DataError, match="line 9"):
        export_files(broken, "solr", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "out").mkdir()
    export_files(source, "solr", tmp_path / "out")
    with pytest.raises(DataError, match="already holds an export"):
        export_files(source, "milvus", tmp_path / "out")
    with pytest.raises(DataError, match="line 9"):
        export_files(broken, "milvus", tmp_path / "out", overwrite=True)
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["export"] == "solr"
    export_files(source, "milvus", tmp_path / "out", overwrite=True)
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["export"] == "milvus"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").touch()
    with pytest.raises(DataError, match=r"is not an export and not empty \(it holds letter.txt\)"):
        export_files(source, "solr", tmp_path / "mine", overwrite=True)
    with pytest.raises(DataError, match="is a file, not a folder for an export"):
        export_files(source, "solr", tmp_path / "mine" / "letter.txt", overwrite=True)
    with pytest.raises(DataError, match="/proc is a mount point and cannot be replaced"):
        export_files(source, "solr", "/proc", overwrite=True)
    with pytest.raises(DataError, match="no folder"):
        export_files(source, "solr", tmp_path / "none" / "out")


@pytest.mark.parametrize("content", ["5", "[]", "null", "{}", "[" * 100_000, "no"], ids=lambda content: content[:5])
def test_a_manifest_that_is_none_of_an_export(source: Source, tmp_path: Path, content: str) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "manifest.json").write_text(content)
    with pytest.raises(DataError, match="is not an export and not empty"):
        export_files(source, "solr", tmp_path / "mine", overwrite=True)
    assert (tmp_path / "mine" / "manifest.json").read_text() == content


def test_the_old_export_stays_until_the_new_one_is_there(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_files(source, "solr", tmp_path / "out")
    rename = Path.rename

    def fails(self: Path, target: Path) -> Path:
        if self.name.endswith(".partial"):
            raise OSError(28, "No space left on device")
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", fails)
        with pytest.raises(DataError, match="No space left"):
            export_files(source, "milvus", tmp_path / "out", overwrite=True)
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["export"] == "solr"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_export_goes_where_a_link_leads(source: Source, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "out")
    for overwrite in (False, True):
        export_files(source, "solr", tmp_path / "link", overwrite=overwrite)
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "disk" / "out" / "manifest.json").is_file()
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["out"]


def test_a_milvus_collection_made_of_exported_files_is_recognised(source: Source, tmp_path: Path) -> None:
    """Made as Milvus's HTTP API does it: a creation knows no properties, they are altered afterwards."""
    pytest.importorskip("pymilvus")
    export_files(source, "milvus", tmp_path / "out")
    creation, properties = (
        json.loads((tmp_path / "out" / name).read_text()) for name in ("collection.json", "properties.json")
    )
    assert (set(creation), set(properties)) == ({"schema", "indexParams"}, {"properties"})
    engine = connect(f"milvus+file:{tmp_path}/m.db/glosses")
    client = engine._client  # type: ignore[attr-defined]
    types = {"VarChar": 21, "JSON": 23, "SparseFloatVector": 104}
    schema = client.create_schema(auto_id=creation["schema"]["autoID"], enable_dynamic_field=False)
    for field in creation["schema"]["fields"]:
        parameters = {"is_primary": field.get("isPrimary", False), **field.get("elementTypeParams", {})}
        schema.add_field(field["fieldName"], types[field["dataType"]], **parameters)
    index = client.prepare_index_params()
    for asked in creation["indexParams"]:
        index.add_index(asked["fieldName"], metric_type=asked["metricType"], **asked["params"])
    client.create_collection("glosses", schema=schema, index_params=index)
    with pytest.raises(EngineError, match="not made by sparse-sts"):
        engine.metadata()
    client.alter_collection_properties("glosses", **properties)
    assert engine.metadata() == source.metadata
    assert push(source, engine).documents == COUNT - 1
    engine.close()


def test_a_corpus_has_no_journal(tiny: SparseStsEncoder, tmp_path: Path) -> None:
    corpus = Source.of_corpus(iter(()), tiny, Quantizer())
    engine = connect(f"qdrant+file:{tmp_path}/q/c")
    with pytest.raises(ValueError, match="a journal is kept of an index"):
        push(corpus, engine, journal=tmp_path / "journal")
    with pytest.raises(ValueError, match="from its beginning"):
        corpus.read(1)
    engine.close()


def test_metadata_of_others_is_none() -> None:
    target = parse_url("milvus+http://host/x")
    for text in (None, "", "x", "[]", "{}", '{"model": 1, "other": 2}', 3):
        with pytest.raises(EngineError, match="not made by sparse-sts"):
            Metadata.from_json(text, target)


def ciff_messages() -> dict[str, Any]:
    """Message classes of the published ciff.proto, by name, from a descriptor made here."""
    descriptor_pb2 = pytest.importorskip("google.protobuf.descriptor_pb2")
    from google.protobuf import descriptor_pool, message_factory

    kinds = {"int32": 5, "int64": 3, "double": 1, "string": 9, "Posting": 11}
    fields = {
        "Header": "int32 version, int32 num_postings_lists, int32 num_docs, int32 total_postings_lists,"
        " int32 total_docs, int64 total_terms_in_collection, double average_doclength, string description",
        "Posting": "int32 docid, int32 tf",
        "PostingsList": "string term, int64 df, int64 cf, Posting postings",
        "DocRecord": "int32 docid, string collection_docid, int32 doclength",
    }
    file = descriptor_pb2.FileDescriptorProto(name="ciff.proto", package="ciff", syntax="proto3")
    for message, declared in fields.items():
        described = file.message_type.add(name=message)
        for number, field in enumerate(declared.split(", "), 1):
            kind, name = field.split()
            added = described.field.add(name=name, number=number, type=kinds[kind], label=1)
            if kind == "Posting":
                added.type_name, added.label = ".ciff.Posting", 3
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"ciff.{name}")) for name in fields}


def read_ciff(path: Path) -> tuple[Any, list[Any], list[Any]]:
    messages, content, place = ciff_messages(), path.read_bytes(), 0

    def read(kind: str) -> Any:
        nonlocal place
        length = shift = 0
        while True:
            byte, place = content[place], place + 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        place += length
        return messages[kind].FromString(content[place - length : place])

    header = read("Header")
    lists = [read("PostingsList") for _ in range(header.num_postings_lists)]
    records = [read("DocRecord") for _ in range(header.num_docs)]
    assert place == len(content)
    return header, lists, records


def test_ciff_is_read_by_the_published_format(source: Source, tmp_path: Path) -> None:
    assert export_files(source, "ciff", tmp_path / "out") == COUNT
    header, lists, records = read_ciff(tmp_path / "out" / "index.ciff")
    (chunk,) = source.read(0)
    assert [record.collection_docid for record in records] == [document.id for document in chunk.documents]
    assert [record.docid for record in records] == list(range(COUNT))
    assert [each.term for each in lists] == sorted(each.term for each in lists)
    impacts = np.zeros((COUNT, len(VOCABULARY)), int)
    for each in lists:
        column = VOCABULARY.terms.index(each.term)
        rows = np.cumsum([posting.docid for posting in each.postings])
        impacts[rows, column] = [posting.tf for posting in each.postings]
        assert (each.df, each.cf) == (len(rows), impacts[:, column].sum())
    assert (impacts == chunk.impacts.toarray()).all()
    assert [record.doclength for record in records] == impacts.sum(axis=1).tolist()
    assert header.total_terms_in_collection == impacts.sum()
    assert header.average_doclength == pytest.approx(impacts.sum() / COUNT)
    cosines = (chunk.vectors @ chunk.vectors.T).toarray()
    assert impacts @ impacts.T / 255**2 == pytest.approx(cosines, abs=0.02)
