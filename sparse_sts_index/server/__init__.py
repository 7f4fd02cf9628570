"""Serve an index over HTTP, with a page to look at it; see ``docs/serve.md``.

Requests flow one way: :mod:`~.middleware` and :mod:`~.auth` (host, token, size, time) -> :mod:`~.app` (HTTP, JSON) ->
:mod:`~.service` (what is asked for) -> :mod:`~.batching` (the threads that do it).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
