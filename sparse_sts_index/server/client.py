"""Ask a running service, with the standard library alone: neither a model nor Java is loaded."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from http.client import HTTPException
from time import sleep
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sparse_sts_index._utils.text import check_strings, printable
from sparse_sts_index.data.filters import Where, as_filter, filter_to_json
from sparse_sts_index.errors import ServerError
from sparse_sts_index.search.certified import check_search
from sparse_sts_index.search.results import Hit, Hits
from sparse_sts_index.server.settings import MAX_EXPLAINED, MAX_HITS, MAX_SENTENCES, is_loopback
from sparse_sts_index.vectors.explanations import TermContribution

if TYPE_CHECKING:
    from sparse_sts_index.search.certified import Mode

_ATTEMPTS = 5
_TIMEOUT = 60.0  # seconds
_LONGEST_ANSWER = 1 << 28  # bytes
_LONGEST_WAIT = 60.0  # seconds
_PRINTABLE = re.compile("[!-~]+")
_SECONDS = re.compile("[0-9]{1,9}")
_TRY_LATER = (429, 503)


class ServedIndex:
    """An index that ``sparse-sts serve`` serves, searched as :class:`~sparse_sts_index.index.SparseStsIndex` is.

    Parameters
    ----------
    url : str
        Address of the service, such as ``http://127.0.0.1:8080``.
    token : str, optional
        Token of the service.
    waiting : callable, optional
        Called with the seconds before each wait for a busy service.

    Raises
    ------
    ServerError
        Not the address of a service.
    """

    def __init__(self, url: str, token: str | None = None, *, waiting: Callable[[float], None] | None = None) -> None:
        try:
            parts = urlsplit(url)
            parts.hostname.encode("idna")  # type: ignore[union-attr]  # None is an AttributeError
            valid = parts.scheme in ("http", "https") and (parts.port is None or parts.port > 0)
        except (ValueError, AttributeError):
            valid = False
        if not valid or parts.query or parts.fragment or "@" in parts.netloc or not _PRINTABLE.fullmatch(url):
            raise ServerError("not the address of a service; that has the form http://HOST:PORT")
        if token and not _PRINTABLE.fullmatch(token):
            raise ServerError("a token is of printable ASCII")
        self.url = url.rstrip("/")
        self._headers = {"content-type": "application/json", "accept": "application/json"}
        if token:
            self._headers["authorization"] = f"Bearer {token}"
        self._waiting = waiting
        no_proxy = [urllib.request.ProxyHandler({})] if is_loopback(str(parts.hostname)) else []  # none can reach it
        handlers = [_NoRedirects(), *no_proxy]
        self._opener = urllib.request.build_opener(*handlers)

    def search(
        self,
        texts: Sequence[str],
        k: int = 10,
        *,
        mode: Mode = "exact",
        explain: bool = False,
        where: Where = None,
        min_cosine: float = 0.0,
        offset: int = 0,
        group_by: str | None = None,
    ) -> list[Hits]:
        """Return the nearest sentences of each text; see :meth:`.index.SparseStsIndex.search`. Dates come as ISO 8601.

        Raises
        ------
        ServerError
            The service cannot be reached, stays busy, or refuses the request.
        DataError, ValueError
            See :meth:`.index.SparseStsIndex.search`.
        """
        check_search(k, mode)
        texts = check_strings(texts, "text")
        together = max(1, min(MAX_SENTENCES, (MAX_EXPLAINED if explain else MAX_HITS) // (k + offset)))
        wanted: dict[str, Any] = {"k": k, "mode": mode, "explain": explain}
        if (asked := as_filter(where)) is not None:  # services of earlier versions know none of these
            wanted["where"] = where if isinstance(where, str) else filter_to_json(asked)
        wanted |= {
            name: value
            for name, value in (("min_cosine", min_cosine), ("offset", offset), ("group_by", group_by))
            if value
        }
        found: list[Hits] = []
        for start in range(0, len(texts), together):
            some = texts[start : start + together]
            answer = self._post("/v1/search", {"queries": some, **wanted})
            try:
                results = [_hits(result) for result in answer["results"]]
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                raise ServerError(f"{self.url}: the answer is not one of sparse-sts serve") from error
            if len(results) != len(some):
                raise ServerError(f"{self.url}: {len(results)} results for {len(some)} queries")
            found += results
        return found

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), self._headers)
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                with self._opener.open(request, timeout=_TIMEOUT) as answer:
                    content = answer.read(_LONGEST_ANSWER)
                break
            except urllib.error.HTTPError as error:
                with error:
                    if error.code not in _TRY_LATER or attempt == _ATTEMPTS:
                        raise ServerError(f"{self.url}: {_problem(error)}") from error
                    seconds = _seconds(error.headers.get("retry-after"), attempt)
            except (OSError, HTTPException) as error:
                reason = getattr(error, "reason", None) or error
                raise ServerError(f"{self.url} cannot be reached: {printable(str(reason), 200)}") from error
            if self._waiting is not None:
                self._waiting(seconds)
            sleep(seconds)
        try:
            return json.loads(content)
        except (ValueError, RecursionError) as error:
            raise ServerError(f"{self.url}: the answer is not JSON") from error


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """The token is for one address."""

    def redirect_request(self, *_: Any) -> None:
        """Follow none."""


def _seconds(asked: str | None, attempt: int) -> float:
    """Return how long to wait: what the service asks for, or longer each time."""
    return min(_LONGEST_WAIT, float(asked)) if asked is not None and _SECONDS.fullmatch(asked) else 0.5 * 2**attempt


def _problem(error: urllib.error.HTTPError) -> str:
    """Return the detail of a problem (RFC 9457), or the status."""
    try:
        detail = str(json.loads(error.read(1 << 16))["detail"])
    except (OSError, HTTPException, ValueError, KeyError, TypeError, RecursionError):
        detail = "no service of sparse-sts there"
    return f"{printable(detail, 300)} (status {error.code})"


def _hits(result: dict[str, Any]) -> Hits:
    hits = tuple(
        Hit(
            str(hit["id"]),
            str(hit["text"]),
            float(hit["cosine"]),
            None if hit["score"] is None else float(hit["score"]),
            None if hit.get("explanation") is None else tuple(_term(term) for term in hit["explanation"]),
            {str(name): tuple(v) if isinstance(v, list) else v for name, v in hit.get("fields", {}).items()},
        )
        for hit in result["hits"]
    )
    return Hits(hits, bool(result["certified"]), float(result["bound"]))


def _term(term: dict[str, Any]) -> TermContribution:
    weights = (float(term[name]) for name in ("query_weight", "document_weight", "contribution"))
    return TermContribution(str(term["term"]), *weights)
