"""The dependencies of the routes."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, HTTPException, Request

from sparse_sts_index.server.service import Service


async def service_of(request: Request) -> Service:
    """Return the service of the application."""
    service: Service = request.app.state.service
    return service


ServiceOf = Annotated[Service, Depends(service_of)]


async def check_writable(service: ServiceOf) -> None:
    """Refuse to change what is served read-only."""
    if not service.settings.writable:
        raise HTTPException(403, "the server is read-only; start it with --writable")
