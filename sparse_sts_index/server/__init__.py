"""Serve an index over HTTP, with a page to look at it; see ``docs/serve.md``.

Requests flow one way: :mod:`~.middleware` and :mod:`~.auth` (host, token, size, time) -> :mod:`~.app` (HTTP, JSON) ->
:mod:`~.service` (what is asked for) -> :mod:`~.batching` (the threads that do it).
"""
