"""The management side of REST, with ``/docs``: what is asked rarely and need not be fast."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from serving.errors import ServingError
from serving.protocols import v2
from serving.service import Service, version

_DESCRIPTION = """
The management calls of the Open Inference Protocol. Inference itself is answered before this
application: `POST /v2/models/{model}/infer`, `POST /v2/models/{model}/versions/{version}/infer`,
`POST /v1/models/{model}:predict`; so are health, `/v2/models/{model}/ready` and `/metrics`.
"""


def build(service: Service) -> FastAPI:
    """The application over a service."""
    app = FastAPI(title="Penstock model server", version=version(), description=_DESCRIPTION)

    async def body(request: Request) -> dict[str, Any]:
        text = await request.body()
        return v2.parse(text) if text.strip() else {}

    @app.get("/", tags=["server"], summary="Whether the server runs (V1)")
    async def alive() -> dict[str, Any]:
        return {"status": "alive"}

    @app.get("/v2", tags=["server"], summary="Name, version and extensions")
    async def metadata() -> dict[str, Any]:
        return service.metadata()

    @app.get("/v2/models", tags=["models"], summary="Names of all models")
    async def models() -> dict[str, Any]:
        return {"models": service.model_names()}

    @app.get("/v2/models/stats", tags=["models"], summary="Statistics of all models in Triton's form")
    async def statistics() -> dict[str, Any]:
        return service.statistics("", "")

    @app.get("/v2/models/{model}/stats", tags=["models"], summary="The same of one model, every version")
    async def model_statistics(model: str) -> dict[str, Any]:
        return service.statistics(model, "")

    @app.get("/v2/models/{model}/versions/{version}/stats", tags=["models"], summary="The same of one version")
    async def version_statistics(model: str, version: str) -> dict[str, Any]:
        return service.statistics(model, version)

    @app.get("/v2/models/{model}", tags=["models"], summary="Versions and tensors of a model")
    async def model_metadata(model: str) -> dict[str, Any]:
        return service.model_metadata(model, "")

    @app.get("/v2/models/{model}/versions/{version}", tags=["models"], summary="The same of one version")
    async def version_metadata(model: str, version: str) -> dict[str, Any]:
        return service.model_metadata(model, version)

    @app.get("/v2/models/{model}/config", tags=["models"], summary="Configuration in Triton's form")
    async def model_config(model: str) -> dict[str, Any]:
        return service.model_config(model, "")

    @app.get("/v2/models/{model}/versions/{version}/config", tags=["models"], summary="The same of one version")
    async def version_config(model: str, version: str) -> dict[str, Any]:
        return service.model_config(model, version)

    @app.post("/v2/repository/index", tags=["repository"], summary="Every version with its state")
    async def index(request: Request) -> list[dict[str, Any]]:
        return service.index((await body(request)).get("ready") is True)

    @app.post("/v2/repository/models/{model}/load", tags=["repository"], summary="Load or reload a model")
    async def load(model: str, request: Request) -> dict[str, Any]:
        await service.load(model, bool((await body(request)).get("parameters")))
        return {}

    @app.post("/v2/repository/models/{model}/unload", tags=["repository"], summary="Stop serving a model")
    async def unload(model: str) -> dict[str, Any]:
        await service.unload(model)
        return {}

    @app.get("/v1/models", tags=["v1"], summary="Names of all models (V1)")
    async def v1_models() -> dict[str, Any]:
        return {"models": service.model_names()}

    @app.get("/v1/models/{model}", tags=["v1"], summary="Whether a model is ready (V1)")
    async def v1_model(model: str) -> dict[str, Any]:
        service.models.find(model, "")
        return {"name": model, "ready": True}

    @app.exception_handler(ServingError)
    async def refused(request: Request, error: ServingError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, status_code=error.http)

    @app.exception_handler(HTTPException)
    async def not_found(request: Request, error: HTTPException) -> JSONResponse:
        text = f"{request.method} {request.url.path}: {error.detail}; /docs lists what there is"
        return JSONResponse({"error": text}, status_code=error.status_code)

    return app
