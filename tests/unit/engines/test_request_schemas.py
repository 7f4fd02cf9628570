"""Requests to Elasticsearch and OpenSearch against the types that their projects generate from the published API specs.

The types come with the official JavaScript clients, from npm; TypeScript's compiler checks our requests as literals,
which leaves no room for a property that the API does not have. Without npm or network this is skipped, but not where
``CI`` is set.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, NoReturn

import pytest
from filter_support import START, TYPES
from support import VOCABULARY

from sparse_sts_index.data.filters import parse_filter, typed_filter
from sparse_sts_index.engines.backends.elasticsearch import Elasticsearch
from sparse_sts_index.engines.backends.feature_engine import bulk_record
from sparse_sts_index.engines.backends.opensearch import OpenSearch
from sparse_sts_index.engines.base import Metadata, Point, Vector

WHERE = 'k = "a" and not (ks in ("b", "c") or n < 2 or b = true) and d >= 2026-01-01 and n exists'
PACKAGES = ("@elastic/elasticsearch@9.5.1", "@opensearch-project/opensearch@3.9.0", "typescript@5.9.3")
MODULE = """
import {{ estypes }} from '@elastic/elasticsearch'
import * as Create from './node_modules/@opensearch-project/opensearch/api/indices/create.js'
import * as Search from './node_modules/@opensearch-project/opensearch/api/_core/search.js'
import * as Bulk from './node_modules/@opensearch-project/opensearch/api/_core/bulk.js'

type Kept = {{ id: string, text: string, terms: Record<string, number>, vector: string }}
type Source = Kept & {{ fields: object, microseconds: object }}
export const made: estypes.IndicesCreateRequest = {{ index: 'glosses', ...{elastic_mapping} }}
export const asked: estypes.SearchRequest = {elastic_search}
export const sent: estypes.BulkRequest<Source> = {{ index: 'glosses', operations: {bulk} }}
export const mapping: Create.Indices_Create_RequestBody = {open_mapping}
export const search: Search.Search_RequestBody = {open_search}
export const bulk: Bulk.Bulk_Request = {{ index: 'glosses', body: {bulk} }}
"""


def missing(what: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("types")
    npm = shutil.which("npm")
    if npm is None:
        missing("needs npm")
    (folder / "package.json").write_text('{"private": true}')
    command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--fetch-retries=2"]
    command += ["--fetch-retry-mintimeout=500", "--fetch-retry-maxtimeout=5000", *PACKAGES]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=400)
    except subprocess.TimeoutExpired:
        missing("npm does not get the clients in time")
    if done.returncode:
        missing(f"npm cannot get the clients: offline? {done.stderr[-500:]}")
    return folder


def check(project: Path, **changes: Any) -> str:
    """The compiler's complaints; requests may be changed, to see that it does complain."""
    metadata = Metadata("tiny", "f" * 64, "0" * 64, len(VOCABULARY), "float32", 8, None, fields=TYPES)
    fields = {"k": "a", "ks": ("b", "c"), "n": 1.5, "d": START, "b": True}
    query, point = Vector([1, 3], [0.6, 0.8]), Point("a", "A sentence.", Vector([1, 3], [0.6, 0.8]), fields)
    where = typed_filter(parse_filter(WHERE), TYPES)
    requests: dict[str, Any] = {
        "elastic_mapping": Elasticsearch.mapping(metadata),
        "elastic_search": {"index": "glosses", **Elasticsearch.request(query, 30, VOCABULARY.terms, where)},
        "open_mapping": OpenSearch.mapping(metadata),
        "open_search": OpenSearch.request(query, 30, VOCABULARY.terms, where),
        "bulk": [json.loads(line) for line in bulk_record(point, VOCABULARY.terms).splitlines()],
    }
    requests.update(changes)
    texts = {name: json.dumps(request) for name, request in requests.items()}
    # A constant of a union of arrays or records is checked for its properties only if it stands there as a literal.
    (project / "requests.ts").write_text(MODULE.format(**texts))
    compiler = [
        project / "node_modules" / ".bin" / "tsc",
        "--noEmit",
        "--strict",
        "--skipLibCheck",
        "--target",
        "es2022",
    ]
    compiler += ["--module", "nodenext", "--moduleResolution", "nodenext", "--lib", "es2022,dom", "requests.ts"]
    return subprocess.run([*map(str, compiler)], cwd=project, capture_output=True, text=True, timeout=300).stdout


def test_requests_are_of_the_published_types(project: Path) -> None:
    assert check(project) == ""


def test_the_types_tell_wrong_requests(project: Path) -> None:
    wrong = {
        "elastic_mapping": {"mappings": {"properties": {"terms": {"type": "sparse_vector", "prune": False}}}},
        "elastic_search": {"index": "x", "query": {"sparse_vector": {"field": "terms", "tokens": {}}}},
        "open_mapping": {"mappings": {"properties": {"terms": {"type": "rank_featurez"}}}},
        "open_search": {"query": {"bool": {"filter": [{"terms": {"fields.k": ["a"]}}, {"exist": {"field": "a"}}]}}},
    }
    complaints = {name: check(project, **{name: request}) for name, request in wrong.items()}
    assert all("error TS2" in text and "TS2307" not in text for text in complaints.values()), complaints
