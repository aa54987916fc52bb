"""The OpenAPI document of everything served over REST, whichever part of the server answers it.

Written as a table, since most of it is answered before there is a framework that could derive it. A test asks a
server for every path of the document, and the document for every route of the server.
"""

from __future__ import annotations

import re
from typing import Any

from serving.http.schemas import SCHEMAS

Document = dict[str, Any]

_JSON, _OCTETS, _EVENTS = "application/json", "application/octet-stream", "text/event-stream"
_ERRORS = {
    400: "The request is wrong; the text says what was given and what is expected",
    404: "There is no such model, or no such version of it",
    413: "The body has more bytes than this server takes",
    500: "The model, or the server, failed at this request",
    501: "A part of the protocol that this server does not have",
    503: "Not ready, or too much to do: send again later",
    504: "The time limit passed",
}
_FIND = (404, 503)
_INFER = (400, 404, 413, 500, 501, 503, 504)
_VERSIONS = ("/v2/models/{model}", "/v2/models/{model}/versions/{version}")
_BINARY_HEADER = {
    "description": "Where tensors follow the JSON as raw bytes: how many bytes the JSON part has (0: none at all)",
    "schema": {"type": "integer", "minimum": 0},
}


def document(version: str) -> Document:
    """The document, for a server of this version."""
    paths: dict[str, Document] = {
        "/": {"get": _get("v1", "Whether the server runs", "Alive")},
        "/v1/models": {"get": _get("v1", "Names of all models", "ModelNames")},
        "/v1/models/{model}": {"get": _get("v1", "Whether a model is ready", "ModelReady", errors=_FIND)},
        "/v2": {"get": _get("server", "Name, version and extensions", "ServerMetadata")},
        "/v2/health/live": {"get": _get("server", "Whether the process answers", "Live")},
        "/v2/health/ready": {"get": _ready()},
        "/metrics": {"get": _get("server", "Metrics in Prometheus' text format", None, kind="text/plain")},
        "/debug/requests": {
            "get": _get("server", "Requests in work, and those that took longest", "Anything", errors=(501,))
        },
        "/debug/shadow": {
            "get": _get("server", "What came of mirrored requests, and the last differences", "Anything", errors=(501,))
        },
        "/docs": {"get": _get("server", "This document, to be read", None, kind="text/html")},
        "/openapi.json": {"get": _get("server", "This document", "Anything")},
        "/v2/models": {"get": _get("models", "Names of all models", "ModelNames")},
        "/v2/models/stats": {
            "get": _get("models", "Statistics of all models that are ready", "Statistics", errors=(501,))
        },
        "/v2/repository/index": {"post": _post("repository", "Every version with its state", "IndexRequest", "Index")},
        "/v2/repository/models/{model}/load": {
            "post": _post("repository", "Load or reload a model", "LoadRequest", "Anything", (400, 404, 413, 501))
        },
        "/v2/repository/models/{model}/unload": {
            "post": _post("repository", "Stop serving a model", "Anything", "Anything", (400, 404, 413, 501))
        },
    }
    paths["/debug/requests"]["get"]["responses"]["200"]["content"] |= _content(None, "text/html")
    for prefix in _VERSIONS:
        paths[prefix] = {"get": _get("models", "Versions and tensors of a model", "ModelMetadata", errors=_FIND)}
        paths[f"{prefix}/config"] = {
            "get": _get("models", "Configuration in Triton's form", "ModelConfig", errors=_FIND)
        }
        paths[f"{prefix}/stats"] = {"get": _get("models", "What was counted, in Triton's form", "Statistics", _FIND)}
        paths[f"{prefix}/ready"] = {"get": _get("models", "Whether a model is ready", "ModelReady", _FIND)}
        paths[f"{prefix}/infer"] = {"post": _infer()}
        paths[f"{prefix}/generate"] = {
            "post": _post("inference", "Inputs by name, for exactly one response", "Generate", "Generated", _INFER)
        }
        paths[f"{prefix}/generate_stream"] = {"post": _generate_stream()}
    for prefix in ("/v1/models/{model}", "/v1/models/{model}/versions/{version}"):
        paths[f"{prefix}:predict"] = {
            "post": _post("inference", "Rows or columns in, the same out", "Predict", "Predicted", _INFER)
        }
        paths[f"{prefix}:explain"] = {"post": _explain()}
    for path, operations in paths.items():
        for operation in operations.values():
            operation["parameters"] = [*_path_parameters(path), *operation.get("parameters", [])]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Penstock model server",
            "version": version,
            "description": "The Open Inference Protocol (V2) with extensions of Triton, and the V1 protocol. "
            "Requests may be packed with gzip or deflate, and so are large answers where the client accepts it.",
        },
        "paths": paths,
        "components": {"schemas": SCHEMAS},
    }


def methods(document: Document, path: str) -> list[str]:
    """The methods that the document has for a path, by the template that says most of it; none without a template."""
    templates = [
        template
        for template in document["paths"]
        if re.fullmatch(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(template)), path)
    ]
    most = max(templates, key=lambda template: len(re.sub(r"{\w+}", "", template)), default=None)
    return [] if most is None else sorted(method.upper() for method in document["paths"][most])


def _path_parameters(path: str) -> list[Document]:
    what = {"model": "The model's name", "version": "One of its versions; without it the highest that is ready"}
    return [
        {"name": name, "in": "path", "required": True, "description": text, "schema": {"type": "string"}}
        for name, text in what.items()
        if f"{{{name}}}" in path
    ]


def _content(schema: str | None, kind: str = _JSON) -> Document:
    return {kind: {"schema": {"type": "string"} if schema is None else {"$ref": f"#/components/schemas/{schema}"}}}


def _answers(good: Document, errors: tuple[int, ...]) -> Document:
    refused = {str(code): {"description": _ERRORS[code], "content": _content("Error")} for code in errors}
    return {"200": {"description": "Done", **good}, **refused}


def _get(tag: str, summary: str, answer: str | None, errors: tuple[int, ...] = (), kind: str = _JSON) -> Document:
    return {"tags": [tag], "summary": summary, "responses": _answers({"content": _content(answer, kind)}, errors)}


def _post(tag: str, summary: str, request: str, answer: str, errors: tuple[int, ...] = (400, 413)) -> Document:
    return {
        "tags": [tag],
        "summary": summary,
        "requestBody": {"content": _content(request)},
        "responses": _answers({"content": _content(answer)}, errors),
    }


def _ready() -> Document:
    operation = _get("server", "Whether requests should be sent here: at least one model answers", "Ready")
    operation["responses"]["503"] = {"description": "Not yet, or not any more", "content": _content("Ready")}
    return operation


def _infer() -> Document:
    operation = _post("inference", "An inference", "InferRequest", "InferResponse", _INFER)
    operation["parameters"] = [{"name": "Inference-Header-Content-Length", "in": "header", **_BINARY_HEADER}]
    operation["requestBody"]["content"] |= _content("Binary", _OCTETS)
    good = operation["responses"]["200"]
    good["content"] |= _content("Binary", _OCTETS)
    good["headers"] = {"Inference-Header-Content-Length": _BINARY_HEADER}
    return operation


def _generate_stream() -> Document:
    operation = _post(
        "inference", "Inputs by name; each response is a server-sent event", "Generate", "Generated", _INFER
    )
    operation["responses"]["200"]["content"] = _content(None, _EVENTS)
    return operation


def _explain() -> Document:
    operation = _post("inference", "Not served: there is no explainer", "Anything", "Anything", (404, 413, 501, 503))
    del operation["responses"]["200"]
    return operation
