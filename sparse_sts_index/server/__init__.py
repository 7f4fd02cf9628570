"""An index as an HTTP service, and a page to look at it with; see ``docs/serve.md``.

Requests flow one way: :mod:`~.middleware` (size, token, time) -> :mod:`~.app` (HTTP and JSON) -> :mod:`~.service` (what
is asked for) -> :mod:`~.batching` (the threads that do it).
"""
