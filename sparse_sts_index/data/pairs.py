"""Graded sentence pairs: the training and test sets of semantic textual similarity."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparse_sts_index._utils.hub import DEFAULT_DATASET, hub_access
from sparse_sts_index._utils.text import printable
from sparse_sts_index.data.columns import DEFAULT_NAMES, Columns
from sparse_sts_index.data.reading import STDIN, file_format, read_records
from sparse_sts_index.data.records import Record
from sparse_sts_index.data.sample import SAMPLE, SAMPLE_FOLDER, SAMPLE_SCORE_RANGE
from sparse_sts_index.errors import DataError, HubUnreachableError

_SPLIT_NAMES = {
    "train": ("train", "training"),
    "dev": ("dev", "validation", "valid", "val"),
    "test": ("test",),
}
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_ROLES = {role: DEFAULT_NAMES[role] for role in ("sentence1", "sentence2", "score")}
_COLUMNS = Columns(_ROLES, required=tuple(_ROLES), positional=tuple(_ROLES))
_TEXT_COLUMNS = dataclasses.replace(_COLUMNS, required=("sentence1", "sentence2"))


@dataclass(frozen=True)
class Pairs:
    """Sentence pairs with their gold scores.

    Attributes
    ----------
    sentence1, sentence2 : list of str, length n
    scores : ndarray of float64, shape (n,), or None
        Gold similarity in 0..1; None for pairs read without scores.
    source : str
        Where they were read, with the split, for messages; empty if they were made by hand.
    """

    sentence1: list[str]
    sentence2: list[str]
    scores: NDArray[np.float64] | None
    source: str = ""

    def __len__(self) -> int:
        return len(self.sentence1)

    @property
    def gold(self) -> NDArray[np.float64]:
        """The scores, for callers that need them.

        Raises
        ------
        DataError
            The pairs have no scores.
        """
        if self.scores is None:
            raise self.error("the pairs have no scores")
        return self.scores

    def error(self, problem: str) -> DataError:
        """Return an error about these pairs, which names their source."""
        return DataError(f"{self.source}: {problem}" if self.source else problem)

    def columns(self) -> dict[str, list[Any]]:
        """As the columns ``sentence1``, ``sentence2`` and ``score``; raises as :attr:`gold`."""
        return {"sentence1": self.sentence1, "sentence2": self.sentence2, "score": self.gold.tolist()}


def load_pairs(
    source: str | Path = DEFAULT_DATASET,
    split: str | None = None,
    *,
    score_range: tuple[float, float] | None = None,
    scored: bool = True,
    columns: Mapping[str, str | int] | None = None,
    delimiter: str | None = None,
) -> Pairs:
    """Load sentence pairs, their scores normalised to 0..1.

    Parameters
    ----------
    source : str or Path
        ``"sample"`` (the pairs embedded in this package); a csv, tsv, jsonl or parquet file, or ``.gz`` of one; ``"-"``
        for jsonl on standard input; a folder with one file a split, named ``train.csv`` or ``anything-train.csv`` and
        the like; or the id of a data set on the Hugging Face hub. Columns are ``sentence1``, ``sentence2`` and
        ``score`` (or ``label``); csv and tsv files may leave out the header if they have just these three columns in
        this order.
    split : {"train", "dev", "validation", "test"}, optional
        Needed for a folder, a hub id or the sample; a single file is one split and is read whole.
    score_range : (float, float), optional
        Lowest and highest score of the grading scale, mapped to 0 and 1. Default (0, 1); the sample knows its own.
    scored : bool
        Whether the pairs must have scores. If False, a score column is not read.
    columns : mapping of str to str or int, optional
        Names of the columns for ``sentence1``, ``sentence2`` and ``score``, such as ``{"score": "similarity"}``; or
        numbers from 1 for csv and tsv without a header, such as ``{"sentence1": 6, "sentence2": 7, "score": 5}``
        for the files of the STSbenchmark.
    delimiter : str, optional
        What separates columns, such as ``"tab"`` or ``";"``; see :func:`~.data.reading.read_records`.

    Returns
    -------
    Pairs

    Raises
    ------
    DataError
        Missing file, column or split, a score that is no number or outside `score_range`, an empty sentence or file.
    HubUnreachableError
        A hub id that is not in the local cache while the hub is out of reach.
    """
    if str(source) == SAMPLE:
        source, score_range = SAMPLE_FOLDER, score_range or SAMPLE_SCORE_RANGE
    low, high = score_range or (0.0, 1.0)
    if not (low < high and math.isfinite(high - low)):
        raise DataError(f"score range {low:g} {high:g}: the first number must be below the second")
    wanted = (_COLUMNS if scored else _TEXT_COLUMNS).choose(columns)
    path = Path(source)
    records: Iterable[Record]
    if path.is_dir():
        path = _split_file(path, _split_key(split, str(source)), delimiter)
        records = _read_file(path, wanted, delimiter)
    elif str(source) == STDIN or path.exists() or file_format(path) or not _HUB_ID.fullmatch(str(source)):
        records = _read_file(path, wanted, delimiter)
    elif delimiter is not None:
        raise DataError(f"{source}: a data set of the hub has no delimiter")
    else:
        records = _read_hub(str(source), _split_key(split, str(source)))
    where = printable(str(path)) if path.is_file() or split is None else f"{printable(str(source))} ({split})"
    return _collect(records, wanted, (low, high), where)


def _read_file(path: Path, columns: Columns, delimiter: str | None) -> Iterable[Record]:
    if file_format(path) == "txt" and delimiter is None:
        raise DataError(
            f"{path}: a .txt file holds no pairs; use csv, tsv, jsonl or parquet, or say what separates its columns: "
            "--delimiter tab"
        )
    return read_records(path, columns, delimiter=delimiter)


def _split_key(split: str | None, source: str) -> str:
    for key, names in _SPLIT_NAMES.items():
        if split in names:
            return key
    raise DataError(f"{source}: name a split (train, dev or test)" + (f", not {split!r}" if split else ""))


def _split_file(folder: Path, key: str, delimiter: str | None) -> Path:
    """Return the one file of `folder` whose name is, or ends in, a name of the split."""
    pattern = re.compile(rf"(.*[-_.])?({'|'.join(_SPLIT_NAMES[key])})")
    unusable = (None,) if delimiter is not None else (None, "txt")
    found = sorted(
        path
        for path in folder.iterdir()
        if path.is_file()
        and file_format(path) not in unusable
        and pattern.fullmatch(re.sub(r"(\.[^.]+)(\.gz)?$", "", path.name).lower())
    )
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise DataError(f"{folder}: expected one {key} file (such as {key}.csv), found {names}")
    return found[0]


def _read_hub(name: str, key: str) -> Iterable[Record]:
    import datasets

    last: Exception | None = None
    for hub_split in _SPLIT_NAMES[key][::-1] if key == "dev" else _SPLIT_NAMES[key]:
        try:
            with hub_access():
                rows: Iterable[Mapping[str, Any]] = datasets.load_dataset(name, split=hub_split)
        except datasets.exceptions.DatasetNotFoundError as error:
            raise DataError(f"no such file, folder or hub data set: {name}") from error
        except ConnectionError as error:
            raise HubUnreachableError(
                f"{name} is neither a file or folder here nor a cached data set, and the Hugging Face hub is out of "
                "reach; name a local file or folder, or 'sample'"
            ) from error
        except ValueError as error:  # an unknown split: try the next of its names
            last = error
            continue
        return (Record(f"{name}[{hub_split}] row {n}", n, dict(row)) for n, row in enumerate(rows, 1))
    raise DataError(f"{name}: no {key} split ({str(last).splitlines()[0]})") from last


def _collect(records: Iterable[Record], columns: Columns, score_range: tuple[float, float], source: str) -> Pairs:
    low, high = score_range
    scored = "score" in columns.required
    sentence1: list[str] = []
    sentence2: list[str] = []
    scores: list[float] = []
    for record in records:
        for column, values in (("sentence1", sentence1), ("sentence2", sentence2)):
            text = columns.text(record, column)
            if not text.strip():
                raise DataError(f"{record.where}: {column} is empty")
            values.append(text)
        if scored:
            score = _score(record, columns)
            if not low <= score <= high:
                raise DataError(
                    f"{record.where}: score {score:g} is outside the range {low:g}..{high:g}; give the scale of the "
                    "file, such as --score-range 0 5 (score_range=(0, 5))"
                )
            scores.append((score - low) / (high - low))
    if not sentence1:
        raise DataError(f"{source}: no pairs in it")
    return Pairs(sentence1, sentence2, np.array(scores, dtype=np.float64) if scored else None, source)


def _score(record: Record, columns: Columns) -> float:
    value = columns.value(record, "score")
    try:
        score = math.nan if isinstance(value, bool) or value is None or "_" in str(value) else float(value)
    except (TypeError, ValueError, OverflowError):
        score = math.nan
    if math.isnan(score):
        name = columns.name_of("score", record.values)
        raise DataError(f"{record.where}: {name} {value!r:.40} is not a number")
    return score
