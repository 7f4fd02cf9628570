"""A manifest is read back as written; additions of newer versions are ignored, or refused by name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sparse_sts_index import ImpactIndexError, Manifest
from sparse_sts_index.storage.manifest import FORMAT_VERSION, OLDEST_VERSION
from sparse_sts_index.storage.vector_files import Extent
from tests.support import VOCABULARY

GOOD = json.loads(Manifest.without_model(VOCABULARY, 8).to_json()) | {
    "vectors": Extent.empty("vectors-000001").to_json()
}


def read(**changed: Any) -> Manifest:
    return Manifest.from_json(json.dumps({**GOOD, **changed}))


def test_what_is_written_is_read_back() -> None:
    manifest = read(software={"lucene": "9.9.1"}, documents=0, max_active_dims=5)
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert json.loads(manifest.to_json()) == {**GOOD, "software": {"lucene": "9.9.1"}, "max_active_dims": 5}
    assert not manifest.unknown
    manifest.check_known("idx")


def test_version_3_is_read_as_what_it_means() -> None:
    sizes = dict(zip(GOOD["vectors"]["files"], (8, 8, 16, 3, 16, 8), strict=True))
    crc32 = dict(zip(sizes, range(6), strict=True))
    old = {name: value for name, value in GOOD.items() if name != "features"}
    old |= {"format_version": 3, "vectors": {"folder": "vectors-000007", "sizes": sizes, "crc32": crc32}}
    manifest = Manifest.from_json(json.dumps(old))
    assert manifest.format_version == OLDEST_VERSION == 3
    assert manifest.vectors == Extent("vectors-000007", sizes, crc32)
    assert json.loads(manifest.to_json())["format_version"] == FORMAT_VERSION
    assert Manifest.from_json(manifest.to_json()).vectors == manifest.vectors


def test_additions_are_passed_over_by_readers_and_stop_writers() -> None:
    files = GOOD["vectors"]["files"] | {"created.i64": {"bytes": 8, "crc32": 1, "rows": 1}}
    manifest = read(
        owners=[{"name": "created"}],
        vectors={"folder": "vectors-000001", "files": files},
        software={"sparse-sts-index": "0.9.0"},
    )
    assert manifest.vectors == read().vectors
    assert manifest.unknown == ("owners", "created.i64")
    assert read(vectors=GOOD["vectors"] | {"tails": 1}).unknown == ("tails",)
    one = GOOD["vectors"]["files"]["dead.i64"] | {"rows": 7}
    vectors = GOOD["vectors"] | {"files": GOOD["vectors"]["files"] | {"dead.i64": one}}
    assert read(vectors=vectors).unknown == ("rows of dead.i64",)
    with pytest.raises(
        ImpactIndexError, match=r"^idx can be read here, and not changed: .* owners, created.i64 .*0\.9\.0"
    ):
        manifest.check_known("idx")


def test_unknown_features_are_refused_whatever_else_is_there() -> None:
    with pytest.raises(ImpactIndexError, match=r"has folded, tails \(sparse-sts-index 1\.2 wrote it\).*update"):
        read(features=["tails", "folded"], software={"sparse-sts-index": "1.2"}, vectors={"of": "another form"})


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (FORMAT_VERSION + 1, r"has format version 5, which this version does not know: update"),
        (OLDEST_VERSION - 1, r"format version 2; this version reads 3 to 4: rebuild it"),
    ],
)
def test_other_versions_are_refused_with_what_to_do(version: int, message: str) -> None:
    with pytest.raises(ImpactIndexError, match=message):
        read(format_version=version)


def test_another_precision_is_read() -> None:
    """Vectors are vectors; only who encodes has to know of it."""
    assert read(precision="int8").precision == "int8"
