"""Whether the Hugging Face hub can be reached, found out in milliseconds.

Left alone, the hub client retries an unreachable host for most of a minute; callers use this to go straight to the
local cache instead.
"""

import os
import socket
from urllib.parse import urlsplit
from urllib.request import getproxies


def hub_reachable() -> bool:
    """Whether it is worth asking the hub: not told to stay offline, and its host name resolves (or a proxy is set)."""
    from huggingface_hub import constants

    if constants.is_offline_mode():
        return False
    if getproxies().keys() & {"https", "all"} or os.environ.get("ALL_PROXY"):
        return True
    url = urlsplit(constants.ENDPOINT)
    try:
        socket.getaddrinfo(url.hostname, url.port or 443)
    except OSError:
        return False
    return True
