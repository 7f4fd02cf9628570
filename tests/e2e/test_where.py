"""Fields and filters, from the shell and over HTTP."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import serving

from sparse_sts_index import ServerError, SparseStsIndex
from sparse_sts_index.server import ServedIndex

Run = Callable[..., subprocess.CompletedProcess[str]]
Write = Callable[..., Path]
TICKETS = [
    {"id": "1", "text": "How do I reset my router's password?", "product": "router", "made": "2026-01-05", "price": 3},
    {"id": "2", "text": "The router forgets its password.", "product": "router", "made": "2026-02-03T10:00:00+01:00"},
    {"id": "3", "text": "Which password does the printer want?", "product": "printer", "tags": ["setup", "wifi"]},
    {"id": "4", "text": "The printer does not print in colour.", "product": "printer", "tags": ["ink"], "open": True},
]
QUERY = "I forgot the password."


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture(scope="module")
def built(sparse_sts: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    corpus = tmp_path_factory.mktemp("built") / "t.jsonl"
    corpus.write_text(lines(TICKETS), encoding="utf-8")
    run = sparse_sts("index", corpus, "--all-fields", "--model", "tiny")
    assert run.returncode == 0, run.stderr
    assert run.stderr.startswith("fields: product keyword, made date, price number, tags keywords, open boolean\n")
    return corpus.with_name("t-index")


@pytest.fixture
def index(built: Path, tmp_path: Path) -> Path:
    return shutil.copytree(built, tmp_path / "t-index")


def found(sparse_sts: Run, index: Path, *options: object) -> list[str]:
    run = sparse_sts("search", index, QUERY, "--format", "jsonl", *options)
    assert run.returncode == 0, run.stderr
    return [json.loads(line)["id"] for line in run.stdout.splitlines()]


def test_search_among_those_that_pass(sparse_sts: Run, index: Path) -> None:
    everything = found(sparse_sts, index)
    assert len(everything) > 2
    for where, ids in (
        ('product = "router"', {"1", "2"}),
        ('product = "router" and made < 2026-02-01', {"1"}),
        ('tags = "wifi" or price > 2.5', {"1", "3"}),
        ("not open exists", {"1", "2", "3"}),
        ('made = 2026-02-03 or tags in ("ink")', {"2", "4"}),
    ):
        assert found(sparse_sts, index, "--where", where) == [doc_id for doc_id in everything if doc_id in ids]
    assert found(sparse_sts, index, "--offset", 1, "-k", 1) == everything[1:2]
    assert found(sparse_sts, index, "--offset", 99) == []
    run = sparse_sts("search", index, QUERY, "--where", 'product = "router"', "-k", 1)
    assert "(the nearest of all)" in run.stdout
    assert "product=router  made=2026-0" in run.stdout
    assert len(found(sparse_sts, index, "--group-by", "product")) == 2
    assert "none, with these settings" in sparse_sts("search", index, QUERY, "--min-cosine", 1).stdout
    run = sparse_sts("duplicates", index, "--threshold", 0.01, "--where", 'product = "router"')
    assert run.stdout.splitlines()[-1] == "1 pairs"
    run = sparse_sts("cluster", index, "--threshold", 0.01, "--where", 'product = "router"')
    assert run.stdout.splitlines()[-1] == "1 clusters, 2 sentences in them"


def test_changes_keep_fields(sparse_sts: Run, index: Path, write: Write) -> None:
    more = write(
        "m.csv",
        "id,text,product,made,price,tags,open\n5,A password.,modem,,,,\n1,Reset it.,router,2026-03-01,4,,true\n",
    )
    assert "1 sentences replaced, 1 added" in sparse_sts("update", index, more).stdout
    assert "1 sentences deleted" in sparse_sts("delete", index, "2").stdout
    for _ in range(2):
        with SparseStsIndex.open(index) as opened:
            held = {doc_id: dict(opened.get(doc_id).fields) for doc_id in "1345"}  # type: ignore[union-attr]
            assert held["5"] == {"product": "modem"}
            assert held["3"] == {"product": "printer", "tags": ("setup", "wifi")}
            assert held["1"]["open"] is True
            assert opened.counts("product") == {"printer": 2, "modem": 1, "router": 1}
            assert opened.counts("tags", where='product = "printer"') == {"ink": 1, "setup": 1, "wifi": 1}
        assert sparse_sts("verify", index).returncode == 0
        assert sparse_sts("compact", index).returncode == 0
    whole = index.with_name("whole")
    assert sparse_sts("merge", whole, index).returncode == 0
    with SparseStsIndex.open(whole) as opened:
        assert opened.counts("product") == {"printer": 2, "modem": 1, "router": 1}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("search", "{}", "x", "--where", "state = 1"), "filter, character 1: no field 'state'; there are made, open"),
        (("search", "{}", "x", "--where", "product = 1"), "product is a keyword: put 1 into quotes"),
        (("search", "{}", "x", "--where", "(price = 1"), "filter, character 11: expected"),
        (("search", "{}", "x", "--where", "made = 2026-02-30"), "made '2026-02-30' is no date"),
        (("search", "{}", "x", "--group-by", "tags"), "cannot group by tags, which has several values"),
        (("search", "{}", "x", "--group-by", "state"), "cannot group by state, which is not there"),
        (("add", "{}", "n.csv"), "n.csv:1: missing column product (found: id, text, state)"),
        (("add", "{}", "n.jsonl"), "n.jsonl:1: price must be a number, found str 'dear'"),
        (("add", "{}", "n.csv", "--fields", "state"), "its fields are product:keyword, made:date"),
        (("index", "n.csv", "--fields", "status"), "n.csv:1: missing column status"),
        (("index", "n.jsonl", "--fields", "status"), "no document has a value of status"),
        (
            ("index", "n.jsonl", "--fields", "price:date"),
            "price must be a date such as 2026-01-31",
        ),
        (("index", "long.jsonl", "--all-fields"), "long.jsonl:1: product is longer than 32,766 bytes"),
        (("index", "-", "--all-fields"), "standard input is read once"),
        (("index", "n.csv", "--fields", "a b"), "'a b' cannot be a field's name"),
    ],
)
def test_what_is_wrong_is_one_line(
    sparse_sts: Run,
    index: Path,
    write: Write,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    write("n.csv", "id,text,state\n9,x,y\n")
    write("n.jsonl", '{"id": "9", "text": "x", "price": "dear"}\n')
    write("long.jsonl", lines([{"id": "9", "text": "x", "product": "y" * 1_000_000}]))
    monkeypatch.chdir(index.parent)
    before = {path: path.read_bytes() for path in index.parent.rglob("*") if path.is_file()}
    run = sparse_sts(*(index if argument == "{}" else argument for argument in arguments), input="x\n")
    assert run.returncode != 0
    assert message in run.stderr
    assert "Traceback" not in run.stderr
    assert {path: path.read_bytes() for path in index.parent.rglob("*") if path.is_file()} == before


@pytest.fixture
def client(index: Path) -> Iterator[httpx.Client]:
    with serving(index, "--writable") as server, server.client() as opened:
        yield opened


def test_over_http(client: httpx.Client) -> None:
    def ask(path: str, **body: Any) -> Any:
        answer = client.post(path, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    assert client.get("/v1/index").json()["fields"]["made"] == "date"
    as_json = {"and": [{"field": "product", "op": "=", "value": "router"}, {"field": "price", "op": "exists"}]}
    for where in ('product = "router" and price exists', as_json):
        (result,) = ask("/v1/search", queries=[QUERY], where=where)["results"]
        (hit,) = result["hits"]
        assert hit["fields"] == {"product": "router", "made": "2026-01-05T00:00:00Z", "price": 3.0}
        assert result["certified"]
    all_hits = ask("/v1/search", queries=[QUERY])["results"][0]["hits"]
    assert ask("/v1/search", queries=[QUERY], offset=1, k=1)["results"][0]["hits"] == all_hits[1:2]
    assert ask("/v1/search", queries=[QUERY], min_cosine=0.99)["results"][0]["hits"] == []
    assert len(ask("/v1/search", queries=[QUERY], group_by="product")["results"][0]["hits"]) == 2
    counts = ask("/v1/counts", field="product")
    assert counts == {
        "field": "product",
        "values": 2,
        "shown": [{"value": "printer", "count": 2}, {"value": "router", "count": 2}],
    }
    assert ask("/v1/counts", field="tags", where="open = true")["shown"] == [{"value": "ink", "count": 1}]
    body = {"documents": [{"id": "7", "text": "No password.", "fields": {"product": "modem", "made": "2026-05-01"}}]}
    assert client.post("/v1/documents", json=body).json() == {"added": 1}
    assert client.get("/v1/documents/7").json()["fields"] == {"product": "modem", "made": "2026-05-01T00:00:00Z"}
    served = ServedIndex(str(client.base_url))
    (hits,) = served.search([QUERY], where='product = "modem"', min_cosine=0.01)
    assert [(hit.id, hit.fields["product"]) for hit in hits] == [("7", "modem")]
    with pytest.raises(ServerError, match="character 1: no field 'x'"):
        served.search([QUERY], where="x = 1")
    for path, wrong in (
        ("/v1/search", {"queries": [QUERY], "where": "product ="}),
        ("/v1/search", {"queries": [QUERY], "where": {"and": {}}}),
        ("/v1/search", {"queries": [QUERY], "min_cosine": 2}),
        ("/v1/search", {"queries": [QUERY], "offset": 1_000_000}),
        ("/v1/search", {"queries": [QUERY], "group_by": "tags"}),
        ("/v1/counts", {"field": "price"}),
        ("/v1/documents", {"documents": [{"id": "8", "text": "x", "fields": {"colour": "red"}}]}),
        ("/v1/documents", {"documents": [{"id": "8", "text": "x", "fields": {"price": "dear"}}]}),
    ):
        answer = client.post(path, json=wrong)
        assert answer.status_code == 422, answer.text
        assert answer.headers["content-type"] == "application/problem+json"


def test_columns_are_found_by_the_names_of_their_fields(sparse_sts: Run, tmp_path: Path) -> None:
    rows = [{"id": str(number), "text": f"ticket {number}", "Created At": f"2026-01-0{number}"} for number in (1, 2, 3)]
    (tmp_path / "a.jsonl").write_text(lines(rows[:1]), encoding="utf-8")
    index = tmp_path / "a-index"
    assert sparse_sts("index", tmp_path / "a.jsonl", "--all-fields", "--model", "tiny").returncode == 0
    (tmp_path / "b.jsonl").write_text(lines(rows[1:2]), encoding="utf-8")
    (tmp_path / "c.csv").write_text("id,text,Created At\n3,ticket 3,2026-01-03\n", encoding="utf-8")
    for name in ("b.jsonl", "c.csv"):
        run = sparse_sts("add", index, tmp_path / name)
        assert (run.returncode, run.stderr) == (0, "")
    with SparseStsIndex.open(index) as opened:
        hits = opened.search(["ticket"], where="Created_At > 2026-01-01")[0]
        assert {hit.id for hit in hits} == {"2", "3"}
    (tmp_path / "d.jsonl").write_text(lines([{"id": "4", "text": "ticket 4", "made": "2026-01-01"}]), encoding="utf-8")
    run = sparse_sts("add", index, tmp_path / "d.jsonl")
    assert run.returncode == 0
    assert run.stderr == (
        "warning: no sentence has a value of Created_At, and nothing was read of made; "
        'if that is it: --fields "Created_At=made"\n'
    )
    (tmp_path / "e.jsonl").write_text(lines([{"id": "5", "text": "ticket 5"}]), encoding="utf-8")
    assert sparse_sts("add", index, tmp_path / "e.jsonl").stderr == ""


def test_several_filters_all_pass_and_pages_go_on_ranking(sparse_sts: Run, index: Path) -> None:
    conditions = ["--where", 'product = "router" or open = true', "--where", "not made >= 2026-02-01"]
    assert set(found(sparse_sts, index, *conditions)) == {"1", "4"}
    first, second = sparse_sts("search", index, QUERY, "-k", 2), sparse_sts("search", index, QUERY, "--offset", 1)
    ranks = [
        [line.split()[:3] for line in run.stdout.splitlines() if line[:6].strip().isdigit()] for run in (first, second)
    ]
    assert ranks[0][1] == ranks[1][0]
    assert ranks[1][0][0] == "2"
    past = sparse_sts("search", index, QUERY, "--offset", 100)
    assert past.stdout.splitlines()[1] == "  none, with these settings"
    none = sparse_sts("search", index, QUERY, "--where", 'product = "fax"')
    assert none.stdout.splitlines()[1] == "  no sentence looked at shares a term with it"
