"""How many searches a second does ``sparse-sts serve`` answer, how soon, and what does it do when there are too many?

    python benchmarks/serve.py --collection glosses.jsonl.gz --model tiny
    python benchmarks/serve.py --collection glosses.jsonl.gz --index glosses-idx --seconds 120 --before EARLIER

starts the command on a free port of 127.0.0.1 and puts load on it with ``wrk`` (Debian's package of that
name): POST /v1/search of one sentence a request, drawn at random from sentences of the collection that have lost their
last word. It writes ``results/serve.json`` and ``results/serve.svg`` (for the plot: ``pip install matplotlib``).

- Batching, as many workers as there are cores, no batching (``--max-batch 1``), an earlier version (``--before``: its
  checkout, see ``conditions.py``): servers that take turns, two each, with queues that never fill.
- Overload: a server with a short queue gets ``--overload`` times the requests that batching could answer. What the
  rest gets is 429. wrk does not tell latencies by status; those of the accepted come from a client of good manners,
  which asks five times a second meanwhile and waits for as long as Retry-After says.
- Recovery: from the moment that the overload ends, eight connections, compared to the same before it.

Load is closed-loop: each connection waits for its answer, so a slow server is asked less. wrk runs on the same machine
and takes its share of the cores. Memory is the server's resident set, each second. Exits with 1 if a check fails.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import harness

from sparse_sts_index._utils.environment import cores
from sparse_sts_index.data.documents import read_corpus

K = 10
BATCHING, WORKERS, ONE_BY_ONE, BEFORE = "batching", "workers", "no batching", "before"
COLOURS = {BATCHING: "C0", WORKERS: "C3", ONE_BY_ONE: "0.6", BEFORE: "C4", "overload": "C1"}
COMPARED = ((BATCHING, ONE_BY_ONE), (WORKERS, BATCHING), (BATCHING, BEFORE), (WORKERS, BEFORE))
PERCENTILES = ("p50_ms", "p90_ms", "p99_ms", "p99.9_ms", "max_ms")
FIGURES = ("requests_per_second", *PERCENTILES)
_WARM_UP = 15  # seconds, in which Java compiles what it runs
_FEW, _FEW_SECONDS = 8, 10  # connections, and for how long, before and after the overload
_POLITE_RATE = 5  # requests a second of the client of good manners
_START, _STOP = 180, 60  # seconds that a server may take
_WRK_TIMEOUT = 30  # seconds until wrk counts an answer as too late

LUA = """
local threads, bodies = {}, {}

