"""Vectors without an encoder, for tests of what comes after it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from sparse_sts_index import Document, Manifest, Quantizer, Vocabulary
from sparse_sts_index.data.documents import Chunk
from sparse_sts_index.data.fields import FieldType, FieldValue
from sparse_sts_index.storage.impact_index import ImpactIndex
from sparse_sts_index.storage.shards import Collection, Shard
from sparse_sts_index.storage.vector_files import Extent, VectorStore, VectorWriter
from sparse_sts_index.vectors.quantizer import l2_normalize

VOCABULARY = Vocabulary([f"t{column}" for column in range(40)])


def unit_vectors(weights: NDArray[np.float64] | Sequence[Sequence[float]]) -> csr_array:
    """Rows scaled to unit length, as an encoder gives them."""
    return l2_normalize(csr_array(np.asarray(weights, np.float32).reshape(len(weights), -1)))


def random_vectors(rng: np.random.Generator, count: int, terms: int = 8, vocabulary: int = 40) -> csr_array:
    """Some 8 terms each, of skewed frequency and weight; some rows are copies of others, so that there are ties."""
    weights = np.zeros((count, vocabulary))
    for row in range(count):
        chosen = np.unique((vocabulary * rng.random(terms) ** 2).astype(int))
        weights[row, chosen] = rng.gamma(0.7, 1.0, len(chosen))
    copies = rng.integers(count, size=count // 5)
    weights[rng.integers(count, size=count // 5)] = weights[copies]
    return unit_vectors(weights)


def equal_weights(counts: Sequence[int], vocabulary: int, rng: np.random.Generator) -> csr_array:
    weights = np.zeros((len(counts), vocabulary))
    for row, count in enumerate(counts):
        weights[row, rng.choice(vocabulary, count, replace=False)] = 1
    return unit_vectors(weights)


def near_steps(count: int, vocabulary: int, rng: np.random.Generator) -> csr_array:
    """Unit vectors whose weights are about half way between two impacts, but for one that makes up the length."""
    weights = np.zeros((count, vocabulary))
    for row in range(count):
        chosen = rng.choice(vocabulary, 12, replace=False)
        weights[row, chosen] = (rng.integers(0, 60, 12) + 0.5 + rng.choice([-1e-6, 0, 1e-6], 12)) / 255
        weights[row, chosen[0]] = 0
        weights[row, chosen[0]] = np.sqrt(max(0, 1 - (weights[row] ** 2).sum()))
    return csr_array(weights.astype(np.float32))


def chunk(ids: Sequence[str], vectors: csr_array, bits: int = 8) -> Chunk:
    documents = [Document(doc_id, f"text of {doc_id}") for doc_id in ids]
    return Chunk(documents, vectors, Quantizer(bits).quantize(vectors))


def build(path: Path, ids: Sequence[str], vectors: csr_array, bits: int = 8, *, overwrite: bool = False) -> None:
    manifest = Manifest.without_model(VOCABULARY, bits)
    ImpactIndex.build(path, [chunk(ids, vectors, bits)], manifest, VOCABULARY, overwrite=overwrite)


MARKS: dict[str, FieldType] = {"n": "number", "k": "keyword", "ks": "keywords", "d": "date", "b": "boolean"}


def marks(row: int) -> dict[str, FieldValue]:
    """Fields that tell a row of vectors, of each type or of none."""
    words = tuple(f"w{word}" for word in range(row % 4))
    made = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=row)
    fields: dict[str, FieldValue] = {"n": float(row), "k": f"k{row % 7}", "ks": words, "d": made, "b": bool(row % 2)}
    return {name: value for number, (name, value) in enumerate(fields.items()) if value != () and (row + number) % 5}


def marked(model: Mapping[str, int], pool: csr_array) -> Chunk:
    """Documents, by id the row of `pool` that their vector and :func:`marks` are of."""
    plain = chunk(list(model), pool[list(model.values())])
    rows = zip(plain.documents, model.values(), strict=True)
    return dataclasses.replace(plain, documents=[dataclasses.replace(one, fields=marks(row)) for one, row in rows])


def build_marked(path: Path, model: Mapping[str, int], pool: csr_array) -> None:
    manifest = Manifest.without_model(VOCABULARY, 8).with_fields(MARKS)
    ImpactIndex.build(path, [marked(model, pool)], manifest, VOCABULARY)


def store(path: Path, vectors: csr_array, dead: Sequence[int]) -> VectorStore:
    """The vectors on disk, under ids that are their rows, with some rows that do not count."""
    path.mkdir(parents=True, exist_ok=True)
    writer = VectorWriter(path, Extent.empty("v"))
    writer.add(vectors, [str(row) for row in range(vectors.shape[0])])
    writer.kill(dead)
    extent = writer.extent(durable=False)
    writer.close()
    return VectorStore(path, extent, vectors.shape[1])


def collect(path: Path, folders: list[str]) -> None:
    """Make the indexes in some folders of `path` a collection of shards."""
    shards = []
    for folder in folders:
        with ImpactIndex.open(path / folder) as index, index.using() as snapshot:
            shards.append(Shard(folder, len(index), snapshot.sha256))
    Collection(tuple(shards), "2020-01-01T00:00:00+00:00", 1.5).write(path)


def brute_force(ids: Sequence[str], vectors: csr_array, query: csr_array, k: int) -> list[tuple[str, float]]:
    """The k nearest by float cosine, equal ones by id; cosines as Python adds up exact products in term order."""
    weights = dict(zip(query.indices.tolist(), query.data.tolist(), strict=True))
    scored = []
    for row, doc_id in enumerate(ids):
        cosine = 0.0
        for entry in range(vectors.indptr[row], vectors.indptr[row + 1]):
            cosine += float(vectors.data[entry]) * weights.get(int(vectors.indices[entry]), 0.0)
        if cosine > 0:
            scored.append((-cosine, doc_id))
    return [(doc_id, -negative) for negative, doc_id in sorted(scored)[:k]]


def assert_silent(stderr: str) -> None:
    """Refuse bars and warnings of libraries on stderr; allow lines of progress, which a busy machine has time for."""
    for line in stderr.splitlines():
        assert line.startswith(("indexing: ", "exporting: ", "training: ", "measuring: ", "growing: ")), line
