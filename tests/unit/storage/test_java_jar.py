"""The jar of the project's own Java: made of the source that lies beside it, and the same wherever it is made."""

from __future__ import annotations

import hashlib
import importlib.util
import re
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from sparse_sts_index.storage.lucene.jvm import JAVA_JAR, anserini_jar


@pytest.fixture
def builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("jar", Path(__file__).parents[3] / "release" / "jar.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_jar_is_made_of_the_source_beside_it(builder: ModuleType) -> None:
    with zipfile.ZipFile(JAVA_JAR) as jar:
        recorded = jar.read(f"META-INF/{builder.SOURCE.name}.sha256").decode()
    assert recorded == hashlib.sha256(builder.SOURCE.read_bytes()).hexdigest(), "make jar"


def test_classes_are_of_java_21() -> None:
    with zipfile.ZipFile(JAVA_JAR) as jar:
        classes = [jar.read(name) for name in jar.namelist() if name.endswith(".class")]
    assert classes
    assert {int.from_bytes(content[6:8], "big") for content in classes} == {65}  # JVM specification, 4.1


def test_rebuilt_jar_is_the_same(builder: ModuleType, tmp_path: Path) -> None:
    found = builder.find_javac()
    if found is None:
        pytest.skip("no javac of a JDK 21 or newer")
    javac, release = found
    with zipfile.ZipFile(JAVA_JAR) as jar:
        manifest = jar.read("META-INF/MANIFEST.MF").decode()
    if f"Build-Jdk-Spec: {release}\r\n" not in manifest:
        pytest.skip(f"javac {release} here, {re.search('Build-Jdk-Spec: .*', manifest)} in the jar")
    builder.build(tmp_path / "rebuilt.jar", javac, release, anserini_jar())
    assert (tmp_path / "rebuilt.jar").read_bytes() == JAVA_JAR.read_bytes()
