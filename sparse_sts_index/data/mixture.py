"""A mixture of the sentences of many files, in which large uniform sources are held down."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sparse_sts_index.data.documents import read_corpus
from sparse_sts_index.data.pairs import load_pairs
from sparse_sts_index.data.reading import file_format
from sparse_sts_index.errors import DataError

#: Folders of a mixture: files of sentences, and files of pairs.
UNLABELLED, PAIRS = "unlabelled", "pairs"
_ANY_SCORE = (-1e9, 1e9)  # the scores are not used


@dataclass(frozen=True)
class Mixture:
    """Number of sentences to take from each source.

    Attributes
    ----------
    most : mapping of str to int
        Number of sentences to draw at random from a source, by the name of its file without suffixes. All sentences of
        other sources are taken.
    longest : int
        Number of characters above which a sentence is left out.
    count : int, optional
        Number of sentences to draw at random from all that were taken. Default: all.
    """

    most: Mapping[str, int] = field(default_factory=dict)
    longest: int = 220
    count: int | None = None


def read_mixture(folder: str | Path, mixture: Mixture, seed: int = 0) -> list[str]:
    """Read the sentences of a folder's files in random order, each different sentence once.

    Parameters
    ----------
    folder : str or Path
        With files of sentences in ``unlabelled/`` and files of sentence pairs in ``pairs/``, or one of them. Formats
        are those of :func:`~.data.documents.read_corpus` and :func:`~.data.pairs.load_pairs`.
    mixture : Mixture
    seed : int
        Seeds what is drawn, and the order.

    Raises
    ------
    DataError
        Neither folder holds a file, or a file cannot be read.
    """
    rng = random.Random(seed)
    drawn: list[str] = []
    for kind in (UNLABELLED, PAIRS):
        for path in sorted(path for path in Path(folder).joinpath(kind).glob("*") if file_format(path)):
            if kind == UNLABELLED:
                texts = [document.text for document in read_corpus(path)]
            else:
                pairs = load_pairs(path, score_range=_ANY_SCORE)
                texts = [*pairs.sentence1, *pairs.sentence2]
            texts = list(dict.fromkeys(text for text in texts if len(text) <= mixture.longest and text.strip()))
            drawn += rng.sample(texts, min(len(texts), mixture.most.get(path.name.split(".")[0], len(texts))))
    if not drawn:
        raise DataError(f"{folder}: no sentences in {UNLABELLED}/ or {PAIRS}/")
    sentences = list(dict.fromkeys(drawn))
    rng.shuffle(sentences)
    return sentences[: mixture.count]
