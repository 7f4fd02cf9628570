"""A service of several processes: they answer alike, die alone, and end together."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from serving import Server, serving

if TYPE_CHECKING:
    from sparse_sts_index import SparseStsIndex

Run = Callable[..., subprocess.CompletedProcess[str]]
QUERY = {"queries": ["Three girls paint a fence."], "k": 5}


@pytest.fixture(scope="module")
def server(sample_index: SparseStsIndex) -> Iterator[Server]:
    with serving(sample_index.path, "--workers", 2) as running:
        yield running


def counted(server: Server) -> float:
    """Return the number of searches that the workers have counted."""
    return server.metrics().get('sparse_sts_requests_total{method="POST",route="/v1/search",status="200"}', 0)


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)


def is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_all_workers_answer_and_count_together(server: Server, sample_index: SparseStsIndex) -> None:
    until(lambda: len(server.events("worker ready")) == 2)
    assert all(event["resident_mib"] > 100 for event in server.events("worker ready"))
    before, seen = counted(server), len(server.events("request"))
    (expected,) = sample_index.search(QUERY["queries"], 5)  # type: ignore[arg-type]
    for _ in range(40):  # each over a connection of its own, which the kernel gives to one of them
        with server.client() as client:
            (result,) = client.post("/v1/search", json=QUERY).json()["results"]
        assert [hit["id"] for hit in result["hits"]] == [hit.id for hit in expected]
    until(lambda: counted(server) == before + 40)  # an answer is counted once it is sent
    until(lambda: len(server.events("request")) >= seen + 40)
    shares = [event["worker"] for event in server.events("request")]
    assert set(shares) == {event["worker"] for event in server.events("worker ready")}


def test_a_worker_that_dies_is_replaced(server: Server) -> None:
    first, second = (event["worker"] for event in server.events("worker ready")[-2:])
    ready = len(server.events("worker ready"))
    os.kill(second, signal.SIGKILL)
    until(lambda: len(server.events("worker ready")) > ready)
    (died,) = server.events("worker died")
    assert (died["worker"], died["status"]) == (second, -signal.SIGKILL)
    assert is_there(first)
    for _ in range(20):
        with server.client() as client:
            assert client.post("/v1/search", json=QUERY).status_code == 200
    metrics = server.metrics()
    assert metrics["sparse_sts_index_documents"] == 1000
    assert metrics["sparse_sts_queued_sentences"] == 0


def test_workers_end_with_the_one_that_started_them(sample_index: SparseStsIndex, tmp_path: Path) -> None:
    with serving(sample_index.path, "--workers", 2, TMPDIR=str(tmp_path)) as running:
        until(lambda: len(running.events("worker ready")) == 2)
        workers = [event["worker"] for event in running.events("worker ready")]
        assert all(map(is_there, workers))
        running.status = -signal.SIGKILL
        running.process.kill()
        until(lambda: not any(map(is_there, workers)))
        assert not list(tmp_path.glob("sparse-sts-*"))


@pytest.mark.parametrize("pause", [0.0, 0.1, 1.0])
def test_signals_of_a_terminal_end_all_workers_once(sample_index: SparseStsIndex, pause: float) -> None:
    with serving(sample_index.path, "--workers", 2) as running:
        if pause == 1.0:  # both serve; otherwise the second is still starting
            until(lambda: len(running.events("worker ready")) == 2)
        for _ in range(2):
            os.killpg(running.process.pid, signal.SIGINT)
            time.sleep(pause)
        running.process.wait(60)
    assert running.events("stopped")
    assert {line["level"] for line in running.lines} == {"info"}


def test_metrics_are_of_the_present(server: Server) -> None:
    (folder,) = {
        Path(line.split()[-1]).parent
        for worker in server.events("worker ready")
        if is_there(worker["worker"])
        for line in Path(f"/proc/{worker['worker']}/maps").read_text().splitlines()
        if line.endswith(".db")
    }
    (folder / "counter_99999.db").touch()  # as a worker leaves it that has just begun

    def ask(number: int) -> int:
        with server.client() as client:
            body = {"queries": [f"sentence {number} {n} " + "of many words " * 9 for n in range(100)], "k": 1}
            return client.post("/v1/search", json=body).status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, range(8))) <= {200, 429}
    for _ in range(8):  # by each of the workers
        assert server.metrics()["sparse_sts_queued_sentences"] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--writable",), "one process at a time may change an index: --writable takes --workers 1"),
        (("--model", "nosuch"), "nosuch"),
        (("--workers", 0), "'--workers': 0 is not in the range x>=1"),
    ],
)
def test_what_keeps_workers_from_starting_is_one_line(
    sample_index: SparseStsIndex, sparse_sts: Run, options: tuple[object, ...], message: str
) -> None:
    found = sparse_sts("serve", sample_index.path, "--workers", 2, "--port", 0, *options)
    assert found.returncode not in (0, -signal.SIGKILL)
    assert message in found.stderr
    assert "Traceback" not in found.stderr
    assert sum(line.startswith("Error: ") for line in found.stderr.splitlines()) == 1


def test_an_address_of_workers_is_taken_for_others(
    server: Server, sample_index: SparseStsIndex, sparse_sts: Run
) -> None:
    port = server.url.rpartition(":")[2]
    for workers in (1, 2):
        found = sparse_sts("serve", sample_index.path, "--port", port, "--workers", workers)
        assert found.returncode == 1
        assert f"cannot listen at 127.0.0.1, port {port}: Address already in use" in found.stderr
