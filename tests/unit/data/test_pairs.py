from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from sparse_sts_index import DataError, HubUnreachableError, load_pairs

Write = Callable[..., Path]
SENTENCES = (["A cat, asleep.", "x"], ['Ein "Kater".', "y"])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.csv", 'sentence1,sentence2,score\n"A cat, asleep.","Ein ""Kater"".",2.5\nx,y,5\n'),
        ("p.csv", '"A cat, asleep.","Ein ""Kater"".",2.5\nx,y,5.0\n'),
        ("p.csv", 'id,Label,Sentence2,SENTENCE1\n1,2.5,"Ein ""Kater"".","A cat, asleep."\n2,5,y,x\n'),
        ("p.tsv", 'sentence1\tsentence2\tlabel\nA cat, asleep.\tEin "Kater".\t2.5\nx\ty\t5\n'),
        (
            "p.jsonl",
            '{"sentence1": "A cat, asleep.", "sentence2": "Ein \\"Kater\\".", "score": 2.5}\n'
            '{"label": "5", "sentence1": "x", "sentence2": "y"}\n',
        ),
    ],
)
def test_formats_headers_and_names(write: Write, name: str, content: str) -> None:
    pairs = load_pairs(write(name, content), score_range=(0, 5))
    assert (pairs.sentence1, pairs.sentence2) == SENTENCES
    np.testing.assert_array_equal(pairs.gold, [0.5, 1.0])


def test_parquet(tmp_path: Path) -> None:
    table = pyarrow.table({"sentence1": ["a"], "sentence2": ["b"], "score": pyarrow.array([0.25], pyarrow.float32())})
    pyarrow.parquet.write_table(table, tmp_path / "p.parquet")
    assert load_pairs(tmp_path / "p.parquet").gold.tolist() == [0.25]


def test_folder_with_a_file_for_each_split(write: Write, tmp_path: Path) -> None:
    for number, name in enumerate(["stsb-en-train.csv", "validation.csv", "my_test.csv.gz", "README.csv"]):
        import gzip

        content = f"a{number},b,0.5\n".encode()
        write(name, gzip.compress(content) if name.endswith("gz") else content)
    found = [load_pairs(tmp_path, split).sentence1 for split in ("train", "dev", "validation", "test")]
    assert found == [["a0"], ["a1"], ["a1"], ["a2"]]
    write("dev.tsv", "a\tb\t1\n")
    with pytest.raises(DataError, match="expected one dev file.*found dev.tsv, validation.csv"):
        load_pairs(tmp_path, "dev")
    with pytest.raises(DataError, match="name a split"):
        load_pairs(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b,1.5\n", r":1: score 1.5 is outside the range 0..1"),
        ("a,b,1\na,b,-0.01\n", r":2: score -0.01 is outside"),
        ("sentence1,sentence2,score\na,b,high\n", ":2: score 'high' is not a number"),
        ("a,b,0.5\nc,d,nan\n", ":2: score 'nan' is not a number"),
        ("a,b,inf\n", "outside the range"),
        ("sentence1,score\na,1\n", ":1: missing column sentence2"),
        ("sentence1,sentence2\na,b\n", ":1: missing column score or label"),
        ("first,second,grade\na,b,1\n", ":1: no header"),
        ("a,b,1\n , b,1\n", ":2: sentence1 is empty"),
        ("sentence1,sentence2,score\n", "no pairs in it"),
        ("", "no pairs in it"),
    ],
)
def test_bad_pairs(write: Write, content: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_pairs(write("p.csv", content))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"sentence1": "a", "sentence2": null, "score": 1}', ":1: sentence2 must be a string, found nothing"),
        ('{"sentence1": "a", "sentence2": 3, "score": 1}', ":1: sentence2 must be a string, found int"),
        ('{"sentence1": "a", "sentence2": "b", "score": true}', ":1: score True is not a number"),
        ('{"sentence1": "a", "sentence2": "b", "score": 1' + "0" * 400 + "}", ":1: score 10+ is not a number"),
        ('{"sentence1": "a", "sentence2": "b", "score": null}', ":1: score None is not a number"),
        ('{"sentence1": "a\\ud800", "sentence2": "b", "score": 1}', "unpaired surrogate at character 2"),
    ],
)
def test_bad_json_pairs(write: Write, line: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_pairs(write("p.jsonl", line + "\n"))


def test_score_range_is_stated_not_guessed(write: Write) -> None:
    path = write("p.csv", "a,b,-1\na,b,0\na,b,1\n")
    assert load_pairs(path, score_range=(-1, 1)).gold.tolist() == [0, 0.5, 1]
    with pytest.raises(DataError, match="score range 5 0"):
        load_pairs(path, score_range=(5, 0))


def test_pairs_without_scores(write: Write) -> None:
    for content in ("sentence1,sentence2\na,b\n", "a,b,4.5\n", "sentence1,sentence2,score\na,b,99\n"):
        pairs = load_pairs(write("p.csv", content), scored=False)
        assert (pairs.sentence1, pairs.sentence2, pairs.scores) == (["a"], ["b"], None)
    with pytest.raises(DataError, match="no scores"):
        _ = pairs.gold
    with pytest.raises(DataError, match=":1: no header"):  # it could be a header as well as a pair
        load_pairs(write("p.csv", "id,text\n1,a\n"), scored=False)


def test_sources_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        load_pairs(tmp_path / "none.csv")
    with pytest.raises(DataError, match="no such file"):
        load_pairs("none.csv")


def test_the_hub_out_of_reach() -> None:
    pytest.importorskip("datasets")
    with pytest.raises(HubUnreachableError, match="the Hugging Face hub is out of reach"):
        load_pairs(split="train")
    with pytest.raises(DataError, match="name a split"):
        load_pairs()


def test_real_stsb(stsb: Path) -> None:
    sizes = [len(load_pairs(stsb, split, score_range=(0, 5))) for split in ("train", "dev", "test")]
    assert sizes == [5749, 1500, 1379]
    with pytest.raises(DataError, match=r"stsb-en-train.csv:1: score 5 is outside the range 0..1"):
        load_pairs(stsb, "train")
