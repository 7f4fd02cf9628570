"""A Spark session to work in: the Java it runs on, its settings, and what its failures say."""

from __future__ import annotations

import functools
import os
import re
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from sparse_sts_index import errors
from sparse_sts_index.errors import ClusterError, JavaError, MissingExtraError, SparseStsError

if TYPE_CHECKING:
    from pyspark import SparkConf
    from pyspark.sql import SparkSession

MINIMUM_JAVA = 17  # what Spark 4 asks for
_MODULE = "jdk.incubator.vector"  # which Spark's launcher adds, and no Java starts with if it lacks it
_INSTALLED = Path("/usr/lib/jvm")
_SPARK = r"(?:org\.apache\.spark\.SparkException: )?"
_NOISE = re.compile(rf"{_SPARK}(?:Job aborted .*?\(TID \d+\) \([^()]*\): )?{_SPARK}")  # what a task's failure is put in
_RAISED = re.compile(rf"^{re.escape(errors.__name__)}\.(\w+): (.*)$", re.MULTILINE)


def find_spark_java() -> Path:
    """The home of the Java that Spark is to run on: JAVA_HOME, else that of ``java``, else what Linux has installed.

    Raises
    ------
    JavaError
        None of them is Java 17 or newer with the module ``jdk.incubator.vector``.
    """
    on_path = shutil.which("java")
    places = [Path(os.environ["JAVA_HOME"])] if os.environ.get("JAVA_HOME") else []
    places += [Path(on_path).resolve().parents[1]] if on_path else []
    found: dict[str, None] = {}
    for place in [*places, *sorted(_INSTALLED.glob("*"))]:
        lacks = _lacks(place)
        if lacks is None:
            return place
        if lacks:
            found[f"{place} {lacks}"] = None
    raise JavaError(
        f"Spark needs a JDK {MINIMUM_JAVA} or newer, such as Debian's openjdk-17-jre-headless; set JAVA_HOME to it "
        f"(found: {'; '.join(found) or 'none'})"
    )


def _lacks(home: Path) -> str | None:
    """What a Java lacks for Spark, nothing at all being None; empty if it is no Java."""
    try:
        release = (home / "release").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    version = re.search(r'^JAVA_VERSION="(\d+)', release, re.MULTILINE)
    modules = re.search(r'^MODULES="(.*)"', release, re.MULTILINE)
    if version is None or not (home / "bin" / "java").is_file():
        return ""
    if int(version[1]) < MINIMUM_JAVA:
        return f"is Java {version[1]}"
    if modules is not None and _MODULE not in modules[1].split():
        return f"lacks the module {_MODULE}"
    return None


@contextmanager
def spark_session(master: str, settings: Mapping[str, str] | None = None) -> Iterator[SparkSession]:
    """A Spark session of this process, stopped when the block ends; what goes wrong in it is raised as one line.

    All sessions of a process run on one Java, which starts with the first of them and ends with the process.

    Parameters
    ----------
    master : str
        Such as ``local[4]``, ``local-cluster[2,1,2048]``, ``spark://host:7077`` or ``yarn``.
    settings : mapping of str to str, optional
        Of Spark, such as ``{"spark.executor.memory": "8g"}``. Its Python workers run the interpreter that the
        environment variable PYSPARK_PYTHON names, else one where this one is.

    Raises
    ------
    MissingExtraError
        PySpark is not installed.
    JavaError
        No Java for Spark.
    ClusterError
        Spark does not start, or a job of it fails. An error of this library that a worker raises arrives as itself.
    """
    try:
        from pyspark import SparkConf
    except ImportError as error:
        raise MissingExtraError("pyspark", "spark") from error
    conf = SparkConf().setMaster(master).setAppName("sparse-sts")
    conf.set("spark.ui.showConsoleProgress", "false").set("spark.log.level", "ERROR")
    for name, value in (settings or {}).items():
        conf.set(name, value)
    with one_line_errors():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # a pandas, which is not used, newer than PySpark knows
            session = _start(conf)
        try:
            yield session
        finally:
            session.stop()


@contextmanager
def one_line_errors() -> Iterator[None]:
    """What goes wrong in jobs of Spark, raised as :func:`spark_session` raises it; for a session that others made."""
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    try:
        yield
    except (Py4JError, PySparkException) as error:
        raise _one_line(error) from error


@functools.cache
def _log() -> IO[bytes]:
    """Where the Java of this process writes what it would say on stderr; Spark logs much at every start."""
    return tempfile.TemporaryFile("a+b")


def _start(conf: SparkConf) -> SparkSession:
    """A session, on the Java that is there, if there is one."""
    from py4j.protocol import Py4JError
    from pyspark import SparkContext
    from pyspark.errors import PySparkRuntimeError
    from pyspark.java_gateway import launch_gateway
    from pyspark.sql import SparkSession

    variables = {
        "JAVA_HOME": str(find_spark_java()),
        "PYSPARK_PYTHON": os.environ.get("PYSPARK_PYTHON", sys.executable),
    }
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    logged, context = _log().seek(0, os.SEEK_END), None
    try:
        gateway = SparkContext._gateway  # noqa: SLF001
        if gateway is None:
            gateway = launch_gateway(conf, popen_kwargs={"stderr": _log()})  # type: ignore[no-untyped-call]
        context = SparkContext(conf=conf, gateway=gateway)
        session = SparkSession(context)
        if context._jsc.sc().isStopped():  # without a master it stops a minute later, and tells nobody but its log why  # noqa: SLF001
            raise PySparkRuntimeError("it has stopped again")
        return session
    except (PySparkRuntimeError, Py4JError) as error:
        if context is not None:
            context.stop()
        _log().seek(logged)
        said = _log().read().decode(errors="replace")
        raise ClusterError(f"Spark does not start: {_why(said, str(error))}") from error
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _why(log: str, error: str) -> str:
    """Why Spark does not start, by what its Java has said before it went, or by what it raised."""
    lines = log.strip().splitlines()
    telling = [line for line in lines if "Error" in line or "Exception" in line]
    reason = re.search(r"Reason: (.*)", log)
    return reason[1] if reason else _java(error) or (telling or lines or [error])[0]


def _java(text: str) -> str:
    """What Java has raised, and what it says was the cause, if it says what that was; empty if it has not."""
    raised, causes = (
        re.search(r"^: (\S.*)$", text, re.MULTILINE),
        re.findall(r"^Caused by: (\S.*)$", text, re.MULTILINE),
    )
    if raised is None:
        return ""
    said, cause = (_NOISE.sub("", line, count=1).strip() for line in (raised[1], (causes or [""])[-1]))
    return f"{said} ({cause})" if ": " in cause and cause not in said else said


def _one_line(error: Exception) -> SparseStsError:
    """What a worker raised, if it is an error of this library; else the last that Python says, or the first of Java."""
    text = str(error)
    if raised := _RAISED.search(text):
        kind = getattr(errors, raised[1], None)
        if isinstance(kind, type) and issubclass(kind, SparseStsError) and kind is not MissingExtraError:
            return kind(raised[2])
    python = re.findall(r"^(\w[\w.]*(?:Error|Exception|Exit|Interrupt)(?::.*)?)$", text, re.MULTILINE)
    lines = [*python[-1:], _java(text), *text.strip().splitlines(), type(error).__name__]
    return ClusterError(f"the Spark job failed: {next(filter(None, lines))}")
