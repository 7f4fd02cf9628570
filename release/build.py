"""Build sdist and wheel of the last commit twice, in two folders, and keep them if they are the same: `make dist`.

The times in both are that of the commit (SOURCE_DATE_EPOCH). setuptools sees to that in the wheel; its sdist is packed
anew here, with names, times, owners and order that depend on nothing but the commit. The wheel is built from the sdist.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def git(*arguments: str) -> bytes:
    """What git says of this repository."""
    return subprocess.run(["git", "-C", str(ROOT), *arguments], check=True, stdout=subprocess.PIPE).stdout


def repack(archive: Path, target: Path, epoch: int) -> None:
    """Write an sdist anew, such that the same files make the same bytes."""
    with (
        tarfile.open(archive) as source,
        target.open("wb") as raw,
        gzip.GzipFile("", "wb", fileobj=raw, mtime=epoch) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as output,
    ):
        for member in sorted(source.getmembers(), key=lambda member: member.name):
            member.mtime, member.mode = epoch, 0o755 if member.isdir() else 0o644
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            output.addfile(member, source.extractfile(member))


def build(folder: Path, epoch: int, **environment: str) -> dict[str, Path]:
    """Sdist and wheel by file name, built in a folder of their own."""
    source, output = folder / "source", folder / "dist"
    with tarfile.open(fileobj=io.BytesIO(git("archive", "HEAD"))) as archive:
        archive.extractall(source, filter="data")
    output.mkdir()
    variables = os.environ | environment | {"SOURCE_DATE_EPOCH": str(epoch)}
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir"]

    def run(*arguments: str | Path) -> None:
        done = subprocess.run([*command, *map(str, arguments)], env=variables, text=True, capture_output=True)
        if done.returncode:
            sys.exit(done.stdout + done.stderr)

    run(folder, "--sdist", source)
    (sdist,) = folder.glob("*.tar.gz")
    repack(sdist, output / sdist.name, epoch)
    with tarfile.open(output / sdist.name) as archive:
        archive.extractall(folder, filter="data")
    run(output, "--wheel", folder / sdist.name.removesuffix(".tar.gz"))
    return {path.name: path for path in sorted(output.iterdir())}


def main() -> None:
    """Build twice, compare, and copy to the folder that is named."""
    if git("status", "--porcelain"):
        sys.exit("commit first: what is built is the last commit")
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    os.umask(0o022)  # modes are in the wheel
    epoch = int(git("log", "-1", "--format=%ct"))
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory(suffix="-with-another-name") as second:
        one = build(Path(first), epoch, TZ="UTC", PYTHONHASHSEED="1")
        two = build(Path(second), epoch, TZ="Asia/Kathmandu", PYTHONHASHSEED="2", LC_ALL="C")
        for name, path in one.items():
            if path.read_bytes() != two[name].read_bytes():
                sys.exit(f"{name}: two builds of one commit differ")
            shutil.copyfile(path, target / name)
            sys.stdout.write(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {name}\n")


if __name__ == "__main__":
    main()
