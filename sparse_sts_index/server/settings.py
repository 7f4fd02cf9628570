"""How a server is to run."""

from __future__ import annotations

import functools
import ipaddress
import re
from dataclasses import dataclass

from sparse_sts_index._utils.numbers import check_real, check_whole
from sparse_sts_index.errors import ServerError

MAX_SENTENCES = 256  # a request
MAX_PAIRS = 64  # of a request to explain
MAX_CHARACTERS = 10_000  # of a sentence
MAX_ID_CHARACTERS = 8_191  # which are at most Lucene's 32,766 bytes
MAX_PATH_ID_CHARACTERS = 1_000  # of an id in a path; longer ones go into a body
MAX_K = 1000
MAX_HITS, MAX_EXPLAINED = 10_000, 1_000  # that a request may ask for
LOWEST_THRESHOLD = 0.5  # of groups
TOKEN_VARIABLE = "SPARSE_STS_TOKEN"
METRICS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"  # prometheus_client's: where processes count together
_SHORTEST_TOKEN = 16


@dataclass(frozen=True)
class ServerSettings:
    """How a server is to run.

    Attributes
    ----------
    host : str
        Address to listen at.
    port : int
        0: any that is free.
    token : str or None
        What ``Authorization: Bearer`` has to bring. Needed to listen beyond the loopback.
    writable : bool
        Whether documents may be changed.
    max_batch : int
        Sentences encoded together; 1 turns micro-batching off.
    max_queue : int
        Sentences that may wait to be encoded. Requests beyond are refused with 429.
    max_body : int
        Bytes of a request's body.
    timeout : float
        Seconds that a request may take.
    refresh : float
        Seconds between looks for what other processes have committed; 0: never.

    Raises
    ------
    ServerError
        A token is too short, not of printable ASCII, or missing where one is needed.
    ValueError
        A number is out of its range, or not finite.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    token: str | None = None
    writable: bool = False
    max_batch: int = 64
    max_queue: int = 256
    max_body: int = 1 << 20
    timeout: float = 30.0
    refresh: float = 5.0

    def __post_init__(self) -> None:
        check_whole("port", self.port, 0, 65_535)
        for name in ("max_batch", "max_queue", "max_body"):
            check_whole(name, getattr(self, name), 1)
        check_real("timeout", self.timeout, 0, above=True)
        check_real("refresh", self.refresh, 0)
        if self.token is None:
            if not is_loopback(self.host):
                raise ServerError(
                    f"to listen at {self.host}, beyond this machine, takes a token: --token-file, or {TOKEN_VARIABLE}"
                )
        elif not re.fullmatch("[!-~]+", self.token) or len(self.token) < _SHORTEST_TOKEN:
            raise ServerError(
                f"the token must be at least {_SHORTEST_TOKEN} characters, printable ASCII without spaces"
            )


@functools.lru_cache(maxsize=64)
def is_loopback(host: str) -> bool:
    """Whether an address (or ``localhost``) is this machine's own, out of others' reach."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
