"""Elasticsearch: ``sparse_vector``, whose query takes the whole vector."""

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


class Elasticsearch(FeatureEngine):
    """Elasticsearch, 9.1 or newer."""

    name = "elasticsearch"
    features: ClassVar[dict[str, Any]] = {"type": "sparse_vector", "index_options": {"prune": False}}

    def __init__(self, target: Target, token: str | None) -> None:
        super().__init__(target)
        self._api = load_client("elasticsearch", "elasticsearch", self.name)
        user = (target.user, target.password) if target.user and not token else None
        with self._calling():
            self._client = self._api.Elasticsearch(
                target.base_with_port, api_key=token, basic_auth=user, request_timeout=TIMEOUT, max_retries=0
            )

    @staticmethod
    def query(vector: Vector, terms: Sequence[str]) -> dict[str, Any]:
        """A ``sparse_vector`` query of all terms."""
        weights = {escape(terms[term]): weight for term, weight in zip(vector.terms, vector.weights, strict=True)}
        return {"sparse_vector": {"field": TERMS_FIELD, "query_vector": weights, "prune": False}}

    @contextlib.contextmanager
    def _calling(self) -> Iterator[None]:
        try:
            yield
        except self._api.ApiError as error:
            message = f"{self.target}: HTTP {error.status_code}: {error.message}"
            if error.status_code in RETRYABLE:
                raise Busy(message, seconds_to_wait(error.meta.headers.get("retry-after"))) from error
            raise EngineError(message) from error
        except (self._api.ConnectionError, self._api.ConnectionTimeout) as error:
            raise unreachable(f"{self.target}: {error.message}", error) from error
        except (self._api.TransportError, ValueError) as error:
            raise EngineError(f"{self.target}: {error}") from error
