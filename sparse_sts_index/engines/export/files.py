"""Files that an engine's own importer takes: how to set up the collection, and what to put in."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from scipy.sparse import csr_array, vstack

from sparse_sts_index._utils.files import folder_writer, os_errors_as, refuse_replacing
from sparse_sts_index.engines.backends import elasticsearch, feature_engine, milvus, opensearch, qdrant, solr
from sparse_sts_index.engines.base import Metadata, Point, points_of
from sparse_sts_index.engines.export.ciff import write_ciff
from sparse_sts_index.engines.registry import engine_class
from sparse_sts_index.engines.sources import Source
from sparse_sts_index.errors import DataError
from sparse_sts_index.vectors.quantizer import Quantizer

MANIFEST = "manifest.json"
_PART_BYTES = 16 << 20  # Qdrant takes requests of 32 MiB, Elasticsearch of 100 MB
_PART_ROWS = 20_000


@dataclass(frozen=True)
class _Files:
    """The files of an engine.

    Attributes
    ----------
    setup : callable
        Content of each file that sets up the collection, by name.
    record : callable
        A document.
    suffix, head, separator, tail : str
        Of the files with the documents.
    """

    setup: Callable[[Metadata], dict[str, Any]]
    record: Callable[[Point, Sequence[str]], str]
    suffix: str = ".jsonl"
    head: str = ""
    separator: str = "\n"
    tail: str = "\n"


_FORMATS = {
    "elasticsearch": _Files(
        lambda metadata: {"index.json": elasticsearch.Elasticsearch.mapping(metadata)}, feature_engine.bulk_record
    ),
    "opensearch": _Files(
        lambda metadata: {"index.json": opensearch.OpenSearch.mapping(metadata)}, feature_engine.bulk_record
    ),
    "solr": _Files(
        lambda metadata: {"schema.json": solr.schema(metadata), "config.json": solr.property_command(metadata)},
        solr.record,
    ),
    "milvus": _Files(
        lambda metadata: {"collection.json": milvus.creation(metadata), "properties.json": milvus.properties(metadata)},
        milvus.record,
        *(".json", '{"rows": [\n', ",\n", "\n]}\n"),
    ),
    "qdrant": _Files(
        lambda metadata: {
            "collection.json": qdrant.creation(metadata),
            **{f"payload-index-{n:03}.json": body for n, body in enumerate(qdrant.payload_indexes(metadata), 1)},
        },
        qdrant.record,
        *(".json", '{"points": [\n', ",\n", "\n]}\n"),
    ),
}
FORMATS = (*_FORMATS, "ciff")


def export_files(
    source: Source,
    format: str,
    output: str | Path,
    *,
    overwrite: bool = False,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Write a folder with the collection in an engine's format; it is there whole or not at all.

    Documents without a term are left out, but for CIFF: no query can find them, and not every engine takes them. CIFF
    has no place for fields.

    Parameters
    ----------
    source : Source
    format : str
        One of ``FORMATS``.
    output : str or Path
        The folder.
    overwrite : bool
        Replace a folder that an export has written.
    progress : callable, optional
        Called with the number of documents written since its last call.

    Returns
    -------
    int
        The number of documents written.

    Raises
    ------
    DataError
        No documents, or the folder is taken or cannot be written.
    EngineError
        A document that the engine cannot hold.
    """
    output = check_output(output, overwrite)
    write = _write_ciff if format == "ciff" else _write_parts
    with os_errors_as(DataError, f"cannot write {output}"), folder_writer(output, overwrite=overwrite) as folder:
        documents = write(source, format, folder, progress)
        if not documents:
            raise DataError("no documents to export")
        _write_json(folder / MANIFEST, _manifest(source, format, documents, folder))
    return documents


def check_output(output: str | Path, overwrite: bool) -> Path:
    """Find out early that a folder cannot be written.

    Returns
    -------
    Path
        The folder, absolute; where a link leads if it is one.

    Raises
    ------
    DataError
        See :func:`export_files`.
    """
    output = Path(os.path.realpath(output))
    if not output.parent.is_dir():
        raise DataError(f"cannot write {output}: no folder {output.parent}")
    refuse_replacing(output, "an export", error=DataError, complete=_is_export(output), overwrite=overwrite)
    return output


def _manifest(source: Source, format: str, documents: int, folder: Path) -> dict[str, Any]:
    scale = Quantizer(source.metadata.bits).scale
    rounding = (
        f"frequencies are impacts: the sum of products over {scale}**2 is the cosine, within {source.metadata.bits}-bit"
        " rounding"
        if format == "ciff"
        else engine_class(format).precision()
    )
    files = sorted(path.name for path in folder.iterdir())
    return {
        "export": format,
        "documents": documents,
        "files": files,
        "rounding": rounding,
        **source.metadata.settings(),
        "fields": dict(source.metadata.fields),
    }


def _write_parts(source: Source, format: str, folder: Path, progress: Callable[[int], None] | None) -> int:
    files, terms = _FORMATS[format], source.vocabulary.terms
    for name, content in files.setup(source.metadata).items():
        _write_json(folder / name, content)
    documents = 0
    with contextlib.closing(_Parts(folder, files)) as parts:
        for chunk in source.read(0):
            for point in points_of(chunk, source.metadata):
                if point.vector.terms:
                    parts.add(files.record(point, terms))
                    documents += 1
            if progress is not None:
                progress(len(chunk.documents))
    return documents


class _Parts:
    """Files of documents, a new one whenever one is full."""

    def __init__(self, folder: Path, files: _Files) -> None:
        self._folder, self._files = folder, files
        self._file: IO[bytes] | None = None
        self._number = self._rows = 0

    def add(self, record: str) -> None:
        content = record.encode()
        if self._file is not None and (self._rows == _PART_ROWS or self._file.tell() + len(content) > _PART_BYTES):
            self.close()
        if self._file is None:
            self._number, self._rows = self._number + 1, 0
            self._file = (self._folder / f"part-{self._number:05}{self._files.suffix}").open("wb")
            self._file.write(self._files.head.encode())
        else:
            self._file.write(self._files.separator.encode())
        self._file.write(content)
        self._rows += 1

    def close(self) -> None:
        if self._file is not None:
            with self._file:
                self._file.write(self._files.tail.encode())
            self._file = None


def _write_ciff(source: Source, format: str, folder: Path, progress: Callable[[int], None] | None) -> int:
    ids: list[str] = []
    blocks: list[csr_array] = []
    for chunk in source.read(0):
        ids.extend(document.id for document in chunk.documents)
        blocks.append(chunk.impacts)
        if progress is not None:
            progress(len(chunk.documents))
    if not ids:
        return 0
    impacts = vstack(blocks, format="csr").astype(np.int32).tocsc()
    impacts.sort_indices()
    description = f"sparse-sts-index, model {source.metadata.model}, impacts of {source.metadata.bits} bits"
    with (folder / "index.ciff").open("wb") as file:
        write_ciff(file, impacts, source.vocabulary.terms, ids, description)
    return len(ids)


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _is_export(folder: Path) -> bool:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(manifest, dict) and "export" in manifest
