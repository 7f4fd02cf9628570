"""A Spark session to work in: the Java it runs on, its settings, and what its failures say."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparse_sts_index import errors
from sparse_sts_index.errors import ClusterError, JavaError, MissingExtraError, SparseStsError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

MINIMUM_JAVA = 17  # what Spark 4 asks for
_MODULE = "jdk.incubator.vector"  # which Spark's launcher adds, and no Java starts with if it lacks it
_INSTALLED = Path("/usr/lib/jvm")
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
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise MissingExtraError("pyspark", "spark") from error
    conf = SparkConf().setMaster(master).setAppName("sparse-sts")
    conf.set("spark.ui.showConsoleProgress", "false").set("spark.log.level", "ERROR")
    for name, value in (settings or {}).items():
        conf.set(name, value)
    with tempfile.TemporaryFile() as log, one_line_errors():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # a pandas, which is not used, newer than PySpark knows
            session = SparkSession(_start(conf, log))
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


def _start(conf: Any, log: Any) -> Any:
    """A Spark context whose Java writes what it would say on stderr to a file; Spark logs much at every start."""
    from pyspark import SparkContext
    from pyspark.errors import PySparkRuntimeError
    from pyspark.java_gateway import launch_gateway

    variables = {
        "JAVA_HOME": str(find_spark_java()),
        "PYSPARK_PYTHON": os.environ.get("PYSPARK_PYTHON", sys.executable),
    }
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        gateway = launch_gateway(conf, popen_kwargs={"stderr": log})  # type: ignore[no-untyped-call]
        return SparkContext(conf=conf, gateway=gateway)
    except PySparkRuntimeError as error:
        log.seek(0)
        lines = log.read().decode(errors="replace").strip().splitlines()
        telling = [line for line in lines if "Error" in line or "Exception" in line]
        raise ClusterError(f"Spark does not start: {(telling or lines or [error])[0]}") from error
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _one_line(error: Exception) -> SparseStsError:
    """What a worker raised, if it is an error of this library; else the last that is said of the cause."""
    text = str(error)
    if raised := _RAISED.search(text):
        kind = getattr(errors, raised[1], None)
        if isinstance(kind, type) and issubclass(kind, SparseStsError) and kind is not MissingExtraError:
            return kind(raised[2])
    python = re.findall(r"^(\w[\w.]*(?:Error|Exception|Exit|Interrupt)(?::.*)?)$", text, re.MULTILINE)
    java = re.findall(r"^(?:Caused by: |: )(\S.*)$", text, re.MULTILINE)
    lines = python[-1:] or java[-1:] or text.strip().splitlines()[:1]
    return ClusterError(f"the Spark job failed: {lines[0] if lines else type(error).__name__}")
