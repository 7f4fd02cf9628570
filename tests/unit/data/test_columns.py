"""Files of others: their column names, their delimiters, and no header at all."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from sparse_sts_index import DataError, load_pairs, read_corpus
from sparse_sts_index.data.columns import Columns
from sparse_sts_index.data.documents import DOCUMENT_COLUMNS, document_of
from sparse_sts_index.data.text_formats import read_delimited

Write = Callable[..., Path]
STS = {"sentence1": "6", "sentence2": "7", "score": "5"}
STS_ROWS = (
    'main-news\tMSRpar\t2012test\t0001\t4.200\tThe "old bridge was closed.\tIt was "closed", the old bridge.\n'
    '"quoted\tMSRvid\t2012test\t0003\t5.000\tA dog runs.\tA dog is running.\tSRC-A\tSRC-B\n'
)


def documents(path: Path, **options: Any) -> list[tuple[str, str]]:
    return [(document.id, document.text) for document in read_corpus(path, **options)]


@pytest.mark.parametrize(
    ("name", "content", "columns", "delimiter"),
    [
        ("c.csv", "qid,question\na,x y\nb,z\n", {"id": "qid", "text": "question"}, None),
        ("c.csv", "QID,Question,more\na,x y,1\nb,z,2\n", {"id": "qid", "text": "QUESTION"}, None),
        ("c.tsv", "qid\tquestion\na\tx y\nb\tz\n", {"id": "qid", "text": "question"}, None),
        ("c.tsv", "a\tx y\nb\tz\n", {"id": "1", "text": "2"}, None),
        ("c.tsv", "a\tx y\nb\tz\n", {"id": 1, "text": 2}, None),
        ("c.csv", "x y,a\nz,b\n", {"id": "2", "text": "1"}, None),
        ("c.csv", "a;x y\nb;z\n", {"id": "1", "text": "2"}, ";"),
        ("c.csv", "id|text\na|x y\nb|z\n", None, "pipe"),
        ("c.csv", "id\ttext\na\tx y\nb\tz\n", None, "tab"),
        ("c.txt", "id\ttext\na\tx y\nb\tz\n", None, "\t"),
        ("c.dat", "id,text\na,x y\nb,z\n", None, "comma"),
        ("c.data.gz", gzip.compress(b"id;text\na;x y\nb;z\n", mtime=0), None, "semicolon"),
        ("c.jsonl", '{"qid": "a", "q": "x y"}\n{"qid": "b", "q": "z"}\n', {"id": "qid", "text": "q"}, None),
        ("c.jsonl", '{"1": "a", "2": "x y"}\n{"1": "b", "2": "z"}\n', {"id": "1", "text": "2"}, None),
        ("c.csv", '"a, b",text\na,x y\nb,z\n', {"id": "a, b"}, None),
        # as wide as the STSbenchmark
        ("c.tsv", "a\tx y\t\t\t\t\t\nb\tz\t\t\t\t\t\t\t\n", {"id": "1", "text": "2"}, None),
        ("c.csv", "id,ID,text\n1,a,x y\n2,b,z\n", {"id": "ID"}, None),  # the case tells them apart
    ],
)
def test_columns_of_a_collection(
    write: Write, name: str, content: str | bytes, columns: dict[str, str] | None, delimiter: str | None
) -> None:
    assert documents(write(name, content), columns=columns, delimiter=delimiter) == [("a", "x y"), ("b", "z")]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("c.jsonl", '{"text": "x"}\n\n{"text": "y", "id": "b"}\n'),
        ("c.csv", "text\nx\ny\n"),
        ("c.tsv", "text\tid\nx\ta\ny\ta\n"),
    ],
)
def test_rows_are_numbered_on_request(write: Write, name: str, content: str) -> None:
    first = 1 if name == "c.jsonl" else 2
    assert documents(write(name, content), columns={"id": "#"}) == [(str(first), "x"), ("3", "y")]


def test_tables_with_tabs_have_quotes_where_csv_is_asked_for(write: Write) -> None:
    path = write("c.csv", 'id\ttext\n1\t"He said ""hi"""\n')
    assert documents(path, delimiter="tab") == [("1", '"He said ""hi"""')]
    assert documents(path, delimiter="tab", format="csv") == [("1", 'He said "hi"')]


