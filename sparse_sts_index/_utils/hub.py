"""The Hugging Face hub: what is taken from it by default, and whether it can be reached at all."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit
from urllib.request import getproxies

DEFAULT_BASE_MODEL = "naver/splade-cocondenser-ensembledistil"
DEFAULT_DATASET = "sentence-transformers/stsb"


def hub_reachable() -> bool:
    """Whether it is worth asking the hub: not told to stay offline, and its host name resolves (or a proxy is set)."""
    from huggingface_hub import constants

    if constants.is_offline_mode():
        return False
    if getproxies().keys() & {"https", "all"} or os.environ.get("ALL_PROXY"):
        return True
    try:
        url = urlsplit(constants.ENDPOINT)
        socket.getaddrinfo(url.hostname, url.port or 443)
    except (OSError, ValueError):  # of a name or a port that is none, too
        return False
    return True


@contextmanager
def hub_access() -> Iterator[bool]:
    """Let the hub's clients go straight to their local cache if the hub is out of reach; gives whether it is not.

    Left alone they retry an unreachable host for most of a minute.
    """
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    reachable = hub_reachable()
    constants.HF_HUB_OFFLINE = not reachable
    try:
        yield reachable
    finally:
        constants.HF_HUB_OFFLINE = before
