"""Write the locks of this folder from pyproject.toml, constraints.txt and the .in files: `make lock`.

uv resolves, for every platform and Python that the project admits, and takes the hashes of all files of a version from
the index. What it is not to see is which torch pip will take, and with it whether CUDA's libraries are needed:

- PyPI's wheel for Linux asks for them; they are in cuda.lock, and nowhere else.
- PyTorch's own CPU wheel has no need of them, and is not on PyPI. test.lock has its hash beside those of PyPI's wheels.

Where that CPU wheel comes from is pip's business (PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu, say).
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
        subprocess.run([*command, "--dest", folder, f"torch=={version}"], check=True, stdout=subprocess.DEVNULL)
        (wheel,) = Path(folder).iterdir()
        with zipfile.ZipFile(wheel) as archive:
            (metadata,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
            requirements = message_from_bytes(archive.read(metadata)).get_all("Requires-Dist", [])
        if any("nvidia" in requirement for requirement in requirements):
            sys.exit(f"{wheel.name} is no CPU build: set PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu")
        return hashlib.sha256(wheel.read_bytes()).hexdigest(), requirements


def main() -> None:
    """Write the locks."""
    options = tuple(sys.argv[1:])
    pin = re.search(r"^torch==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    if pin is None:
        sys.exit("constraints.txt pins no torch")
    sha256, requirements = cpu_torch(pin[1])
    cuda = names(resolve("-", stdin="torch")) - names(resolve("-", stdin="\n".join(requirements))) - {"torch"}
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as excluded:
        excluded.write("\n".join(sorted(cuda)))
        excluded.flush()
        extras = ("--extra", "tiny", "--extra", "dev", "--excludes", excluded.name)
        resolve("pyproject.toml", output=FOLDER / "test.lock", options=(*options, *extras))
    consistent = ("--constraints", "requirements/test.lock")
    resolve("-", stdin="torch", output=FOLDER / "cuda.lock", options=(*options, *consistent))
    documentation = (*options, *consistent)  # it goes into the same environment
    resolve("docs/tools/requirements.txt", output=FOLDER / "docs.lock", options=documentation)
    for name in ("build", "release"):
        resolve(f"requirements/{name}.in", output=FOLDER / f"{name}.lock", options=options)
    cpu = f"    --hash=sha256:{sha256} \\\n"
    for lock in (FOLDER / "test.lock", FOLDER / "cuda.lock"):
        text = lock.read_text().replace(cpu, "")  # uv keeps what was there
        lock.write_text(re.sub(r"^(torch==.*\n)", lambda block: block[1] + cpu, text, flags=re.MULTILINE))


if __name__ == "__main__":
    main()
