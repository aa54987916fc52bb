"""The ASGI application behind the protocol class: FastAPI, imported when it is first asked something.

That costs half a second and 20 MB, which a server that only answers inference never pays.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from serving import threads
from serving.service import Service

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import Receive, Scope, Send


class LazyApplication:
    """Builds the application on its first request."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._application: FastAPI | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on."""
        if self._application is None:
            management = await threads.call(importlib.import_module, "serving.http.management")
            self._application = management.build(self._service)
        await self._application(scope, receive, send)
