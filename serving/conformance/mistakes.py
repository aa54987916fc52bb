"""Bad input is refused as such, by a sentence, and costs nobody else anything."""

from __future__ import annotations

import json
import re
from typing import Any

import grpc as grpcio
import httpx

from serving.conformance.checks import check, not_asked, require
from serving.conformance.target import Target

_INSIDE = re.compile(r"(?<![\w.])/(?:[\w.+-]+/){2,}[\w.+-]+|0x[0-9a-f]{8,}|Traceback|_shm_|/dev/shm")
"""Paths of files, addresses in memory, names of its regions."""


@check('says what is wrong as {"error": …}', needed=True)
def told(target: Target) -> None:
    answer = target.post({"inputs": []})
    require(answer.status_code >= 400, f"no inputs were answered with {answer.status_code}")
    require(isinstance(_json(answer).get("error"), str), f"it said {answer.text[:120]!r}")


@check("answers for a model that it does not have with 404")
def unknown_model(target: Target) -> None:
    answer = target.http.post(f"{target.base}/v2/models/conformance-none/infer", json={"inputs": []})
    require(answer.status_code == 404, f"it answered {answer.status_code}")


@check("answers over gRPC for a model that it does not have with NOT_FOUND")
def unknown_model_by_grpc(target: Target) -> None:
    if target.channel is None:
        not_asked("no address of gRPC was given")
    try:
        target.call("ModelMetadata", name="conformance-none")
    except grpcio.RpcError as error:
        require(error.code() is grpcio.StatusCode.NOT_FOUND, f"it answered {error.code().name}")
        return
    require(False, "it answered as if it had it")


@check("refuses a body that is no JSON")
def no_json(target: Target) -> None:
    _refused(
        target.http.post(target.path("/infer"), content=b'{"inputs": [', headers={"content-type": "application/json"})
    )


@check("refuses a request without one of the inputs")
def missing(target: Target) -> None:
    _refused(target.post(_changed(target, name="conformance-none")))


@check("refuses a datatype that is not the input's")
def datatype(target: Target) -> None:
    other = "INT8" if target.signature.inputs[0].datatype != "INT8" else "INT16"
    _refused(target.post(_changed(target, datatype=other, data=[0] * _size(target))))


@check("refuses a shape that is not the input's")
def shape(target: Target) -> None:
    given = [*target.sample()[0].array.shape, 2]
    _refused(target.post(_changed(target, shape=given, data=[0] * 2 * _size(target))))


@check("refuses fewer values than the shape says")
def too_few(target: Target) -> None:
    _refused(target.post(_changed(target, data=[0] * (_size(target) - 1))))


@check("refuses fewer bytes than the shape says")
def too_few_bytes(target: Target) -> None:
    body, headers = target.binary(target.sample())
    _refused(target.http.post(target.path("/infer"), content=body[:-1], headers=headers))


@check("refuses an output that the model does not have")
def unknown_output(target: Target) -> None:
    if not target.takes_json:
        not_asked("the model takes or gives what JSON cannot carry")
    _refused(target.post(target.document(target.sample(), outputs=[{"name": "conformance-none"}])))


@check("refuses lists a hundred thousand deep, and lives on")
def deep(target: Target) -> None:
    body = b'{"inputs": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    _refused(target.http.post(target.path("/infer"), content=body, headers={"content-type": "application/json"}))
    require(target.http.get(f"{target.base}/v2/health/live").status_code == 200, "it is not alive afterwards")


@check("tells nobody of its files and its memory")
def inside(target: Target) -> None:
    bodies: list[Any] = [{}, {"inputs": []}, {"inputs": [{"name": 1}]}]
    if target.takes_json:
        bodies += [_changed(target, shape=[-1]), _changed(target, datatype="NONE"), _changed(target, name="none")]
    for body in bodies:
        found = _INSIDE.search(target.post(body).text)
        require(found is None, f"an error shows {found[0]!r}" if found else "")


def _changed(target: Target, **fields: Any) -> dict[str, Any]:
    """A request whose first input says something else."""
    if not target.takes_json:
        not_asked("the model takes or gives what JSON cannot carry")
    document = target.document(target.sample())
    document["inputs"][0] |= fields
    return document


def _size(target: Target) -> int:
    return int(target.sample()[0].array.size)


def _refused(answer: httpx.Response) -> None:
    """That it is the client's fault, and said so."""
    require(400 <= answer.status_code < 500, f"it answered {answer.status_code}: {answer.text[:120]}")


def _json(answer: httpx.Response) -> dict[str, Any]:
    try:
        found = answer.json()
    except json.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}
