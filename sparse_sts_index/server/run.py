"""Run the service until it is told to stop."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from sparse_sts_index.errors import MissingExtraError, ServerError
from sparse_sts_index.index import SparseStsIndex
from sparse_sts_index.server.settings import ServerSettings

_KEEP_ALIVE = 75  # seconds that an idle connection is kept
_BACKLOG = 2048  # connections that wait to be accepted
_CONNECTIONS = 4096  # at a time; 503 beyond
_OWN = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime", "color_message"})  # of a record
logger = logging.getLogger("sparse_sts_index.server")


class JsonFormatter(logging.Formatter):
    """A log record as a line of JSON: time, level, event, some fields of all lines, and what was given as ``extra``."""

    def __init__(self, **fields: object) -> None:
        super().__init__()
        self._fields = fields

    def format(self, record: logging.LogRecord) -> str:
        """See :meth:`logging.Formatter.format`."""
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {"time": when, "level": record.levelname.lower(), "event": record.getMessage()}
        line |= self._fields
        line |= {name: value for name, value in vars(record).items() if name not in _OWN}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def check_extra() -> None:
    """Find out early that there is no server to run.

    Raises
    ------
    MissingExtraError
        FastAPI, uvicorn or the Prometheus client is not installed.
    """
    for module, package in (("fastapi", "fastapi"), ("uvicorn", "uvicorn"), ("prometheus_client", "prometheus-client")):
        try:
            __import__(module)
        except ImportError as error:
            raise MissingExtraError(package, "serve") from error


def listen(settings: ServerSettings, *, shared: bool = False) -> socket.socket:
    """A socket that listens at the address.

    Parameters
    ----------
    settings : ServerSettings
    shared : bool
        Several sockets may listen there; the kernel spreads connections over them.

    Raises
    ------
    ServerError
        It is taken, not this machine's, or not permitted.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=_BACKLOG, reuse_port=shared)
    except (OSError, OverflowError) as error:
        number = getattr(error, "errno", None)
        reason = os.strerror(number) if number and number > 0 else getattr(error, "strerror", None) or error
        raise ServerError(f"cannot listen at {settings.host}, port {settings.port}: {reason}") from error


def serve(index: SparseStsIndex, settings: ServerSettings, *, level: str = "info") -> None:
    """Serve an index until SIGTERM or SIGINT; what had been taken by then is finished. Closes the index.

    Logs lines of JSON to standard error.

    Parameters
    ----------
    index : SparseStsIndex
        Opened with ``writable=True`` if the settings say so.
    settings : ServerSettings
    level : {"debug", "info", "warning", "error"}
        Of what is logged; of requests, at ``info``.

    Raises
    ------
    ServerError
        The address is taken.
    MissingExtraError
        FastAPI or uvicorn is not installed.
    ModelError
        The model does not load, or is not the index's.
    """
    check_extra()
    try:
        listener = listen(settings)
    except ServerError:
        index.close()
        raise
    log_json(level)
    with listener:
        url = url_of(listener)
        serve_at(lambda: listener, index, settings, lambda: logger.info("listening", extra={"url": url}))
    logger.info("stopped")


def serve_at(
    listening: Callable[[], socket.socket],
    index: SparseStsIndex,
    settings: ServerSettings,
    ready: Callable[[], None],
) -> None:
    """:func:`serve` at a socket, asked for when everything is loaded; call `ready` when requests are served."""
    import uvicorn

    from sparse_sts_index.server.app import create_app
    from sparse_sts_index.server.service import Service

    class Server(uvicorn.Server):
        """Tells when it serves."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            ready()

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            service.stop()
            await super().shutdown(sockets)

    service = Service(index, settings)
    config = uvicorn.Config(
        create_app(service),
        log_config=None,
        access_log=False,
        lifespan="on",
        server_header=False,
        proxy_headers=False,
        ws="none",
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=int(settings.timeout) + 1,
        limit_concurrency=_CONNECTIONS,
    )
    before = signal.signal(signal.SIGTERM, _interrupt)  # uvicorn raises it again once it has stopped
    try:
        asyncio.run(service.load())
        gc.freeze()  # collections would walk through torch's million objects each time: a quarter of a second
        Server(config).run(sockets=[listening()])
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, before)
        asyncio.run(service.close())


def url_of(listener: socket.socket) -> str:
    """Return the address that a socket listens at."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def log_json(level: str, **fields: object) -> None:
    """Log lines of JSON to standard error, with some fields in all of them."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(**fields))
    for name, lowest in ((logger.name, level), ("uvicorn.error", "warning")):
        one = logging.getLogger(name)
        one.handlers, one.propagate = [handler], False
        one.setLevel(lowest.upper())