def test_a_carriage_return_within_a_line_is_white_space(write: Write) -> None:
    assert documents(write("c.txt", "one\rtwo\nthree\n")) == [("1", "one\rtwo"), ("2", "three")]


def test_lines_may_be_numbered_and_nothing_else(write: Write) -> None:
    assert documents(write("c.txt", "x\n"), columns={"id": "#"}) == [("1", "x")]
    assert documents(write("c.csv", "hello\nworld\n"), columns={"id": "#", "text": "1"}) == [
        ("1", "hello"),
        ("2", "world"),
    ]


@pytest.mark.parametrize("columns", ["id=1", ["id"], {"id": None}, {"id": 1.0}, {"id": True}])
def test_columns_that_are_no_mapping(write: Write, columns: Any) -> None:
    with pytest.raises(ValueError, match="^columns must map id, text, ... to the names or numbers of columns$"):
        documents(write("c.csv", "1,x\n"), columns=columns)


def test_a_title_is_read_unless_the_text_is_named(write: Write) -> None:
    path = write("c.csv", "id,title,text,body\n1,T,x,B\n")
    assert documents(path) == [("1", "T x")]
    assert documents(path, columns={"text": "body"}) == [("1", "B")]
    assert documents(path, columns={"text": "body", "title": "title"}) == [("1", "T B")]


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("c.jsonl", '{"question": "x", "qid": 1}\n', {}, ":1: missing .*found: question, qid.*--columns id=qid,text=q"),
        ("c.jsonl", '{"text": "x"}\n', {}, r":1: missing .*--columns 'id=#' \(# numbers the rows\)$"),
        ("c.csv", "id;text\n1;x\n", {}, ":1: no header .*separated by semicolons: add --delimiter semicolon$"),
        ("c.csv", "id\ttext\n1\tx\n", {}, ":1: no header .*separated by tabs: add --delimiter tab$"),
        ("c.csv", "text\tid\n1\tx\n", {"columns": {"id": "#"}}, "separated by tabs: add --delimiter tab$"),
        ("c.tsv", "0\tA passage.\n", {}, r":1: no header .*found: 0, A passage.*--columns id=1,text=2$"),
        ("c.csv", "docno,body\n1,x\n", {}, ":1: no header .*--columns id=docno,text=body$"),
        ("c.tsv", "1\n", {"columns": {"id": "1", "text": "2"}}, r":1: missing column 2 \(found: 1\)"),
        ("c.csv", "1\tx\n", {"columns": {"id": "1", "text": "2"}}, ":1: missing column 2 .*add --delimiter tab$"),
        ("c.csv", "id,text\n1,x\n", {"columns": {"text": "none"}}, r":1: missing column none \(found: id, text\)"),
        (
            "c.csv",
            "id,text\n1,x\n",
            {"columns": {"body": "text"}},
            "unknown column 'body'; choose from id, text, title",
        ),
        ("c.csv", "id,text\n1,x\n", {"columns": {"id": "1", "text": "text"}}, "names .* or numbers .*, not both"),
        ("c.csv", "id,text\n1,x\n", {"columns": {"text": "#"}}, "column text: '#' is not the name of a column"),
        ("c.csv", "id,text\n1,x\n", {"columns": {"text": ""}}, "column text: '' is not the name"),
        ("c.csv", '1,"x"\n2,y, z\n', {"columns": {"id": "1", "text": "2"}}, ":2: 3 columns where 2 are expected"),
        ("c.tsv", "1\tx\n2\ty\tz\n", {"columns": {"id": "1", "text": "2"}}, ":2: 3 columns where 2 are expected"),
        (
            "c.csv",
            "id,text\n1,x\n",
            {"columns": {"id": "1", "text": "2"}},
            ":1: the first row is a header: .*id=id,text",
        ),
        (
            "c.csv",
            "qid,Question\n1,x\n",
            {"columns": {"id": "1", "text": "2"}},
            "header: .*--columns id=qid,text=Quest",
        ),
        ("c.csv", "id,text\n1,x\n", {"columns": {"title": "none"}}, r":1: missing column none \(found: id, text\)"),
        ("c.csv", "7,x\n", {"columns": {"id": 1, "text": 2, "title": 3}}, r":1: missing column 3 \(found: 1, 2\)"),
        ("c.csv", "7,x\n", {"columns": {"id": 0, "text": 1}}, "column id: columns are numbered from 1, not from 0"),
        ("c.csv", "hello\nworld\n", {}, ":1: no header .*without a header, --columns 'id=#,text=1'$"),
        ("c.csv", "text\nx\n", {"columns": {"text": "question"}}, "no header .*--columns 'id=#,text=COLUMN'"),
        ("c.jsonl", '{"question": "x"}\n', {"columns": {"text": "question"}}, "--columns 'text=question,id=#' "),
        ("c.txt", "x\n", {"columns": {"text": "question"}}, "c.txt: txt has no columns; .*--delimiter tab$"),
        ("c.jsonl", "{}\n", {"delimiter": "tab"}, "jsonl has no delimiter"),
        ("c.csv", "id,text\n1,x\n", {"delimiter": ";;"}, "delimiter ';;': expected one character"),
        ("c.csv", "id,text\n1,x\n", {"delimiter": '"'}, "delimiter '\"': expected one character"),
        ("c.csv", "id,text\n1,x\n", {"delimiter": "a"}, "delimiter 'a': expected one character"),
        ("c.csv", "id,text\n1,x\n", {"delimiter": ""}, "delimiter '': expected one character"),
        ("c.json", '[{"id": 1, "text": "x"}]\n', {}, ":1: expected one JSON object a line, found an array"),
        ("c.json", '[\n  {"id": 1, "text": "x"}\n]\n', {}, ":1: expected one JSON object a line, found an array"),
        ("c.json", '{\n  "id": 1,\n  "text": "x"\n}\n', {}, ":1: malformed JSON .* one object a line"),
        ("c.jsonl", '{"id": 1.5, "text": "x"}\n', {}, ":1: id must be a string or an integer, found float; save such"),
        ("c.txt", "A cat.\rA dog.\r", {}, "its lines end in CR alone; end them in LF"),
        ("c.txt", "A cat.\nA dog.\n".encode("utf-16"), {}, ":1: UTF-16, not UTF-8"),
        ("c.txt", "A cat.\nA dog.\n".encode("utf-16-le"), {}, ":1: not text in UTF-8: it is full of NUL"),
        ("c.csv", "id,text\n1,x\n".encode("utf-16-be"), {}, ":1: not text in UTF-8: it is full of NUL"),
        ("c.jsonl", '{"id": 1}\n'.encode("utf-16-be"), {}, ":1: not text in UTF-8: it is full of NUL"),
    ],
)
def test_what_cannot_be_read_says_what_to_type(
    write: Write, name: str, content: str | bytes, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        documents(write(name, content), **options)


@pytest.mark.parametrize(
    ("name", "content", "columns", "delimiter"),
    [
        ("sts-test.csv", STS_ROWS, STS, "tab"),
        ("sts-test.tsv", STS_ROWS, STS, None),
        ("sts-test.txt", STS_ROWS, STS, "tab"),
        (
            "sick.txt",
            "pair_ID\tsentence_A\tsentence_B\trelatedness_score\tentailment\n"
            '1\tThe "old bridge was closed.\tIt was "closed", the old bridge.\t4.2\tNEUTRAL\n'
            "2\tA dog runs.\tA dog is running.\t5\tENTAILMENT\n",
            {"sentence1": "sentence_A", "sentence2": "sentence_B", "score": "relatedness_score"},
            "tab",
        ),
        (
            "dev.tsv",  # of GLUE
            "index\tgenre\tsource1\tsource2\tsentence1\tsentence2\tscore\n"
            '0\tnews\ta\tb\tThe "old bridge was closed.\tIt was "closed", the old bridge.\t4.200\n'
            "1\tnews\ta\tb\tA dog runs.\tA dog is running.\t5.000\n",
            None,
            None,
        ),
        (
            "mteb.jsonl",
            json.dumps(
                {"text1": 'The "old bridge was closed.', "text2": 'It was "closed", the old bridge.', "similarity": 4.2}
            )
            + '\n{"text1": "A dog runs.", "text2": "A dog is running.", "similarity": "5"}\n',
            {"sentence1": "text1", "sentence2": "text2", "score": "similarity"},
            None,
        ),
    ],
)
def test_public_layouts_of_pairs(
    write: Write, name: str, content: str, columns: dict[str, str] | None, delimiter: str | None
) -> None:
    path = write(name, content)
    pairs = load_pairs(path, score_range=(0, 5), columns=columns, delimiter=delimiter)
    assert pairs.sentence1 == ['The "old bridge was closed.', "A dog runs."]
    assert pairs.sentence2 == ['It was "closed", the old bridge.', "A dog is running."]
    assert pairs.gold.tolist() == pytest.approx([0.84, 1])
    assert pairs.source == str(path)
    assert load_pairs(path, scored=False, columns=columns, delimiter=delimiter).sentence1 == pairs.sentence1


def test_a_folder_of_the_sts_benchmark(write: Write, tmp_path: Path) -> None:
    for split in ("train", "dev", "test"):
        write(f"sts-{split}.csv", STS_ROWS)
    pairs = load_pairs(tmp_path, "dev", score_range=(0, 5), columns=STS, delimiter="tab")
    assert (len(pairs), pairs.source) == (2, str(tmp_path / "sts-dev.csv"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "p.tsv",
            STS_ROWS,
            ":1: no header .*STSbenchmark, add --columns sentence1=6,sentence2=7,score=5 --score-range 0 5$",
        ),
        ("p.csv", STS_ROWS, ":1: .*separated by tabs: add --delimiter tab$"),
        (
            "p.csv",
            "sentence_A,sentence_B,relatedness_score\na,b,1\n",
            "sentence1=sentence_A,sentence2=sentence_B,score=r",
        ),
        ("p.csv", "text1,text2,score\na,b,1\n", ":1: missing .*--columns sentence1=text1,sentence2=text2$"),
        ("p.jsonl", '{"sentence1": "a", "sentence2": "b", "sim": 1}\n', ":1: missing .*--columns score=sim$"),
        ("p.csv", "left,right,grade\na,b,1\n", "score=COLUMN, or number .*--columns sentence1=1,sentence2=2,score=3$"),
        ("p.txt", "a\tb\t1\n", "a .txt file holds no pairs; .*--delimiter tab$"),
    ],
)
def test_pairs_that_cannot_be_read_say_what_to_type(write: Write, name: str, content: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_pairs(write(name, content))


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n\t"), min_size=1, max_size=12).filter(
    lambda name: name == name.strip() and not name.isdecimal() and name != "#"
)
CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n\t"), max_size=20)


