from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sparse_sts_index import DataError, Document, Quantizer, export_vectors
from sparse_sts_index._utils.files import atomic_writer

if TYPE_CHECKING:
    from sparse_sts_index import SparseStsEncoder

DOCUMENTS = [Document("ü 1", "A cat sleeps."), Document("2", 'Tabs\tand "quotes" 😀\n')]


def test_lines_hold_the_quantized_vectors(tiny: SparseStsEncoder) -> None:
    file = io.StringIO()
    assert export_vectors(DOCUMENTS, tiny, file, quantizer=Quantizer(6)) == 2
    lines = [json.loads(line) for line in file.getvalue().splitlines()]
    assert [(line["id"], line["contents"]) for line in lines] == [(d.id, d.text) for d in DOCUMENTS]
    impacts = Quantizer(6).quantize(tiny.encode([d.text for d in DOCUMENTS])).toarray()
    for row, line in enumerate(lines):
        assert list(line) == ["id", "contents", "vector"]
        ids = [tiny.vocabulary.terms.index(term) for term in line["vector"]]
        assert impacts[row, ids].tolist() == list(line["vector"].values())
        assert (impacts[row] > 0).sum() == len(ids)
        assert list(line["vector"].values()) == sorted(line["vector"].values(), reverse=True)
        assert max(line["vector"].values()) <= 63


def test_no_documents_and_duplicates(tiny: SparseStsEncoder) -> None:
    with pytest.raises(DataError, match="no documents to export"):
        export_vectors([], tiny, io.StringIO())
    with pytest.raises(DataError, match="duplicate id '2'"):
        export_vectors([*DOCUMENTS, DOCUMENTS[1]], tiny, io.StringIO())


def test_atomic_writer(tmp_path: Path) -> None:
    for name in ("a.txt", "a.txt.gz"):
        path = tmp_path / name
        for text in ("erste\n", "zweite ü\n" * 10_000):
            with atomic_writer(path) as file:
                file.write(text)
                assert not path.exists() or path.stat().st_size < 100
            assert (gzip.decompress(path.read_bytes()) if name.endswith("gz") else path.read_bytes()).decode() == text
            path_before = path.read_bytes()
        with pytest.raises(UnicodeEncodeError), atomic_writer(path) as file:
            file.writelines(["lost", "\ud800"])
        assert path.read_bytes() == path_before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.txt", "a.txt.gz"]
    for path, message in ((tmp_path / "x" / "y", "no folder"), (tmp_path, "it is a folder")):
        with pytest.raises(DataError, match=f"cannot write .*{message}"), atomic_writer(path):
            pass
    (tmp_path / "link").symlink_to(tmp_path / "a.txt")
    with atomic_writer(tmp_path / "link") as file:
        file.write("through the link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "a.txt").read_text() == "through the link"
    with atomic_writer("/dev/null") as file:
        file.write("gone")
    assert not Path("/dev/null").is_file()
