"""The repository, V1's lists and ``/docs``: what of REST is asked rarely and need not be fast."""

from __future__ import annotations

import re
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from serving import tensors
from serving.errors import Cancelled, InvalidInput, ServingError, Unsupported
from serving.http import docs, openapi
from serving.protocols import v2
from serving.service import Service, version

_VERB = re.compile(r"/v1/models/[^/]+(/versions/[^/]+)?:[^/:]*")


def build(service: Service) -> FastAPI:
    """The application over a service."""
    described = openapi.document(version())
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)

    async def body(request: Request) -> dict[str, Any]:
        try:
            text = await request.body()
        except ClientDisconnect as error:
            raise Cancelled("the client went away before the end of its request") from error
        return v2.parse(text) if text else {}

    @app.get("/openapi.json")
    async def document() -> dict[str, Any]:
        return described

    @app.get("/docs")
    async def documentation() -> HTMLResponse:
        return HTMLResponse(docs.page(described))

    @app.get("/")
    async def alive() -> dict[str, Any]:
        return {"status": "alive"}

    @app.post("/v2/repository/index")
    async def index(request: Request) -> list[dict[str, Any]]:
        only_ready = (await body(request)).get("ready", False)
        if not isinstance(only_ready, bool):
            raise InvalidInput(f"'ready' is {tensors.brief(only_ready)}, expected true or false")
        return service.index(only_ready)

    @app.post("/v2/repository/models/{model}/load")
    async def load(model: str, request: Request) -> dict[str, Any]:
        await service.load(model, bool((await body(request)).get("parameters")))
        return {}

    @app.post("/v2/repository/models/{model}/unload")
    async def unload(model: str) -> dict[str, Any]:
        await service.unload(model)
        return {}

    @app.get("/v1/models")
    async def v1_models() -> dict[str, Any]:
        return {"models": service.model_names()}

    @app.get("/v1/models/{model}")
    async def v1_model(model: str) -> dict[str, Any]:
        service.models.find(model, "")
        return {"name": model, "ready": True}

    @app.post("/v1/models/{model}:explain")
    @app.post("/v1/models/{model}/versions/{version}:explain")
    async def explain(model: str, version: str = "") -> None:
        service.models.find(model, version)
        raise Unsupported(f"model '{model}' has no explainer; ask it with :predict")

    @app.exception_handler(ServingError)
    async def refused(request: Request, error: ServingError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, status_code=error.http)

    @app.exception_handler(HTTPException)
    async def not_found(request: Request, error: HTTPException) -> JSONResponse:
        if request.method == "POST" and _VERB.fullmatch(request.url.path):
            text = f"POST {request.url.path}: expected :predict or :explain; /docs lists what there is"
            return JSONResponse({"error": text}, status_code=404)
        methods = openapi.methods(described, request.url.path) if error.status_code in (404, 405) else ()
        if methods:
            text = f"{request.method} {request.url.path}: expected {' or '.join(methods)}; /docs lists what there is"
            return JSONResponse({"error": text}, status_code=405, headers={"allow": ", ".join(methods)})
        text = f"{request.method} {request.url.path}: {error.detail}; /docs lists what there is"
        return JSONResponse({"error": text}, status_code=error.status_code)

    return app