function setup(thread)
  table.insert(threads, thread)
  thread:set("number", #threads)
end

function init(args)
  math.randomseed(number)
  pause, statuses, bare = tonumber(args[2]), {}, 0
  for line in io.lines(args[1]) do table.insert(bodies, line) end
  wrk.headers["Content-Type"] = "application/json"
  if pause > 0 then delay = function() return math.random(0, 2 * pause) end end
end

function request()
  return wrk.format("POST", "/v1/search", nil, bodies[math.random(#bodies)])
end

function response(status, headers)
  local key = tostring(status)
  statuses[key] = (statuses[key] or 0) + 1
  if status == 429 or status == 503 then
    for name, value in pairs(headers) do
      if name:lower() == "retry-after" and tonumber(value) then return end
    end
    bare = bare + 1
  end
end

function done(summary, latency)
  local counts, bare = {}, 0
  for _, thread in ipairs(threads) do
    bare = bare + thread:get("bare")
    for status, count in pairs(thread:get("statuses")) do counts[status] = (counts[status] or 0) + count end
  end
  local pairs_ = {}
  for status, count in pairs(counts) do table.insert(pairs_, string.format('"%s":%d', status, count)) end
  local e = summary.errors
  io.write(string.format('{"seconds":%.6f,"requests":%d,"p50_ms":%.3f,"p90_ms":%.3f,"p99_ms":%.3f,"p99.9_ms":%.3f,' ..
    '"max_ms":%.3f,"errors":{"connect":%d,"read":%d,"write":%d,"timeout":%d},"without_retry_after":%d,' ..
    '"statuses":{%s}}\\n', summary.duration / 1e6, summary.requests, latency:percentile(50) / 1e3,
    latency:percentile(90) / 1e3, latency:percentile(99) / 1e3, latency:percentile(99.9) / 1e3, latency.max / 1e3,
    e.connect, e.read, e.write, e.timeout, bare, table.concat(pairs_, ",")))
end
"""


def main() -> None:
    arguments = parse()
    if not shutil.which("wrk"):
        raise SystemExit("wrk is not on the path: apt-get install wrk")
    with tempfile.TemporaryDirectory() as folder:
        report = measure(arguments, Path(folder))
    for name, figures in report["settings"].items():
        print(line(name, figures))
    print("wrote", harness.write(arguments.output / "serve.json", report))
    print("wrote", plot(arguments.output / "serve.svg", report))
    if failed := [name for name, passed in report["checks"].items() if not passed]:
        raise SystemExit("failed: " + ", ".join(failed))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--collection", default="sample", help="The sentences to index and to take queries from.")
    parser.add_argument("--model", default="tiny", help="For an index that is built here.")
    parser.add_argument("--index", type=Path, help="An index of the collection to serve instead of building one.")
    parser.add_argument("--seconds", type=int, default=60, help="Of load, for each setting.")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--queries", type=int, default=2000, help="Distinct queries.")
    parser.add_argument("--overload", type=float, default=3.0, help="Times the measured rate; 0: without any pause.")
    parser.add_argument("--overload-connections", type=int, default=512)
    parser.add_argument("--overload-queue", type=int, default=32, help="--max-queue of the server that is overloaded.")
    parser.add_argument("--before", type=Path, help="Checkout of an earlier version.")
    parser.add_argument("--output", type=Path, default=harness.RESULTS, help="Folder for what is written.")
    return parser.parse_args()


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Everything but the plot."""
    count, queries = sentences(arguments.collection, arguments.queries)
    bodies = folder / "bodies"
    bodies.write_text("".join(json.dumps({"queries": [query], "k": K}) + "\n" for query in queries), encoding="utf-8")
    (folder / "search.lua").write_text(LUA, encoding="utf-8")
    index = arguments.index or build(arguments.collection, arguments.model, folder / "index")
    print(f"{count:,} sentences, {len(queries):,} queries", flush=True)

    modes = steady(arguments, index, folder)
    rate = modes[BATCHING]["requests_per_second"]["median"]
    overload = overloaded(arguments, index, folder, rate, queries)
    return {
        "sentences": count,
        "queries": len(queries),
        "k": K,
        "model": None if arguments.index else arguments.model,
        "wrk": subprocess.run(["wrk", "-v"], capture_output=True, text=True).stdout.splitlines()[0].split(" [")[0],
        "machine": harness.machine(),
        "settings": modes,
        "ratios": {
            f"{name} to {other}": {key: modes[name][key]["median"] / modes[other][key]["median"] for key in FIGURES}
            for name, other in COMPARED
            if other in modes
        },
        **overload,
        "checks": checks(modes, overload),
    }


def sentences(collection: str, wanted: int) -> tuple[int, list[str]]:
    """How many there are, and queries: every n-th without its last word."""
    texts = [document.text for document in read_corpus(collection)]
    shortened = list(dict.fromkeys(" ".join(words[:-1]) for text in texts if len(words := text.split()) > 2))
    step = max(1, len(shortened) // wanted)
    return len(texts), shortened[::step][:wanted]


def build(collection: str, model: str, index: Path) -> Path:
    subprocess.run([*command(), "index", collection, "--model", model, "--output", str(index)], check=True)
    return index


def command(root: Path = harness.ROOT) -> list[str]:
    """The command of a checkout."""
    return [*harness.of_checkout(root), "-P", "-m", "sparse_sts_index"]


# The server


@dataclass
class Server:
    """A server under load, and what its memory was meanwhile."""

    process: subprocess.Popen[bytes]
    url: str
    rss_mib: list[float] = field(default_factory=list)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Note the resident set each second, until the block ends."""
        ended = threading.Event()

        def watch() -> None:
            while True:
                self.rss_mib.append(sum(map(resident_mib, family(self.process.pid))))
                if ended.wait(1):
                    return

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()


def family(pid: int) -> list[int]:
    """A process and its children."""
    return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


def resident_mib(pid: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()[0]) / 1024
    except (OSError, IndexError):  # it has ended
        return 0.0


@contextmanager
def served(index: Path, folder: Path, *options: str, root: Path = harness.ROOT) -> Iterator[Server]:
    """A server on a free port of 127.0.0.1; it has to end well."""
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".log") as log:
        arguments = [*command(root), "serve", str(index), "--host", "127.0.0.1", "--port", "0", *options]
        process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            yield Server(process, listening(process, Path(log.name)))
            process.terminate()
            if process.wait(_STOP):
                raise SystemExit(f"the server ended with {process.returncode}: {Path(log.name).read_text()[-2000:]}")
        finally:
            process.kill()
            process.wait()


def listening(process: subprocess.Popen[bytes], log: Path) -> str:
    """The URL that the server says it listens on."""
    end = time.monotonic() + _START
    while time.monotonic() < end and process.poll() is None:
        for entry in log.read_text(encoding="utf-8").splitlines():
            with suppress(json.JSONDecodeError):
                said = json.loads(entry)
                if isinstance(said, dict) and said.get("event") == "listening":
                    return str(said["url"])
        time.sleep(0.1)
    raise SystemExit(f"the server does not listen: {log.read_text(encoding='utf-8')[-2000:]}")


# The load


def load(server: Server, folder: Path, seconds: int, connections: int, pause_ms: int = 0) -> dict[str, Any]:
    """What wrk saw; each connection pauses before a request, at random and as long as `pause_ms` on average."""
    script = str(folder / "search.lua")
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", f"--timeout={_WRK_TIMEOUT}s", "-s", script]
    command += [server.url, "--", str(folder / "bodies"), str(pause_ms)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 2 * _WRK_TIMEOUT)
    said = next((line for line in done.stdout.splitlines() if line.startswith("{")), None)
    if done.returncode or said is None:
        raise SystemExit(f"wrk failed: {done.stdout}{done.stderr}")
    figures: dict[str, Any] = json.loads(said)
    figures["requests_per_second"] = figures["requests"] / figures["seconds"]
    figures["accepted_per_second"] = figures["statuses"].get("200", 0) / figures["seconds"]
    return figures


def steady(arguments: argparse.Namespace, index: Path, folder: Path) -> dict[str, dict[str, Any]]:
    """All settings in turns, at the given number of connections."""
    queue = ("--max-queue", str(max(256, 4 * arguments.connections)))
    workers = ("--workers", str(cores()))
    options = {BATCHING: queue, WORKERS: (*queue, *workers), ONE_BY_ONE: (*queue, "--max-batch", "1")}
    roots = dict.fromkeys(options, harness.ROOT)
    if arguments.before:
        options[BEFORE], roots[BEFORE] = queue, arguments.before
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in options}
    with ExitStack() as stack:
        servers = {
            name: stack.enter_context(served(index, folder, *options[name], root=roots[name])) for name in options
        }
        for server in servers.values():
            load(server, folder, _WARM_UP, arguments.connections)
        for number in (1, 2):
            for name, server in servers.items():
                with server.watched():
                    figures = load(server, folder, max(1, arguments.seconds // 2), arguments.connections)
                rounds[name].append(figures)
                print(f"round {number}: {line(name, figures)}", flush=True)
    return {
        name: {
            **{key: middle([figures[key] for figures in rounds[name]]) for key in FIGURES},
            "connections": arguments.connections,
            "options": list(options[name]),
            "rounds": rounds[name],
            "memory": memory(servers[name].rss_mib),
        }
        for name in options
    }


def overloaded(
    arguments: argparse.Namespace, index: Path, folder: Path, rate: float, queries: Sequence[str]
) -> dict[str, Any]:
    """Few connections, too many, and few again, of a server with a short queue."""
    connections, queue = arguments.overload_connections, arguments.overload_queue
    pause = round(1e3 * connections / (arguments.overload * rate)) if arguments.overload else 0
    with served(index, folder, "--max-queue", str(queue)) as server:
        load(server, folder, _WARM_UP, _FEW)
        before = load(server, folder, _FEW_SECONDS, _FEW)
        print(line("before", before), flush=True)
        with server.watched(), polite(server, queries) as client:
            during = load(server, folder, arguments.seconds, connections, pause)
        print(line("overload", during), flush=True)
        after = load(server, folder, _FEW_SECONDS, _FEW)
        print(line("recovery", after), flush=True)
    return {
        "overload": {
            **during,
            "connections": connections,
            "max_queue": queue,
            "pause_ms": pause,
            "offered": during["requests_per_second"] / rate,
            "shed": during["statuses"].get("429", 0) / during["requests"],
            "accepted_of_capacity": during["accepted_per_second"] / rate,
            "polite_client": client,
            "memory": memory(server.rss_mib),
        },
        "recovery": {
            "connections": _FEW,
            "before": before,
            "after": after,
            "p50_ratio": after["p50_ms"] / before["p50_ms"],
        },
    }


@contextmanager
def polite(server: Server, queries: Sequence[str]) -> Iterator[dict[str, Any]]:
    """A client that asks now and then until the block ends, and again after Retry-After; what it saw is then told."""
    import httpx

    ended = threading.Event()
    statuses: Counter[str] = Counter()
    accepted: list[float] = []  # ms of an answer
    waited: list[float] = []  # ms until there was one, and attempts
    attempts: list[int] = []
    told: dict[str, Any] = {}

    def ask(query: str) -> None:
        began = time.perf_counter()
        for attempt in range(1, 1000):
            start = time.perf_counter()
            try:
                answer = client.post("/v1/search", json={"queries": [query], "k": K})
            except httpx.TransportError as error:
                statuses[type(error).__name__] += 1
                return
            statuses[str(answer.status_code)] += 1
            if answer.status_code == 200:
                now = time.perf_counter()
                accepted.append(1e3 * (now - start))
                waited.append(1e3 * (now - began))
                attempts.append(attempt)
            if answer.status_code not in (429, 503) or ended.wait(float(answer.headers.get("retry-after", 1))):
                return

    def ask_on() -> None:
        number = 0
        while not ended.wait(1 / _POLITE_RATE):
            pool.submit(ask, queries[number % len(queries)])
            number += 1

    limits = httpx.Limits(max_connections=64, max_keepalive_connections=64)
    with (
        httpx.Client(base_url=server.url, timeout=_WRK_TIMEOUT, limits=limits, trust_env=False) as client,
        ThreadPoolExecutor(64) as pool,
    ):
        asking = threading.Thread(target=ask_on)
        asking.start()
        try:
            yield told
        finally:
            ended.set()
            asking.join()
            pool.shutdown(cancel_futures=True)
    told.update(
        statuses=dict(statuses),
        answered=len(accepted),
        accepted_ms=spread(accepted),
        until_answered_ms=spread(waited),
        attempts=spread(attempts),
    )


# The report


def middle(values: list[float]) -> dict[str, Any]:
    return {"median": statistics.median(values), "values": values}


def spread(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    ordered = sorted(values)
    p50, p90, p99 = (ordered[min(len(ordered) - 1, int(len(ordered) * share))] for share in (0.5, 0.9, 0.99))
    return {"p50": p50, "p90": p90, "p99": p99, "max": ordered[-1]}


def memory(rss_mib: list[float]) -> dict[str, Any]:
    quarter = max(1, len(rss_mib) // 4)
    return {
        "first_quarter_mib": statistics.median(rss_mib[:quarter]),
        "last_quarter_mib": statistics.median(rss_mib[-quarter:]),
        "highest_mib": max(rss_mib),
        "rss_mib": rss_mib,
    }


def checks(modes: dict[str, dict[str, Any]], overload: dict[str, Any]) -> dict[str, bool]:
    """What has to hold on any machine."""
    rounds = [figures for mode in modes.values() for figures in mode["rounds"]]
    during, before, after = overload["overload"], overload["recovery"]["before"], overload["recovery"]["after"]
    everything = [*rounds, before, during, after]
    return {
        "nothing shed or failed before the overload": all(set(f["statuses"]) == {"200"} for f in [*rounds, before]),
        "no broken connections": not any(sum(figures["errors"].values()) for figures in everything),
        "overload is shed": during["statuses"].get("429", 0) > 0 and set(during["statuses"]) <= {"200", "429"},
        "Retry-After with each 429": not any(figures["without_retry_after"] for figures in everything),
        "work goes on while shedding": during["statuses"].get("200", 0) > 0,
        "nothing shed or failed after the overload": set(after["statuses"]) == {"200"},
    }


def line(name: str, figures: dict[str, Any]) -> str:
    rate, p50, p90, p99, p999, most = (
        figures[key]["median"] if isinstance(figures[key], dict) else figures[key] for key in FIGURES
    )
    said = f"{name:<11} {rate:7.1f}/s  p50 {p50:8.2f} ms, p90 {p90:8.2f}, p99 {p99:8.2f}, p99.9 {p999:8.2f}, "
    said += f"max {most:8.2f}"
    if "memory" in figures:
        held = figures["memory"]
        said += f"  {held['first_quarter_mib']:.0f} to {held['last_quarter_mib']:.0f} MiB, "
        said += f"at most {held['highest_mib']:.0f}"
    return said + (f"  {figures['statuses']}" if "statuses" in figures else "")


def plot(path: Path, report: dict[str, Any]) -> Path:
    """Rates, latencies, and memory over time."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    during, recovery = report["overload"], report["recovery"]
    modes = report["settings"]
    figure, (rates, latencies, memories) = pyplot.subplots(1, 3, figsize=(13, 4.4))

    connections = modes[BATCHING]["connections"]
    bars = {name: mode["requests_per_second"]["median"] for name, mode in modes.items()}
    bars["overload"] = during["accepted_per_second"]
    shed = during["statuses"].get("429", 0) / during["seconds"]
    drawn = rates.bar(list(bars), list(bars.values()), color=[COLOURS[name] for name in bars])
    rates.bar_label(drawn, fmt="{:,.0f}", padding=3)
    rates.set_ylabel("answered searches a second")
    rates.set_title(f"{connections} connections; overload: {shed:,.0f}/s more got 429", fontsize=9)
    rates.margins(y=0.15)

    shown = ("p50", "p90", "p99")
    lines = [(name, [mode[f"{key}_ms"]["median"] for key in shown]) for name, mode in modes.items()]
    looks = [(COLOURS[name], "-") for name in modes]
    if accepted := during["polite_client"]["accepted_ms"]:
        lines.append(("overload, accepted", [accepted[key] for key in shown]))
        looks.append((COLOURS["overload"], "-"))
    for name, dashes in (("before", "--"), ("after", "-")):
        label = f"{name} it, {recovery['connections']} connections"
        lines.append((label, [recovery[name][f"{key}_ms"] for key in shown]))
        looks.append(("C2", dashes))
    for (label, values), (colour, dashes) in zip(lines, looks, strict=True):
        latencies.plot(shown, values, dashes, color=colour, marker="o", label=label)
    latencies.set(yscale="log", ylabel="latency, ms")
    latencies.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=2)

    for name, mode in {**modes, "overload": during}.items():
        memories.plot(mode["memory"]["rss_mib"], color=COLOURS[name], label=name)
    memories.set(xlabel="seconds under load", ylabel="resident set, MiB")
    memories.set_ylim(bottom=0)
    memories.legend(frameon=False, fontsize=8)
    for panel in (rates, latencies, memories):
        panel.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{report['k']} nearest of {report['sentences']:,} sentences, one query a request")
    figure.tight_layout()
    figure.savefig(path)
    return path


if __name__ == "__main__":
    main()
