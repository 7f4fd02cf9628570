"""Compile the project's Java into the jar that the package carries: `make jar`, after a change of the source.

The jar is committed, since whoever installs or builds the package may have no JDK. One release of javac always makes
the same bytes of the same source; the jar says which release that was, and the SHA-256 of the source.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from sparse_sts_index.storage.lucene.jvm import JAVA_JAR, MINIMUM_JAVA, anserini_jar

SOURCE = JAVA_JAR.with_name("LuceneCalls.java")
_LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip file can hold


def find_javac() -> tuple[Path, int] | None:
    """Return a javac of JDK 21 or newer and its release, or None: that of JAVA_HOME, PATH or /usr/lib/jvm."""
    for javac in _candidates():
        if javac.is_file():
            version = subprocess.run([javac, "-version"], capture_output=True, text=True, check=True)
            match = re.search(r"javac (\d+)", version.stdout + version.stderr)
            if match and int(match[1]) >= MINIMUM_JAVA:
                return javac, int(match[1])
    return None


def _candidates() -> Iterator[Path]:
    if home := os.environ.get("JAVA_HOME"):
        yield Path(home, "bin", "javac")
    if on_path := shutil.which("javac"):
        yield Path(on_path)
    for home in sorted(Path("/usr/lib/jvm").glob("*")):
        yield home / "bin" / "javac"


def build(jar: Path, javac: Path, release: int, class_path: Path) -> None:
    """Compile the source against Anserini's jar, `class_path`, and write the jar."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["--release", str(MINIMUM_JAVA), "-g:source,lines", "-Xlint:all", "-Werror", "-proc:none"]
        command = [javac, *options, "-classpath", class_path, "-d", folder, SOURCE]
        subprocess.run(command, check=True)
        entries = {
            "META-INF/MANIFEST.MF": f"Manifest-Version: 1.0\r\nBuild-Jdk-Spec: {release}\r\n\r\n".encode(),
            f"META-INF/{SOURCE.name}.sha256": hashlib.sha256(SOURCE.read_bytes()).hexdigest().encode(),
        }
        for file in sorted(Path(folder).rglob("*.class")):
            entries[file.relative_to(folder).as_posix()] = file.read_bytes()
    with zipfile.ZipFile(jar, "w") as archive:  # not compressed: zlib's releases differ in what they write
        for name, content in entries.items():
            entry = zipfile.ZipInfo(name, _LONG_AGO)
            entry.create_system = 3  # on Windows, too
            archive.writestr(entry, content)


def main() -> None:
    """Build the jar in its place."""
    found = find_javac()
    if found is None:
        sys.exit(f"no javac of a JDK {MINIMUM_JAVA} or newer: set JAVA_HOME")
    build(JAVA_JAR, *found, anserini_jar())
    sys.stdout.write(f"{hashlib.sha256(JAVA_JAR.read_bytes()).hexdigest()}  {JAVA_JAR.name}\n")


if __name__ == "__main__":
    main()
