"""Run commands as a user's shell would."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import warm

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def installed() -> Run:
    """The installed command."""
    script = Path(sys.executable).with_name("sparse-sts")
    assert script.is_file(), "the package is not installed in this environment"

    def run(*arguments: object, input: str | bytes = b"", **environment: str) -> subprocess.CompletedProcess[str]:
        process = subprocess.run(
            [script, *map(str, arguments)],
            input=_bytes(input),
            capture_output=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1", **environment},
            timeout=600,
        )
        return subprocess.CompletedProcess(
            process.args, process.returncode, process.stdout.decode(), process.stderr.decode()
        )

    return run


@pytest.fixture(scope="session")
def sparse_sts(installed: Run) -> Run:
    """The same command in a process that starts warm, but where the environment is to be another."""

    def run(*arguments: object, input: str | bytes = b"", **environment: str) -> subprocess.CompletedProcess[str]:
        if environment:
            return installed(*arguments, input=input, **environment)
        outcome = warm.run(arguments, input=_bytes(input))
        return subprocess.CompletedProcess(list(arguments), outcome.status, outcome.stdout, outcome.stderr)

    return run


def _bytes(input: str | bytes) -> bytes:
    return input if isinstance(input, bytes) else input.encode()
