"""One request as a person makes it: a picture or an array in, a readable answer out.

The Model's ``contract`` says how an image becomes the input tensor, and scores or detections an answer. What it means
is ``serving.translation``'s, by which the builder proves variants, too.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
import time
from collections.abc import Sequence
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt

from operators.api.errors import NotFound, OperatorError, Unreachable
from serving.contract import REVISION_HEADER, VARIANT_HEADER
from serving.translation import InvalidInput, detections, pictures
from serving.translation.scores import probabilities

Array = npt.NDArray[Any]
_DTYPES = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
}
_SHOWN = 5
_BAR = 24


class BadInput(OperatorError):
    """The input file cannot become the model's input; the message says which and why."""


@dataclasses.dataclass(frozen=True)
class Request:
    """A body in the V2 protocol; with ``header_length`` where binary tensors follow the JSON."""

    body: bytes
    header_length: int | None = None
    rows: int = 1
    """How many samples the file has; arrays give their first alone."""
    placement: pictures.Placement | None = None
    """Where the picture that the file is lies in the input."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """What came back, and who answered how fast."""

    model: str
    revision: str
    variant: str
    latency_ms: float
    outputs: list[dict[str, Any]]
    rows: int = 1
    """How many samples the file has, of which the first was sent."""
    placement: pictures.Placement | None = None
    """Where the picture that the file is lies in the input."""


def model_url(given: str) -> str:
    """``given``, if it is the URL of a model and not that of its server.

    Raises:
        BadInput: it is not.
    """
    url = given.rstrip("/")
    if re.search(r"^https?://[^/]+(/.*)?/v2/models/[^/]+(/versions/[^/]+)?$", url) is None:
        raise BadInput(f"--url {given}: give the URL of the model, up to its name: http://HOST:PORT/v2/models/NAME")
    return url


def ask(
    url: str,
    model: str,
    contract: dict[str, Any],
    file: pathlib.Path,
    timeout_s: float,
    transport: httpx.BaseTransport | None = None,
) -> Answer:
    """Send the content of ``file`` to the model at ``url``, which ends in ``/v2/models/NAME``.

    ``transport`` is how to get there, where that is not by a connection from here.

    Raises:
        BadInput: the file is not what the model takes.
        Unreachable: nobody answers, or the answer is an error of the server.
    """
    with httpx.Client(timeout=timeout_s, transport=transport) as client:
        inputs = _answered(client, "GET", url, None)[0].get("inputs", [])
        wanted = request(file, inputs, contract)
        began = time.perf_counter()
        body, headers = _answered(client, "POST", f"{url}/infer", wanted)
        latency_ms = 1000 * (time.perf_counter() - began)
    revision, variant = headers.get(REVISION_HEADER, ""), headers.get(VARIANT_HEADER, "")
    return Answer(model, revision, variant, latency_ms, body["outputs"], wanted.rows, wanted.placement)


def taken(url: str, contract: dict[str, Any], timeout_s: float, transport: httpx.BaseTransport | None = None) -> str:
    """What files the model at ``url`` takes, and its inputs by name, type and shape.

    Raises:
        Unreachable: nobody answers, or the answer is an error of the server.
    """
    with httpx.Client(timeout=timeout_s, transport=transport) as client:
        inputs = _answered(client, "GET", url, None)[0].get("inputs", [])
    one = "a picture (.png, .jpg), " if pictures.Wanted.of(contract) else ""
    files = f"{one}.npy, .npz or .json" if len(inputs) == 1 else "a V2 request as .json"
    shapes = ", ".join(f"{tensor['name']} {tensor['datatype']} {tensor['shape']}" for tensor in inputs)
    return f"{files}; its input{'s are' if len(inputs) > 1 else ' is'} {shapes}"


def request(file: pathlib.Path, inputs: Sequence[dict[str, Any]], contract: dict[str, Any]) -> Request:
    """The request that ``file`` stands for, for a model with these ``inputs`` (from its V2 metadata)."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise BadInput(f"--input {file}: {error.strerror}; give an image, .npy, .npz or .json file") from error
    array: Array
    rows, placement = 1, None
    match file.suffix.lower():
        case ".png" | ".jpg" | ".jpeg":
            array, placement = _image(file, contract)
        case ".npy" | ".npz":
            array, rows = _numpy(file)
        case ".json":
            data = _json(file, content)
            if isinstance(data, dict):
                return Request(content)
            try:
                array = np.asarray(data)
            except ValueError as error:
                raise BadInput(f"--input {file}: the nested list is not regular: {error}") from error
        case suffix:
            raise BadInput(f"--input {file}: {suffix or 'no'} suffix; give a .png, .jpg, .npy, .npz or .json file")
    if len(inputs) != 1:
        names = ", ".join(tensor["name"] for tensor in inputs)
        raise BadInput(f"--input {file}: the model has {len(inputs)} inputs ({names}); give a V2 request as .json")
    sent = _binary(file, array, inputs[0]["name"], inputs[0]["datatype"])
    return dataclasses.replace(sent, rows=rows, placement=placement)


