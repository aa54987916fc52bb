"""KServe's InferenceServices as Models: what each field becomes, and what is to be said of those that become nothing.

What is translated is taken out of a copy; whatever is left at the end is named, so that nothing is lost in silence.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from operators.api.base import API_VERSION

Object = dict[str, Any]

FETCHED = ("s3://", "oci://", "https://", "pvc://")
"""What pods fetch."""
LEGACY = (
    "sklearn", "xgboost", "tensorflow", "pytorch", "triton", "onnx", "huggingface", "pmml", "lightgbm", "paddle"
)  # fmt: skip
"""Fields of a predictor that name a format, from before there was ``model``."""

_PUT = "put it into a bucket, a registry or a claim, and name it in spec.source.uri"
_SCHEMES = {
    "gs://": "pods fetch no gs:// in this version; copy it to s3://, oci://, https:// or pvc://",
    "hf://": "pods fetch no hf:// in this version; copy the file to s3://, oci://, https:// or pvc://",
    "http://": f"only https:// is fetched; serve it by TLS, or {_PUT}",
    "oci://": "KServe means a container image with files in /models, a Model plain files: push them with `oras push`",
    "oci+native://": f"a container image is not read as an artifact; {_PUT}",
    "oci+fetch://": f"a container image is not read as an artifact; {_PUT}",
    "hdfs://": f"HDFS is not read; {_PUT}",
    "webhdfs://": f"HDFS is not read; {_PUT}",
    "modelscope://": f"ModelScope is not read; {_PUT}",
}
_FORMATS = {
    "sklearn": "save the model with skops (`skops.io.dump`), which a build turns into ONNX; pickles are never read",
    "xgboost": "export it to ONNX with onnxmltools",
    "lightgbm": "export it to ONNX with onnxmltools",
    "pytorch": "save a program of torch.export (.pt2), which a build turns into ONNX, or export ONNX",
    "tensorflow": "convert it to ONNX with tf2onnx",
    "paddle": "convert it to ONNX with paddle2onnx",
    "huggingface": "export it to ONNX with optimum-cli",
}
_ENGINES = {"onnx": "onnxruntime", "triton": "triton"}
_LEFT = {
    "transformer": "Models have none; keep it as an application that asks the Model",
    "explainer": "Models have none",
    "canary": "make each a Model, and an Endpoint with their shares",
    "predictor.serviceAccountName": "put the bucket's keys into Secret penstock-storage of the namespace",
    "predictor.logger": "`penstock serve --log-requests` and OpenTelemetry tell of requests, without their bodies",
    "predictor.containerConcurrency": "it is of one replica; spec.traffic.maxConcurrent is of all",
    "predictor.maxReplicas": "nothing scales replicas in this version; set spec.replicas to what the peak needs",
    "predictor.model.runtime": "the engine is chosen by spec.runtime; a ServingRuntime brings one of yours",
    "predictor.model.storage.key": "put the bucket's keys into Secret penstock-storage of the namespace",
}
_ELSE = "it has no counterpart"


@dataclasses.dataclass(frozen=True)
class Imported:
    """What an InferenceService became; ``model`` is None where it cannot become one, and ``said`` why."""

    model: Object | None
    said: tuple[str, ...]


def model(found: Object) -> Imported:
    """The Model that ``found``, an InferenceService, becomes."""
    metadata, spec = found.get("metadata", {}), copy.deepcopy(found.get("spec", {}))
    predictor = spec.get("predictor") or {}
    said: list[str] = []
    if "containers" in predictor and "model" not in predictor:
        images = ", ".join(str(each.get("image")) for each in predictor["containers"])
        todo = f"apply a ServingRuntime with image {images}, and a Model with the file that it is to load as source"
        return Imported(None, (f"spec.predictor.containers: what a container of its own loads is not known; {todo}",))
    implementation = next((name for name in ("model", *LEGACY) if predictor.get(name) is not None), None)
    if implementation is None:
        return Imported(None, ("spec.predictor has no model; write a Model with spec.source by hand",))
    serving = predictor[implementation]
    path = f"predictor.{implementation}"
    form = serving.pop("modelFormat", {}).get("name", "") if implementation == "model" else implementation
    try:
        uri = _source(predictor, serving, path)
    except _NoSource as error:
        return Imported(None, (str(error),))
    said.append(_of_source(uri, f"spec.{path}"))
    if form in _ENGINES:
        runtime = _ENGINES[form]
    else:
        runtime = _ENGINES["onnx"]
        todo = _FORMATS.get(form, "export it to ONNX, or apply a ServingRuntime that loads it and name that")
        said.append(f"spec.{path}: format {form or 'none'} is not served as it is; {todo}")
    made: Object = {"source": {"uri": uri}}
    if runtime != _ENGINES["onnx"]:
        made["runtime"] = runtime
    for name, part in _parts(predictor, serving, path, said):
        made[name] = part
    serving.pop("protocolVersion", None)  # all of them are served
    if not serving:
        del predictor[implementation]
    said += (f"spec.{left}: {_LEFT.get(left, _ELSE)}" for left in _left(spec))
    wanted: Object = {"name": metadata.get("name", "")}
    if "namespace" in metadata:
        wanted["namespace"] = metadata["namespace"]
    if kept := {k: v for k, v in (metadata.get("labels") or {}).items() if "kserve.io/" not in k}:
        wanted["labels"] = kept
    for name in metadata.get("annotations") or {}:
        if "kserve.io/" in name and not name.endswith(("/deploymentMode", "/autoscalerClass")):
            said.append(f"annotation {name}: {_ELSE}")
    return Imported({"apiVersion": API_VERSION, "kind": "Model", "metadata": wanted, "spec": made}, tuple(said))


class _NoSource(Exception):
    """There is no one artifact; the message says what to do."""


def _source(predictor: Object, serving: Object, path: str) -> str:
    """The one URI of the artifact, taken out."""
    if several := predictor.pop("storageUris", None):
        if len(several) > 1:
            raise _NoSource(f"spec.predictor.storageUris: a Model has one artifact, these are {len(several)}; {_PUT}")
        return str(several[0]["uri"])
    if uri := serving.pop("storageUri", None):
        return str(uri)
    storage = serving.get("storage") or {}
    bucket = (storage.get("parameters") or {}).get("bucket")
    if "path" in storage and bucket:
        scheme = storage.pop("parameters").get("type", "s3")
        uri = f"{scheme}://{bucket}/{storage.pop('path').lstrip('/')}"
        if not storage:
            del serving["storage"]
        return uri
    if storage:
        where = (
            f"path {storage.get('path')!r} of what Secret storage-config says under {storage.get('key', 'default')!r}"
        )
        raise _NoSource(f"spec.{path}.storage: the bucket is not known: {where}; write its URI into spec.source.uri")
    raise _NoSource(f"spec.{path}: there is no storageUri; write a Model with spec.source by hand")


def _of_source(uri: str, path: str) -> str:
    known = next((todo for scheme, todo in _SCHEMES.items() if uri.startswith(scheme)), None)
    if known is None and uri.startswith(FETCHED):
        return f"spec.source.digest: a cluster wants it; `penstock fetch --uri {uri} --to DIR` prints it"
    return f"{path}: {uri}: {known or _PUT}"


def _parts(predictor: Object, serving: Object, path: str, said: list[str]) -> Iterator[tuple[str, Any]]:
    """Fields of a Model's spec by name, each taken out of what it is made of."""
    replicas = predictor.pop("minReplicas", 1)
    if replicas == 0:
        said.append("spec.predictor.minReplicas: 0 scales to zero, which nothing does here; one replica stays")
    if predictor.get("maxReplicas") in (0, replicas):
        del predictor["maxReplicas"]
    if replicas > 1:
        yield "replicas", replicas
    if resources := _resources(serving, f"{path}.resources", said):
        yield "resources", resources
    batcher = predictor.pop("batcher", None) or {}
    batching: Object = {"maxSize": batcher["maxBatchSize"]} if "maxBatchSize" in batcher else {}
    if "maxLatency" in batcher:
        batching["maxDelay"] = f"{batcher['maxLatency']}ms"
    if batching:
        yield "batching", batching
    if timeout := predictor.pop("timeout", None):
        yield "limits", {"timeout": f"{timeout}s"}
    percent = predictor.pop("canaryTrafficPercent", None)
    if percent is not None and 0 < percent < 100:
        said.append(
            f"spec.predictor.canaryTrafficPercent: {percent}: KServe stays there until somebody changes it; here the "
            "step ends after an hour (spec.rollout.steps), unless `penstock rollout pause` holds it"
        )
        yield "rollout", {"steps": [{"weight": percent, "for": "1h"}]}
    elif percent == 0:
        said.append(
            "spec.predictor.canaryTrafficPercent: 0: the next revision gets all traffic once it is ready; set "
            "spec.rollout.paused to hold it back"
        )


def _resources(serving: Object, path: str, said: list[str]) -> Object:
    given = serving.pop("resources", None) or {}
    found: Object = {}
    for kind in ("requests", "limits"):
        for name, value in (given.get(kind) or {}).items():
            if name in ("cpu", "memory"):
                found.setdefault(kind, {})[name] = str(value)
            else:
                said.append(
                    f"spec.{path}.{kind}.{name}: {value}: nothing but cpu and memory is asked for in this version"
                )
    return found


def _left(spec: Mapping[str, Any], before: str = "") -> Iterator[str]:
    """Paths of what nothing was made of; of what is not known, the shortest."""
    for name, value in spec.items():
        path = f"{before}{name}"
        opened = path in ("predictor", "predictor.model", "predictor.model.storage") or path in {
            f"predictor.{each}" for each in LEGACY
        }
        if opened and isinstance(value, dict):
            yield from _left(value, f"{path}.")
        elif value not in (None, {}, []):
            yield path
