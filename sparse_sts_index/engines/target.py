"""Where a collection is: ``ENGINE+SCHEME://HOST:PORT/PATH/NAME``, or ``ENGINE+file:FOLDER/NAME``."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from sparse_sts_index.errors import EngineError

_FORM = "ENGINE+http://HOST:PORT/NAME, ENGINE+https://... or ENGINE+file:FOLDER/NAME"
_PARTS = re.compile(r"([a-z]+)\+(https?|file):(.+)", re.DOTALL)
_NOT_OF_URLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_NOT_OF_NAMES = re.compile(r"""^[_+-]|^\.\.?$|[*?,/#:\\<>|"%\s]""")  # patterns, lists, paths, other clusters
_NOT_OF_HOSTS = re.compile(r"""[*^\\<>|"`{}%\s]""")
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Target:
    """A collection of an engine.

    Attributes
    ----------
    engine : str
    local : bool
        Whether `base` is a path of this machine.
    base : str
        URL of the server, without name and credentials, or the path.
    port : int or None
        The server's, if the URL has one.
    name : str
        Of the index or collection: of one, and of no other than it says.
    user, password : str
        Empty if there are none. Never shown.
    """

    engine: str
    local: bool
    base: str
    name: str
    port: int | None = None
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)

    def __str__(self) -> str:
        return f"{self.engine}+{'file:' if self.local else ''}{self.base}/{self.name}"

    @property
    def base_with_port(self) -> str:
        """`base` with the port that its scheme implies, for clients that want it said."""
        parts = urlsplit(self.base)
        host = parts.netloc if self.port is not None else f"{parts.netloc}:{_PORTS[parts.scheme]}"
        return parts._replace(netloc=host).geturl()


def parse_url(url: str) -> Target:
    """Take a collection's URL apart.

    Parameters
    ----------
    url : str
        Such as ``elasticsearch+https://user:password@host:9200/glosses`` or ``milvus+file:data/milvus.db/glosses``.
        What is percent-encoded in user, password and name is decoded.

    Raises
    ------
    EngineError
        It is of another form. The message shows nothing of it but the engine: there may be a password in it.
    """
    match = _PARTS.fullmatch(url)
    if match is None or _NOT_OF_URLS.search(url):  # which urllib passes over in silence
        raise EngineError(f"not the URL of a collection; that has the form {_FORM}")
    engine, scheme, rest = match.groups()
    if scheme == "file":
        base, _, name = rest.rpartition("/")
        if not base or not name:
            raise EngineError(f"the {engine} URL names no collection; that has the form {_FORM}")
        return Target(engine, True, base, _checked(engine, name))
    try:
        parts = urlsplit(f"{scheme}:{rest}")
        port = parts.port
    except ValueError as error:
        raise EngineError(f"the {engine} URL has no valid host or port; that has the form {_FORM}") from error
    prefix, _, name = parts.path.rpartition("/")
    if not parts.hostname or not name or parts.query or parts.fragment or "@" in parts.path:  # a password with a /
        raise EngineError(f"the {engine} URL names no host or no collection, or too much; the form is {_FORM}")
    server = parts.netloc.rpartition("@")[2]
    if server.endswith(":") or not _is_host(parts.hostname):
        raise EngineError(f"the {engine} URL has no valid host or port; that has the form {_FORM}")
    base = f"{scheme}://{server}{prefix}"
    try:
        encoded = (parts.username or "", parts.password or "", name)
        user, password, name = (unquote(part, errors="strict") for part in encoded)
    except UnicodeDecodeError as error:
        raise EngineError(f"in the {engine} URL something is percent-encoded that is not UTF-8") from error
    return Target(engine, False, base, _checked(engine, name), port, user, password)


def _checked(engine: str, name: str) -> str:
    if _NOT_OF_URLS.search(name) or _NOT_OF_NAMES.search(name):
        raise EngineError(
            f"the {engine} URL's collection cannot be named so: a name has no control character, no white space and"
            ' none of * ? , / # : \\ < > | " %, does not begin with _, - or +, and is not . or ..'
        )
    return name


def _is_host(host: str) -> bool:
    try:
        return bool(host.encode("idna")) and not _NOT_OF_HOSTS.search(host)
    except UnicodeError:
        return False
