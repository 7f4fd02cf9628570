"""Run the installed command, as a user's shell would."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def sparse_sts() -> Run:
    script = Path(sys.executable).with_name("sparse-sts")
    assert script.is_file(), "the package is not installed in this environment"

    def run(*arguments: object, input: str | bytes = b"", **environment: str) -> subprocess.CompletedProcess[str]:
        process = subprocess.run(
            [script, *map(str, arguments)],
            input=input if isinstance(input, bytes) else input.encode(),
            capture_output=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1", **environment},
            timeout=600,
        )
        return subprocess.CompletedProcess(
            process.args, process.returncode, process.stdout.decode(), process.stderr.decode()
        )

    return run