@settings(deadline=None)
@given(
    names=st.lists(NAMES, min_size=2, max_size=6, unique_by=str.lower),
    rows=st.lists(st.lists(CELLS, min_size=6, max_size=6), min_size=1, max_size=4),
    delimiter=st.sampled_from([",", ";", "|", "\t"]),
    header=st.booleans(),
    data=st.data(),
)
def test_any_two_columns_of_any_table(
    names: list[str], rows: list[list[str]], delimiter: str, header: bool, data: st.DataObject
) -> None:
    """Whatever the columns are called and where they are, by name or by number, the cells come out."""
    id_place, text_place = data.draw(st.permutations(range(len(names))))[:2]
    rows = [row[: len(names)] for row in rows]
    for number, row in enumerate(rows):
        row[id_place] = f"id{number}"
    table = io.StringIO(newline="")
    if delimiter == "\t":
        table.write("".join("\t".join(row) + "\n" for row in [names] * header + rows))
    else:
        csv.writer(table, delimiter=delimiter, lineterminator="\n").writerows([names] * header + rows)
    if header:
        chosen = {"id": names[id_place], "text": names[text_place]}
    else:
        chosen = {"id": str(id_place + 1), "text": str(text_place + 1)}
    columns = DOCUMENT_COLUMNS.choose(chosen)
    lines = iter(io.StringIO(table.getvalue(), newline="\n"))
    found = [document_of(record, columns) for record in read_delimited(lines, "t", columns, delimiter)]
    assert [(document.id, document.text) for document in found] == [(row[id_place], row[text_place]) for row in rows]


@given(st.dictionaries(st.sampled_from(["id", "text", "title", "body", ""]), st.text(max_size=3), max_size=4))
def test_any_choice_is_taken_or_refused(chosen: dict[str, str]) -> None:
    try:
        columns = DOCUMENT_COLUMNS.choose(chosen)
    except DataError:
        return
    assert columns.required == ("id", "text")
    assert all(columns.roles[role] == (name,) for role, name in chosen.items())


def test_columns_that_a_reader_does_not_require() -> None:
    columns = Columns({"a": ("a", "b")}, required=())
    assert columns.name_of("a", {"b": 1}) == "b"
    columns.check([], "x")
