"""A real server, started as a user would."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx


class Server:
    """A running ``sparse-sts serve``: its process, its address, what it has logged so far, how it is to end."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[dict[str, Any]] = []
        self.url = ""
        self.status = 0
        self._listening = threading.Event()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            record = json.loads(line)  # nothing but JSON
            self.lines.append(record)
            if record["event"] == "listening":
                self.url = record["url"]
                self._listening.set()
        self._listening.set()

    def wait(self) -> None:
        assert self._listening.wait(120), "it never listened"
        assert self.url, self.lines

    def client(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60, trust_env=False, **options)

    def events(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["event"] == event]

    def metrics(self) -> dict[str, float]:
        """Return the values of the metrics by name and labels."""
        with self.client() as client:
            lines = client.get("/metrics").text.splitlines()
        return {name: float(value) for name, value in (line.split() for line in lines if not line.startswith("#"))}

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(how)
        status = self.process.wait(60)
        self._reader.join(60)
        return status


@contextlib.contextmanager
def serving(index: Path, *options: object, **environment: str) -> Iterator[Server]:
    """Serve an index at a free port; stopped at the end, when it must have ended well."""
    script = Path(sys.executable).with_name("sparse-sts")
    process = subprocess.Popen(
        [script, "serve", str(index), "--port", "0", *map(str, options)],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a terminal's signals are for a group
        env={**os.environ, "HF_HUB_OFFLINE": "1", **environment},
    )
    server = Server(process)
    try:
        server.wait()
        yield server
        assert server.stop() == server.status
        assert not [line for line in server.lines if "exception" in line]
    finally:
        process.kill()
        process.wait()
