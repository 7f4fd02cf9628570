"""URLs of collections."""

from __future__ import annotations

import pytest

from sparse_sts_index import EngineError
from sparse_sts_index.engines.target import Target, parse_url


def test_urls() -> None:
    assert parse_url("elasticsearch+https://u%40x:p%3A@[::1]:9200/a/b/glosses") == Target(
        "elasticsearch", False, "https://[::1]:9200/a/b", "glosses", 9200, "u@x", "p:"
    )
    assert parse_url("opensearch+https://host/glosses").base_with_port == "https://host:443"
    assert parse_url("milvus+file:data/milvus.db/glosses") == Target("milvus", True, "data/milvus.db", "glosses")
    for url in ("solr+http://u:pw@host:8983/solr/glosses", "qdrant+file:/folder/glosses"):
        assert str(parse_url(url)) == url.replace("u:pw@", "")
        assert "pw" not in repr(parse_url(url))


@pytest.mark.parametrize(
    "url",
    [
        *(
            "",
            "glosses",
            "http://pw@host/x",
            "milvus+ftp://pw@host/x",
            "milvus+http://u:pw@host",
            "milvus+http://u:pw@/x",
        ),
        *(
            "solr+http://u:pw@host:port/x",
            "solr+http://u:pw@host/x?y",
            "milvus+file:x",
            "milvus+file:x/",
            "milvus+file:/x",
        ),
    ],
)
def test_urls_of_another_form(url: str) -> None:
    with pytest.raises(EngineError, match="form") as caught:
        parse_url(url)
    assert "pw" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "solr+http://u:12/pw@host/x",  # a password with a slash, which leaves a port and a path
        "solr+http://u:12/pw@host:8983/solr/x",
        "qdrant+http://u:1/pw@host",
        "elasticsearch+http://pw:/x",
        "elasticsearch+http://pw..a/x",
        "elasticsearch+http://pw*/x",
        "elasticsearch+http://pw^a/x",
        f"elasticsearch+http://{'pw' * 32}/x",
    ],
)
def test_a_host_that_is_none_is_not_shown(url: str) -> None:
    with pytest.raises(EngineError, match="form") as caught:
        parse_url(url)
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        *("*", "a*", "a%3Fb", "a,b", "a%2F..%2Fb", "a%23b", "_all", "-a", "+a", ".", "..", "other:a", "%3Ca%3E"),
        *("a%22b", "a%5Cb", "a%7Cb", "a%20b", "a%25b", "a%0Ab"),
    ],
)
def test_names_of_more_or_other_than_one_collection(name: str) -> None:
    """With --overwrite, what they name would be dropped."""
    with pytest.raises(EngineError, match="cannot be named so"):
        parse_url(f"opensearch+http://host/{name}")
    if "%" not in name:
        with pytest.raises(EngineError, match="cannot be named so"):
            parse_url(f"qdrant+file:folder/{name}")


def test_names_of_one_collection() -> None:
    for name, decoded in (
        ("glosses-2.1_x", "glosses-2.1_x"),
        ("w%C3%B6rter", "wörter"),
        ("a%40b", "a@b"),
        (".a", ".a"),
    ):
        assert parse_url(f"solr+http://host/solr/{name}").name == decoded
        assert parse_url(f"qdrant+file:folder/{decoded}").name == decoded
