"""Write the locks of this folder from pyproject.toml, constraints.txt and the .in files: `make lock`.

uv resolves, for every platform and Python that the project admits, and takes the hashes of all files of a version from
the index. Only torch is two things, of which an environment gets one:

- torch-cpu.lock is PyTorch's own CPU wheel, which is not on PyPI. Where it comes from is pip's business
  (PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu, say); the hash is that of the wheel for the running Python.
- torch-pypi.lock is PyPI's torch, with the libraries of CUDA that it asks for on Linux.

light.lock has Pyserini without what it needs itself, which is torch and much more: storage and search use its jar only.

Arguments go to uv: `--upgrade`, `--upgrade-package NAME`.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tempfile
import zipfile
from email import message_from_bytes
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "requirements"


def names(lock: str) -> set[str]:
    """The packages of a lock."""
    return set(re.findall(r"^([a-z0-9][a-z0-9.-]*)==", lock, re.MULTILINE))


def resolve(*inputs: str, output: Path | None = None, stdin: str = "", options: tuple[str, ...] = ()) -> str:
    """The lock of some inputs; pins that `output` has are kept, unless the options say otherwise."""
    command = [str(Path(sys.executable).with_name("uv")), "pip", "compile", "--no-config", "--universal"]
    command += ["--python-version", "3.11", "--generate-hashes", "--quiet"]
    command += ["--custom-compile-command", "make lock", "--constraints", "constraints.txt"]
    command += [*options, *inputs]
    if output is not None:
        command += ["--output-file", str(output.relative_to(ROOT))]
    return subprocess.run(command, cwd=ROOT, input=stdin, text=True, check=True, stdout=subprocess.PIPE).stdout


def cpu_torch(version: str) -> tuple[str, list[str]]:
    """Hash and requirements of the CPU wheel of torch that pip finds."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", "torch"]
        done = subprocess.run([*command, "--dest", folder, f"torch=={version}+cpu"], stdout=subprocess.DEVNULL)
        if done.returncode:
            sys.exit("no CPU build of torch: set PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu")
        (wheel,) = Path(folder).iterdir()
        with zipfile.ZipFile(wheel) as archive:
            (metadata,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
            requirements = message_from_bytes(archive.read(metadata)).get_all("Requires-Dist", [])
        return hashlib.sha256(wheel.read_bytes()).hexdigest(), requirements


def main() -> None:
    """Write the locks."""
    options = tuple(sys.argv[1:])
    pin = re.search(r"^torch==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    if pin is None:
        sys.exit("constraints.txt pins no torch")
    sha256, requirements = cpu_torch(pin[1])
    pypi, cpu = (names(resolve("-", stdin=torch)) for torch in ("torch", "\n".join(requirements)))
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as cuda:
        cuda.write("\n".join(sorted(pypi - cpu - {"torch"})))
        cuda.flush()
        without = ("--no-emit-package", "torch", "--excludes", cuda.name)
        extras = ("--extra", "tiny", "--extra", "dev")
        resolve("pyproject.toml", output=FOLDER / "test.lock", options=(*options, *without, *extras))
        extras = ("--extra", "tiny", "--extra", "serve", "--constraints", "requirements/test.lock")
        resolve("pyproject.toml", output=FOLDER / "serve.lock", options=(*options, *without, *extras))
    (FOLDER / "torch-cpu.lock").write_text(f"torch=={pin[1]}+cpu \\\n    --hash=sha256:{sha256}\n")
    consistent = (*options, "--constraints", "requirements/test.lock")  # it goes into the same environment
    resolve("-", stdin="torch", output=FOLDER / "torch-pypi.lock", options=consistent)
    resolve("docs/tools/requirements.txt", output=FOLDER / "docs.lock", options=consistent)
    for name in ("fuzz", "mutation"):
        resolve(f"requirements/{name}.in", output=FOLDER / f"{name}.lock", options=consistent)
    without_needs = resolve("-", stdin="pyserini", options=(*consistent, "--no-deps", "--no-header"))
    light = resolve("requirements/light.in", options=consistent)
    (FOLDER / "light.lock").write_text(light + without_needs)
    for name in ("build", "release"):
        resolve(f"requirements/{name}.in", output=FOLDER / f"{name}.lock", options=options)


if __name__ == "__main__":
    main()
