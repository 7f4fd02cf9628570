"""An index as an HTTP service, and a page to look at it with; see ``docs/serve.md``.

Requests flow one way: :mod:`~.gate` (size, token, time) -> :mod:`~.app` (HTTP and JSON) -> :mod:`~.service` (what is
asked for) -> :mod:`~.worker` (the threads that do it).
"""
