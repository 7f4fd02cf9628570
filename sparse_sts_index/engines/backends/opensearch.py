"""OpenSearch: ``rank_features``, asked term by term."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from sparse_sts_index.engines.backends.feature_engine import TERMS_FIELD, FeatureEngine
from sparse_sts_index.engines.backends.terms import escape
from sparse_sts_index.engines.base import (
    RETRYABLE,
    TIMEOUT,
    Busy,
    Vector,
    load_client,
    seconds_to_wait,
    unreachable,
)
from sparse_sts_index.engines.target import Target
from sparse_sts_index.errors import EngineError


class OpenSearch(FeatureEngine):
    """OpenSearch."""

    name = "opensearch"
    features: ClassVar[dict[str, Any]] = {"type": "rank_features"}

    def __init__(self, target: Target, token: str | None) -> None:
        super().__init__(target)
        self._api = load_client("opensearchpy", "opensearch-py", self.name)
        self._retry_after: str | None = None
        note = self._note

        class Connection(self._api.RequestsHttpConnection):  # type: ignore[misc, name-defined]
            """Notes a header that the client's exceptions do not carry."""

            def __init__(self, *args: Any, **kwargs: Any) -> None:
                super().__init__(*args, **kwargs)
                self.session.hooks["response"].append(note)

        self._client = self._api.OpenSearch(
            [target.base_with_port],
            connection_class=Connection,
            http_auth=(target.user, target.password) if target.user and not token else None,
            headers={"authorization": f"Bearer {token}"} if token else None,
            timeout=TIMEOUT,
            max_retries=0,
        )

    def _note(self, response: Any, *args: Any, **kwargs: Any) -> None:
        self._retry_after = response.headers.get("Retry-After")

    @staticmethod
    def query(vector: Vector, terms: Sequence[str]) -> dict[str, Any]:
        """A linear ``rank_feature`` query for each term."""
        return {
            "bool": {
                "should": [
                    {"rank_feature": {"field": f"{TERMS_FIELD}.{escape(terms[term])}", "boost": weight, "linear": {}}}
                    for term, weight in zip(vector.terms, vector.weights, strict=True)
                ]
            }
        }

    @contextlib.contextmanager
    def _calling(self) -> Iterator[None]:
        self._retry_after = None
        errors = self._api.exceptions
        try:
            yield
        except (errors.ConnectionTimeout, errors.ConnectionError) as error:
            raise unreachable(f"{self.target}: {error.error}", error) from error
        except errors.TransportError as error:
            message = f"{self.target}: HTTP {error.status_code}: {error.error}"
            if error.status_code in RETRYABLE:
                raise Busy(message, seconds_to_wait(self._retry_after)) from error
            raise EngineError(message) from error
        except (errors.OpenSearchException, ValueError) as error:
            raise EngineError(f"{self.target}: {error}") from error
