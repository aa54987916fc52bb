"""V2 and V1 over REST."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator

from serving.conformance.checks import check, not_asked, require
from serving.conformance.target import LENGTH_HEADER, Target, differ, outputs
from serving.protocols import elements


@check("says that it is ready: 200 at /v2/health/ready", needed=True)
def ready(target: Target) -> None:
    _is_200(target, "/v2/health/ready")


@check("says that it is alive: 200 at /v2/health/live")
def live(target: Target) -> None:
    _is_200(target, "/v2/health/live")


@check("says so in JSON, too, as kserve's client reads it")
def health_in_json(target: Target) -> None:
    for word in ("live", "ready"):
        answer = target.http.get(f"{target.base}/v2/health/{word}")
        require(f'"{word}":true' in answer.text.replace(" ", ""), f"{word}: it answered {answer.text[:80]!r}")


@check("describes itself at /v2")
def server_metadata(target: Target) -> None:
    answer = target.http.get(f"{target.base}/v2")
    require(answer.status_code == 200, f"it answered {answer.status_code}")
    absent = {"name", "version", "extensions"} - answer.json().keys()
    require(not absent, f"its metadata has no {', '.join(sorted(absent))}")


@check("lists its models at /v2/models")
def models(target: Target) -> None:
    answer = target.http.get(f"{target.base}/v2/models")
    require(answer.status_code == 200, f"it answered {answer.status_code}")
    require(target.model in answer.text, "the model is not in the list")


@check("describes the model: name, platform, inputs, outputs", needed=True)
def model_metadata(target: Target) -> None:
    absent = {"name", "platform", "inputs", "outputs"} - target.metadata.keys()
    require(not absent, f"its metadata has no {', '.join(sorted(absent))}")


@check("says that the model is ready: 200 at …/ready")
def model_ready(target: Target) -> None:
    answer = target.http.get(target.path("/ready"))
    require(answer.status_code == 200, f"it answered {answer.status_code}")


@check("answers for a version by its number")
def versions(target: Target) -> None:
    known = target.metadata.get("versions") or not_asked("its metadata names no version")
    answer = target.http.post(target.path(f"/versions/{known[-1]}/infer"), json=_document(target))
    require(answer.status_code == 200, f"it answered {answer.status_code}: {answer.text[:120]}")


@check("infers from JSON", needed=True)
def infer(target: Target) -> None:
    answer = target.post(_document(target))
    require(answer.status_code == 200, f"it answered {answer.status_code}: {answer.text[:120]}")
    given, expected = outputs(answer), {spec.name for spec in target.signature.outputs}
    require(given.keys() == expected, f"it gave {sorted(given)}, its metadata says {sorted(expected)}")


@check("gives an answer its request's id")
def identity(target: Target) -> None:
    answer = target.post(_document(target, id="conformance-7"))
    require(answer.json().get("id") == "conformance-7", f"the answer's id is {answer.json().get('id')!r}")


@check("gives the outputs that were asked for, and no other")
def wanted(target: Target) -> None:
    if len(target.signature.outputs) < 2:
        not_asked("the model has one output")
    name = target.signature.outputs[-1].name
    given = outputs(target.post(_document(target, outputs=[{"name": name}])))
    require(list(given) == [name], f"asked for '{name}' it gave {sorted(given)}")


@check("takes keys and parameters that it does not know")
def unknown_keys(target: Target) -> None:
    answer = target.post(_document(target, model_name=target.model, parameters={"conformance": 1}))
    require(answer.status_code == 200, f"it answered {answer.status_code}: {answer.text[:120]}")


@check("takes tensors as bytes behind the JSON, and gives them so")
def binary(target: Target) -> None:
    tensors = target.sample()
    answer = target.post_binary(tensors, parameters={"binary_data_output": True})
    require(answer.status_code == 200, f"it answered {answer.status_code}: {answer.text[:120]}")
    require(LENGTH_HEADER in answer.headers, "it answered in JSON")
    problem = differ(outputs(answer), target.infer(tensors))
    require(not problem, f"the answer in bytes and that to JSON: {problem}")


@check("takes one input as bytes alone (inference-header-content-length: 0)")
def raw_body(target: Target) -> None:
    tensors = target.sample()
    if len(tensors) != 1 or tensors[0].datatype == "BYTES":
        not_asked("the model takes more than one input, or texts")
    body = elements.to_bytes(tensors[0])
    answer = target.http.post(target.path("/infer"), content=body, headers={LENGTH_HEADER: "0"})
    require(answer.status_code == 200, f"it answered {answer.status_code}: {answer.text[:120]}")
    require(not differ(outputs(answer), target.infer(tensors)), "the answer differs from that to JSON")


@check("takes a body packed by gzip or deflate")
def packed_request(target: Target) -> None:
    body = json.dumps(_document(target)).encode()
    for coding, packed in (("gzip", gzip.compress(body)), ("deflate", zlib.compress(body))):
        headers = {"content-encoding": coding, "content-type": "application/json"}
        answer = target.http.post(target.path("/infer"), content=packed, headers=headers)
        require(answer.status_code == 200, f"{coding}: it answered {answer.status_code}: {answer.text[:120]}")


@check("packs answers by gzip for who takes them")
def packed_answer(target: Target) -> None:
    _document(target)
    tensors = target.sample(rows=32)  # a small answer is not worth it
    answer = target.post(target.document(tensors), headers={"accept-encoding": "gzip"})
    require(answer.headers.get("content-encoding") == "gzip", "the answer came unpacked")
    require(not differ(outputs(answer), target.infer(tensors)), "unpacked it is another one")


@check("takes a body in chunks, whose length was not told")
def chunks(target: Target) -> None:
    body = json.dumps(_document(target)).encode()

    def parts() -> Iterator[bytes]:
        yield body[:7]
        yield body[7:]

    answer = target.http.post(target.path("/infer"), content=parts(), headers={"content-type": "application/json"})
    require(answer.status_code == 200, f"it answered {answer.status_code}: {answer.text[:120]}")


@check("answers a request of no rows with no rows")
def no_rows(target: Target) -> None:
    if not target.takes_rows:
        not_asked("the model's first dimension is fixed")
    answer = target.post_binary(target.sample(rows=0))
    require(answer.status_code == 200, f"it answered {answer.status_code}: {answer.text[:120]}")
    require(all(len(array) == 0 for array in outputs(answer).values()), "it gave rows that nobody asked for")


@check("gives the best classes where they are asked for (`classification`)")
def classification(target: Target) -> None:
    name = target.signature.outputs[0].name
    asked = [{"name": name, "parameters": {"classification": 1}}]
    answer = target.post(_document(target, outputs=asked))
    require(answer.status_code == 200, f"it answered {answer.status_code}: {answer.text[:120]}")
    require(answer.json()["outputs"][0]["datatype"] == "BYTES", "it gave the tensor")


@check("shows the model's configuration at …/config, as Triton does")
def configuration(target: Target) -> None:
    answer = target.http.get(target.path("/config"))
    require(answer.status_code == 200, f"it answered {answer.status_code}")
    require("max_batch_size" in answer.json(), "the configuration has no max_batch_size")


@check("shows the model's statistics at …/stats, as Triton does")
def statistics(target: Target) -> None:
    answer = target.http.get(target.path("/stats"))
    require(answer.status_code == 200, f"it answered {answer.status_code}")
    require(answer.json()["model_stats"][0]["inference_count"] != "", "the statistics count no inferences")


@check("answers V1's :predict")
def v1(target: Target) -> None:
    tensors = target.sample(rows=2)
    if len(tensors) != 1 or not target.takes_rows or not target.takes_json:
        not_asked("V1 is for models with one input of many rows")
    url = f"{target.base}/v1/models/{target.model}:predict"
    answer = target.http.post(url, json={"instances": tensors[0].array.tolist()})
    require(answer.status_code == 200, f"it answered {answer.status_code}: {answer.text[:120]}")
    require(len(answer.json()["predictions"]) == 2, "it did not give a prediction for each instance")


def _document(target: Target, **more: object) -> dict[str, object]:
    if not target.takes_json:
        not_asked("the model takes or gives what JSON cannot carry")
    return target.document(target.sample(), **more)


def _is_200(target: Target, path: str) -> None:
    answer = target.http.get(target.base + path)
    require(answer.status_code == 200, f"it answered {answer.status_code}")
