"""What size costs: millions of least lines, bombs, long words. ``size.py`` prints one JSON object; takes some minutes.

Each measurement is in a process of its own, whose peak memory is told.
"""

from __future__ import annotations

import gzip
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

LINES = int(os.environ.get("FUZZ_LINES", "10000000"))


def lines_file(folder: Path, format: str) -> Path:
    """Lines of one letter, with ids."""
    path = folder / f"lines.{format}"
    if not path.exists():
        with path.open("w") as file:
            for start in range(0, LINES, 100_000):
                numbers = range(start, start + 100_000)
                if format == "jsonl":
                    file.writelines(f'{{"id":"{n}","text":"{chr(97 + n % 26)}"}}\n' for n in numbers)
                else:
                    file.writelines(f"{chr(97 + n % 26)}\n" for n in numbers)
    return path


def read(folder: Path, format: str, ids: bool) -> dict[str, Any]:
    from sparse_sts_index.data.documents import check_ids, read_corpus

    documents = read_corpus(lines_file(folder, format))
    before, start = peak(), time.perf_counter()
    count = sum(1 for _ in (check_ids(documents) if ids else documents))
    grown = peak() - before
    seconds = time.perf_counter() - start
    return {"lines": count, "lines_per_second": round(count / seconds), "bytes_per_line": round(grown / count, 1)}


def refused(path: Path) -> dict[str, Any]:
    from sparse_sts_index.data.documents import examine_corpus
    from sparse_sts_index.errors import DataError

    start = time.perf_counter()
    try:
        examine_corpus(path)
    except DataError as error:
        return {"refused": str(error).replace(str(path.parent) + os.sep, ""), "seconds": time.perf_counter() - start}
    raise AssertionError("it was read")


def gzip_bomb(folder: Path) -> dict[str, Any]:
    """A gigabyte of zeros in one line."""
    path = folder / "bomb.jsonl.gz"
    path.write_bytes(gzip.compress(bytes(64 << 20), 9) * 16)
    return {"bytes": path.stat().st_size, **refused(path)}


def _gigabyte(folder: Path, head: bytes, part: bytes) -> Path:
    path = folder / "big.csv"
    with path.open("wb") as file:
        file.write(head)
        for _ in range((1 << 30) // len(part)):
            file.write(part)
    return path


def open_quote(folder: Path) -> dict[str, Any]:
    """A gigabyte behind a quote that is not closed."""
    return refused(_gigabyte(folder, b'id,text\n1,"', b"a line of it\n" * 10_000))


def many_columns(folder: Path) -> dict[str, Any]:
    """A million columns, none of them known."""
    path = folder / "columns.csv"
    path.write_bytes(b"x," * 1_000_000 + b"y\n")
    return refused(path)


def parquet_bomb(folder: Path) -> dict[str, Any]:
    """A sentence of a quarter of a gigabyte, a thousand times."""
    import pyarrow
    import pyarrow.parquet

    path = folder / "bomb.parquet"
    texts = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 1000, pyarrow.int32()), ["a" * (1 << 28)])
    table = pyarrow.table({"id": [str(n) for n in range(1000)], "text": texts})
    pyarrow.parquet.write_table(table, path, compression="zstd")
    return {"bytes": path.stat().st_size, **refused(path)}


def long_words(_: Path) -> dict[str, Any]:
    """Seconds of the tokenizer of tiny, and of a byte-level BPE, for one word and for many, by length in characters."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    from sparse_sts_index import SparseStsEncoder

    encoder = SparseStsEncoder.load("tiny", precision="float32")
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=2_000, show_progress=False)
    bpe.train_from_iterator(["a sentence of some words " * 20, "ab" * 50, "aba" * 50], trainer)
    found: dict[str, Any] = {}
    for length in (10_000, 100_000, 1_000_000):
        for kind, text in (
            ("one word", "ab" * (length // 2)),
            ("words", "word " * (length // 5)),
            ("combining", "z" + "\u0301" * (length - 1)),
        ):
            start = time.perf_counter()
            encoder.encode([text])
            middle = time.perf_counter()
            bpe.encode(text)
            end = time.perf_counter()
            found[f"{kind}, {length:,}"] = {"tiny_encode_s": round(middle - start, 3), "bpe_s": round(end - middle, 3)}
    return found


def build(folder: Path) -> dict[str, Any]:
    """The rate of an index of least lines."""
    from sparse_sts_index import Document, SparseStsIndex

    count = int(os.environ.get("FUZZ_BUILD", "20000"))

    def documents() -> Iterator[Document]:
        for n in range(count):
            yield Document(str(n), f"{chr(97 + n % 26)} {n % 977}")

    start = time.perf_counter()
    SparseStsIndex.build(folder / "index", documents(), "tiny", precision="float32").close()
    seconds = time.perf_counter() - start
    return {"sentences": count, "sentences_per_second": round(count / seconds)}


def long_sentences(folder: Path) -> dict[str, Any]:
    """An index of 64 sentences of a megabyte each."""
    from sparse_sts_index import Document, SparseStsIndex

    documents = (Document(str(n), f"sentence {n} " * 80_000) for n in range(64))
    start = time.perf_counter()
    SparseStsIndex.build(folder / "long", documents, "tiny", precision="float32").close()
    return {"sentences": 64, "seconds": round(time.perf_counter() - start, 1)}


MEASURES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "read jsonl": lambda folder: read(folder, "jsonl", ids=False),
    "read jsonl, ids checked": lambda folder: read(folder, "jsonl", ids=True),
    "read txt": lambda folder: read(folder, "txt", ids=False),
    "gzip bomb": gzip_bomb,
    "open quote": open_quote,
    "a million columns": many_columns,
    "parquet bomb": parquet_bomb,
    "long words": long_words,
    "long sentences": long_sentences,
    "build": build,
}


def peak() -> int:
    """Bytes, of this process, so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Measure what is named, or all."""
    if sys.argv[1:2] == ["--in"]:
        folder, name = sys.argv[2:]
        print(json.dumps({**MEASURES[name](Path(folder)), "peak_mib": peak() >> 20}))  # noqa: T201
        return
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in sys.argv[1:] or MEASURES:
            run = subprocess.run(
                [sys.executable, __file__, "--in", folder, name], stdout=subprocess.PIPE, check=True, text=True
            )
            results[name] = json.loads(run.stdout)
            print(name, run.stdout.strip(), file=sys.stderr, flush=True)  # noqa: T201
    print(json.dumps(results, indent=1))  # noqa: T201


main()