def _image(file: pathlib.Path, contract: dict[str, Any]) -> tuple[Array, pictures.Placement]:
    wanted = pictures.Wanted.of(contract)
    if wanted is None:
        raise BadInput(
            f"--input {file}: the Model does not say how an image becomes a tensor; "
            "set spec.contract.input.image, or give a .npy, .npz or .json file"
        )
    try:
        sample, placement = pictures.opened(file, wanted)
    except InvalidInput as error:
        raise BadInput(f"--input {file}: {error}") from error
    return sample[None], placement


def _numpy(file: pathlib.Path) -> tuple[Array, int]:
    """The first sample, and how many there are."""
    try:
        loaded = np.load(file, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded[:1], len(loaded)
        with loaded:
            samples: Array = loaded["x" if "x" in loaded.files else loaded.files[0]]
            return samples[:1], len(samples)
    except (OSError, ValueError, EOFError, IndexError) as error:
        raise BadInput(f"--input {file}: cannot be read as arrays: {error}") from error


def _json(file: pathlib.Path, content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError as error:
        raise BadInput(f"--input {file}: not JSON: {error}") from error


def _binary(file: pathlib.Path, array: Array, name: str, datatype: str) -> Request:
    if datatype not in _DTYPES:
        raise BadInput(f"--input {file}: input {name!r} is {datatype}; give a V2 request as .json")
    wanted = np.dtype(_DTYPES[datatype])
    if array.dtype != wanted and not np.can_cast(array.dtype, wanted, "same_kind") and array.dtype.kind not in "iu":
        raise BadInput(f"--input {file}: holds {array.dtype}, input {name!r} takes {datatype}; convert it first")
    raw = np.ascontiguousarray(array, wanted).tobytes()
    tensor = {"name": name, "shape": list(array.shape), "datatype": datatype}
    header = json.dumps({"inputs": [tensor | {"parameters": {"binary_data_size": len(raw)}}]}).encode()
    return Request(header + raw, len(header))


def _answered(
    client: httpx.Client, method: str, url: str, wanted: Request | None
) -> tuple[dict[str, Any], httpx.Headers]:
    headers = {"Content-Type": "application/json"}
    if wanted is not None and wanted.header_length is not None:
        length = str(wanted.header_length)
        headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": length}
    try:
        response = client.request(method, url, content=wanted.body if wanted else None, headers=headers)
    except httpx.TimeoutException as error:
        seconds = client.timeout.read
        raise Unreachable(f"{url}: no answer within {seconds:g} s; wait longer with --timeout") from error
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise Unreachable(f"{url}: {error}; see `penstock get models`") from error
    try:
        body = response.json()
        if not isinstance(body, dict):
            raise ValueError(f"got {response.text:.80}")
    except ValueError as error:
        raise Unreachable(f"{url}: HTTP {response.status_code}, and no V2 answer: {error}") from error
    if response.status_code != 200:
        kind = {400: BadInput, 404: NotFound}.get(response.status_code, Unreachable)
        raise kind(f"{url}: HTTP {response.status_code}: {body.get('error') or body.get('message', response.text)}")
    return body, response.headers


@dataclasses.dataclass(frozen=True)
class Score:
    """One class and how probable it is."""

    label: str
    probability: float


def scores(answer: Answer, contract: dict[str, Any]) -> list[Score]:
    """The classes of the first output, most probable first; empty where it is no single row of numbers.

    Raises:
        BadInput: the contract has another number of labels than the output has scores.
    """
    output = answer.outputs[0]
    if output["datatype"] not in ("FP16", "FP32", "FP64") or "data" not in output:
        return []
    row = np.asarray(output["data"], np.float64).reshape(-1)
    labels = (contract.get("output") or {}).get("labels") or [str(index) for index in range(row.size)]
    if row.size != output["shape"][-1] or row.size < 2:
        return []
    if len(labels) != row.size:
        raise BadInput(
            f"spec.contract.output.labels has {len(labels)} names, "
            f"output {output['name']!r} {row.size} scores: make them the same number"
        )
    shares = probabilities(row)
    order = np.argsort(-shares, kind="stable")
    return [Score(labels[index], float(shares[index])) for index in order]


@dataclasses.dataclass(frozen=True)
class Found:
    """One finding, in points of the picture; of the input, where that was given as numbers."""

    label: str
    score: float
    box: tuple[float, ...]
    """Left, top, right, bottom."""
    joints: tuple[tuple[float, ...], ...]
    """x, y and how probably it is visible."""


def found(answer: Answer, contract: dict[str, Any]) -> list[Found] | None:
    """What the first output says is there, the surest first; None where the contract says that it is no detector's.

    Raises:
        BadInput: the output is not what the contract says.
    """
    wanted = detections.Wanted.of(contract)
    if wanted is None:
        return None
    output = answer.outputs[0]
    values = np.asarray(output.get("data", ()), np.float32)
    labels = (contract.get("output") or {}).get("labels") or ()
    try:
        classes = wanted.classes(tuple(output["shape"]))
        findings = detections.findings(values.reshape(output["shape"])[0], wanted)
    except (InvalidInput, ValueError) as error:
        raise BadInput(f"output {output['name']!r} does not fit spec.contract.output.detections: {error}") from error
    if labels and len(labels) != classes:
        raise BadInput(
            f"spec.contract.output.labels has {len(labels)} names, "
            f"output {output['name']!r} tells {classes} classes apart: make them the same number"
        )
    if answer.placement is not None:
        findings = findings.back(answer.placement)
    return [
        Found(
            labels[kind] if labels else str(kind),
            round(float(score), 4),
            tuple(box.round(2).tolist()),
            tuple(map(tuple, joints.round(3).tolist())),
        )
        for score, kind, box, joints in zip(
            findings.scores, findings.classes, findings.boxes, findings.joints, strict=True
        )
    ]


def as_text(answer: Answer, scored: Sequence[Score], there: Sequence[Found] | None = None) -> str:
    """The answer for a person: the best label with a bar for each of the top scores, or a line for each finding; who
    said so and how fast.
    """
    lines = []
    if there is not None:
        lines.append(f"{answer.model}: {len(there)} found\n")
        for one in there:
            left, top_, right, bottom = one.box
            lines.append(f"  {one.label}  {one.score:6.1%}  {left:.0f},{top_:.0f} to {right:.0f},{bottom:.0f}")
            if one.joints:
                seen = (f"{x:.0f},{y:.0f}" if visible >= 0.5 else "-" for x, y, visible in one.joints)
                lines.append(f"    {' '.join(seen)}")
        lines.append("")
    elif scored:
        lines.append(f"{answer.model}: {scored[0].label} ({scored[0].probability:.1%})\n")
        top = scored[:_SHOWN]
        width = max(len(score.label) for score in top)
        for score in top:
            bar = "█" * round(_BAR * score.probability)
            lines.append(f"  {score.label:<{width}}  {bar:<{_BAR}}  {score.probability:6.1%}")
        lines.append("")
    else:
        lines += [f"{o['name']} {o['datatype']} {o['shape']}: {_first(o.get('data'))}" for o in answer.outputs]
    by = f"revision {answer.revision} ({answer.variant}), " if answer.revision else ""
    lines.append(f"{by}{answer.latency_ms:.1f} ms")
    return "\n".join(lines) + "\n"


def _first(data: Any) -> str:
    text = json.dumps(data)
    return text if len(text) <= 200 else text[:200] + " …"


def as_data(answer: Answer, scored: Sequence[Score], there: Sequence[Found] | None = None) -> dict[str, Any]:
    """The answer for a program; of a detector without the values of its output, which are hundreds of thousands."""
    told = {
        "model": answer.model,
        "revision": answer.revision,
        "variant": answer.variant,
        "latencyMs": round(answer.latency_ms, 3),
        "scores": [dataclasses.asdict(score) for score in scored],
        "outputs": answer.outputs,
    }
    if there is None:
        return told
    outputs = [{key: value for key, value in output.items() if key != "data"} for output in answer.outputs]
    return told | {"detections": [dataclasses.asdict(one) for one in there], "outputs": outputs}
