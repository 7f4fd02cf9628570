"""The prompt of ``sparse-sts search``, in a terminal."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sparse_sts_index import Document, SparseStsIndex

if sys.platform == "win32":
    pytest.skip("needs a pseudo-terminal", allow_module_level=True)

import fcntl
import pty
import termios
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sparse_sts_index import SparseStsEncoder

Run = Callable[..., subprocess.CompletedProcess[str]]
SECONDS = 120.0  # to wait for anything: loading takes some, on a busy machine many
SENTENCES = ["A cat sleeps on the sofa.", "Three girls paint a fence.", "My card was billed twice.", "A dog barks."]
SCRIPT = str(Path(sys.executable).with_name("sparse-sts"))


class Terminal:
    """A command in a pseudo-terminal of its own, killed in the end if need be; no read waits for ever."""

    def __init__(self, *command: object, **environment: str) -> None:
        self._screen, inside = pty.openpty()
        termios.tcsetwinsize(inside, (50, 200))  # no line is wrapped
        self.process = subprocess.Popen(
            [*map(str, command)],
            stdin=inside,
            stdout=inside,
            stderr=inside,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "TERM": "dumb", "LC_ALL": "C.UTF-8", **environment},
            start_new_session=True,
            preexec_fn=_take_terminal,
        )
        os.close(inside)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(SECONDS)
        os.close(self._screen)

    def read(self, until: str = "\n> ") -> str:
        """What is shown, up to and with the text waited for: an answer and the prompt after it, say."""
        shown, deadline = b"", time.monotonic() + SECONDS
        while not shown.replace(b"\r", b"").endswith(until.encode()):
            shown += self._some(deadline, shown) or pytest.fail(f"ended, having shown: {shown!r}")
        return shown.replace(b"\r", b"").decode(errors="replace")

    def type(self, line: str | bytes) -> str:
        """Type a line, and what comes of it up to the next prompt."""
        self.send((line.encode() if isinstance(line, str) else line) + b"\r")
        return self.read()

    def send(self, keys: bytes) -> None:
        os.write(self._screen, keys)

    def end(self) -> tuple[str, int]:
        """What is still shown, and the exit status."""
        shown, deadline = b"", time.monotonic() + SECONDS
        while some := self._some(deadline, shown):
            shown += some
        return shown.replace(b"\r", b"").decode(), self.process.wait(SECONDS)

    def _some(self, deadline: float, shown: bytes) -> bytes:
        ready, _, _ = select.select([self._screen], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            pytest.fail(f"nothing more within {SECONDS} s; shown: {shown!r}")
        with contextlib.suppress(OSError):  # Linux's way to say that nobody has it open any more
            return os.read(self._screen, 4096)
        return b""


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs ignore it


def ids(answer: str) -> list[str]:
    """The ids in a table of hits."""
    return re.findall(r"^ +\d+  \d\.\d{4}  (\S+)", answer, re.MULTILINE)


@pytest.fixture
def index(tiny: SparseStsEncoder, tmp_path: Path) -> Iterator[SparseStsIndex]:
    with SparseStsIndex.build(tmp_path / "index", SENTENCES, tiny) as built:
        yield built


def test_queries_and_commands(index: SparseStsIndex, tiny: SparseStsEncoder) -> None:
    query, modes = "A kitten sleeps.", ("exact", "two-step", "approximate")
    expected = [[hit.id for hit in index.search([query], 3, mode=mode)[0]] for mode in modes]
    with Terminal(SCRIPT, "search", index.path, "-k", 3) as terminal:
        assert terminal.read() == "4 sentences, model tiny; :help for commands, Ctrl-D leaves\n> "
        answer = terminal.type(query)
        lines = answer.splitlines()
        assert lines[0] == query  # as it was typed, and not again
        assert lines[1].split()[:4] == ["rank", "cosine", "id", "sentence"]
        assert SENTENCES[0] in lines[2]
        assert re.fullmatch(r"  \(\d+\.\d ms\)", lines[-2])
        assert ids(answer) == expected[0]
        assert [terminal.type(blank) for blank in ("", "  ")] == ["\n> ", "  \n> "]
        assert terminal.type(":explain") == ":explain\nexplain is on\n> "
        assert re.search(r"^ +term +query +doc +adds$", terminal.type(query), re.MULTILINE)
        assert terminal.type(":explain") == ":explain\nexplain is off\n> "
        assert len(terminal.type(query).splitlines()) == len(lines)
        for mode, found in zip(modes, expected, strict=True):
            assert terminal.type(f":mode {mode}") == f":mode {mode}\nmode is {mode}\n> "
            assert ids(terminal.type(query)) == found
        assert terminal.type(":k 1") == ":k 1\nk is 1\n> "
        assert ids(terminal.type(query)) == expected[-1][:1]
        assert "now 1\n" in terminal.type(":help")
        assert ids(terminal.type(" :) my card")) == ["3"]  # a query, by the space before it
        terminal.send(b"\x1b[A" + b"\x02" * 4)  # the line before again, and into its middle
        assert ids(terminal.type("new ")) == ["3"]
        with SparseStsIndex.open(index.path, tiny, writable=True) as other:
            other.add([Document("new", query)])
        assert ids(terminal.type(query)) == ["new"]
        terminal.send(b"\x04")
        assert terminal.end() == ("\n", 0)


def test_what_goes_wrong_ends_nothing(index: SparseStsIndex) -> None:
    options = ("--explain", "--approximate", "-k", 2)
    with Terminal(SCRIPT, "search", index.path, *options, PYTHONIOENCODING="ascii:strict") as terminal:
        terminal.read()
        for line, error in (
            (":nosuch 1", "no command ':nosuch 1'; see :help"),
            (":", "no command ':'; see :help"),
            (":k 0", ":k takes a whole number of at least 1, such as :k 5"),
            (":k two", ":k takes a whole number of at least 1, such as :k 5"),
            (":k", ":k takes a whole number of at least 1, such as :k 5"),
            (":mode fast", ":mode takes exact, two-step or approximate"),
        ):
            assert terminal.type(line) == f"{line}\nError: {error}\n> "
        assert terminal.type("café") == "café\nError: the line is not ASCII\n> "
        assert "now 2\n" in (shown := terminal.type(":help"))
        assert "now approximate\n" in shown
        assert "now on\n" in shown
        (index.path / "lucene").rename(index.path / "elsewhere")
        assert re.fullmatch(r"a cat\nError: .*no complete index.*\n> ", terminal.type("a cat"))
        (index.path / "elsewhere").rename(index.path / "lucene")
        assert ids(terminal.type("a cat"))
        terminal.send(b":q\r")
        assert terminal.end() == (":q\n", 0)


def test_interrupts(index: SparseStsIndex) -> None:
    """Ctrl-C abandons the line that is being typed, or the search, here one that takes long."""
    code = (
        "import time; from sparse_sts_index import SparseStsIndex; from sparse_sts_index.cli.main import main\n"
        "def search(self, texts, *arguments, then=SparseStsIndex.search, **options):\n"
        "    if texts == ['slow']: print('searching')\n"
        "    while texts == ['slow']: time.sleep(0.01)\n"
        "    return then(self, texts, *arguments, **options)\n"
        f"SparseStsIndex.search = search; main(['search', {str(index.path)!r}, '-k', '1'])"
    )
    with Terminal(sys.executable, "-c", code, PYTHONIOENCODING="ascii:surrogateescape") as terminal:
        terminal.read()
        terminal.send(b"abandoned")
        terminal.read("abandoned")
        time.sleep(0.5)  # Python loses an interrupt of the microseconds between a key and the wait for the next one
        terminal.send(b"\x03")
        terminal.read()
        assert ids(terminal.type("Who painted the fence?")) == ["2"]
        terminal.send(b"slow\r")
        terminal.read("searching\n")
        terminal.send(b"\x03")
        terminal.read()
        assert ids(terminal.type("Who painted the fence?")) == ["2"]
        assert terminal.type("café") == "café\nError: the line is not ASCII\n> "
        terminal.send(b"\x04")
        assert terminal.end() == ("\n", 0)


@pytest.mark.parametrize("arguments", [[], ["--format", "jsonl"]])
def test_without_a_terminal(sparse_sts: Run, arguments: list[str]) -> None:
    run = sparse_sts("search", *arguments, input="A cat.\n")
    assert (run.returncode, run.stdout) == (2, "")
    assert "Error: Give either TEXT or --queries.\n" in run.stderr


def test_a_format_for_programs() -> None:
    with Terminal(SCRIPT, "search", "--format", "jsonl") as terminal:
        shown, status = terminal.end()
    assert status == 2
    assert "Error: The prompt shows tables; --format jsonl needs TEXT or --queries.\n" in shown
