"""``penstock up`` as a person uses it: one YAML, from model to answers, and back again after every accident."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import select
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from operators.cli import datadir
from tests.rig import ports
from tests.rig.local_mode import Local

DIGITS = pathlib.Path(__file__).parents[2] / "examples" / "digits"
DEADLINE_S = 60.0


def write_model(path: pathlib.Path, factor: float) -> None:
    """A model that multiplies three numbers by ``factor``, so that an answer tells which revision gave it."""
    shape: list[str | int | None] = ["batch", 3]
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "factor"], ["y"])],
        "times",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [helper.make_tensor("factor", TensorProto.FLOAT, [1], [factor])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def write_yaml(path: pathlib.Path, **spec: Any) -> str:
    source = {"source": {"uri": "model.onnx"}}
    model = {
        "apiVersion": "penstock.dev/v1alpha1",
        "kind": "Model",
        "metadata": {"name": "times"},
        "spec": source | spec,
    }
    path.write_text(json.dumps(model))
    return str(path)


def answer(local: Local) -> list[float]:
    url = local.model("times")["status"]["url"]
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}
    reply = httpx.post(f"{url}/infer", json={"inputs": [tensor]})
    assert reply.status_code == 200, reply.text
    data: list[float] = reply.json()["outputs"][0]["data"]
    return data


@pytest.fixture(autouse=True)
def _first_model(tmp_path: pathlib.Path) -> None:
    write_model(tmp_path / "model.onnx", 2)


def test_from_one_yaml_to_answers_to_the_next_revision_to_nothing(local: Local, tmp_path: pathlib.Path) -> None:
    file = write_yaml(tmp_path / "model.yaml")
    process = local.up(file)
    first = local.serving("times")
    url = f"http://127.0.0.1:{local.port}/v2/models/times"
    assert answer(local) == [2, 4, 6]

    write_model(tmp_path / "model.onnx", 10)
    assert local("apply", "-f", file) == (0, "models/times configured\n", "")
    second = local.serving("times")
    assert (first != second, answer(local)) == (True, [10, 20, 30])
    assert local("apply", "-f", file) == (0, "models/times unchanged\n", "")

    code, out, _ = local("get", "models")
    head, line = (row.split() for row in out.splitlines())
    assert (code, head) == (0, ["NAME", "READY", "VARIANT", "REVISION", "REPLICAS", "URL", "AGE"])
    assert line[:6] == ["times", "True", "default", second, "1/1", url]
    code, out, _ = local("describe", "model", "times")
    states = re.findall(r"^  (\w{8}) +default +(\w+) ", out, re.MULTILINE)
    assert (code, states) == (0, [(second, "Serving"), (first, "Retired")])
    assert local("describe", "times")[1].splitlines()[:3] == out.splitlines()[:3]
    code, out, _ = local("logs", "times")
    assert code == 0
    assert "serving times" in out
    (tmp_path / "in.json").write_text("[[1, 2, 3]]")
    code, out, _ = local("infer", "times", "--input", str(tmp_path / "in.json"), "-o", "json")
    reply = json.loads(out)
    assert (code, reply["revision"], reply["variant"], reply["outputs"][0]["data"]) == (
        0,
        second,
        "default",
        [10, 20, 30],
    )

    assert local("get", "model/times")[1].split()[:8:7] == ["NAME", "times"]
    assert local("delete", "model", "times", "none") == (
        1,
        "models/times deleted\n",
        "error: Model default/none does not exist; `penstock get models` lists those that do\n",
    )
    local.until("the route is gone", lambda: httpx.get(url).status_code == 404)
    assert local("get", "models") == (0, "no models here; `penstock apply -f FILE` makes one\n", "")

    process.send_signal(signal.SIGINT)
    assert process.wait(DEADLINE_S) == 0
    assert local.children() == set()
    assert f"model default/times Ready: {url} (revision {first})\n" in local.output()


def test_the_digits_example_answers_as_onnx_runtime_does(local: Local) -> None:
    local.up(str(DIGITS / "plain.yaml"))
    local.serving("digits")
    code, out, error = local("infer", "digits", "--input", str(DIGITS / "seven.png"), "-o", "json")
    assert code == 0, error
    reply = json.loads(out)
    assert reply["scores"][0]["label"] == "seven"
    said = "a picture (.png, .jpg), .npy, .npz or .json; its input is image FP32 [-1, 1, 32, 32]"
    what = f"give what it is to answer: `penstock infer digits --input FILE`, {said}"
    assert local("infer", "digits") == (1, "", f"error: infer digits: {what}\n")

    x = np.load(DIGITS / "eval.npz")["x"][:1]
    code, out, error = local("infer", "digits", "--input", str(DIGITS / "eval.npz"), "-o", "json")
    rows = len(np.load(DIGITS / "eval.npz")["x"])
    assert (code, error) == (0, f"first of {rows} rows; give a nested list as .json to send several\n")
    session = onnxruntime.InferenceSession(DIGITS / "model.onnx")
    (expected,) = session.run(None, {session.get_inputs()[0].name: x})
    given = np.asarray(json.loads(out)["outputs"][0]["data"], np.float32).reshape(expected.shape)
    np.testing.assert_allclose(given, expected, rtol=1e-5, atol=1e-6)


def test_an_endpoint_is_asked_as_a_model_is(local: Local, tmp_path: pathlib.Path) -> None:
    arms = [{"name": "a", "model": "times", "weight": 100}]
    endpoint = {"apiVersion": "penstock.dev/v1alpha1", "kind": "Endpoint", "metadata": {"name": "both"}}
    (tmp_path / "endpoint.json").write_text(json.dumps(endpoint | {"spec": {"arms": arms}}))
    local.up(write_yaml(tmp_path / "model.yaml"), str(tmp_path / "endpoint.json"))
    local.serving("times")
    local.until("the endpoint is ready", lambda: " True " in local("get", "endpoint", "both")[1])
    (tmp_path / "in.json").write_text("[[1, 2, 3]]")
    code, out, error = local("infer", "both", "--input", str(tmp_path / "in.json"), "-o", "json")
    assert code == 0, error
    reply = json.loads(out)
    assert (reply["model"], reply["outputs"][0]["data"]) == ("both", [2, 4, 6])
    assert "Kind:         Endpoint\n" in local("describe", "both")[1]
    assert local("logs", "both") == (
        1,
        "",
        "error: endpoint both has no logs; read those of its models with `penstock logs`: times\n",
    )
    assert local("infer", "none", "--input", "in.json") == (
        1,
        "",
        "error: neither a Model nor an Endpoint default/none exists; "
        "`penstock get models` and `penstock get endpoints` list those that do\n",
    )


def test_what_a_model_says_of_batching_is_what_its_server_does(local: Local, tmp_path: pathlib.Path) -> None:
    local.up(write_yaml(tmp_path / "model.yaml", batching={"maxSize": 7, "maxDelay": "2ms"}))
    first = local.serving("times")
    url = f"http://127.0.0.1:{local.port}/v2/models/times/config"

    def batching() -> tuple[int, Any]:
        config = httpx.get(url).json()
        return config["max_batch_size"], config.get("dynamic_batching")

    assert batching() == (7, {"max_queue_delay_microseconds": 2000})

    assert local("apply", "-f", write_yaml(tmp_path / "model.yaml", batching={"maxSize": 1}))[0] == 0
    second = local.serving("times")
    assert (second != first, batching(), answer(local)) == (True, (0, None), [2, 4, 6])


def test_a_restart_without_files_goes_on_with_what_is_stored(local: Local, tmp_path: pathlib.Path) -> None:
    process = local.up(write_yaml(tmp_path / "model.yaml"))
    revision, before = local.serving("times"), local.model("times")
    process.terminate()
    assert process.wait(DEADLINE_S) == 0
    assert (local.children(), (local.data / "up.json").exists()) == (set(), False)
    local.up()
    assert (local.serving("times"), answer(local)) == (revision, [2, 4, 6])
    assert local.model("times")["metadata"]["uid"] == before["metadata"]["uid"]


def test_the_next_up_adopts_what_a_killed_one_left(local: Local, tmp_path: pathlib.Path) -> None:
    process = local.up(write_yaml(tmp_path / "model.yaml"))
    revision = local.serving("times")
    process.kill()
    process.wait(DEADLINE_S)
    left = local.children()
    assert left
    # Nobody supervises them, but they serve on.
    reply = httpx.get(f"http://127.0.0.1:{local.port}/v2/models/times/ready")
    assert reply.status_code == 200
    local.up()
    assert (local.serving("times"), answer(local)) == (revision, [2, 4, 6])
    assert local.children() == left


def test_down_ends_what_a_killed_up_left(local: Local, tmp_path: pathlib.Path) -> None:
    process = local.up(write_yaml(tmp_path / "model.yaml"))
    local.serving("times")
    process.kill()
    process.wait(DEADLINE_S)
    assert local.children()
    left = datadir.left(local.data)
    assert local("get", "models") == (
        1,
        "",
        f"error: no `penstock up` runs on {local.data}, but processes of an earlier one do ({left}): "
        "start `penstock up` again, which goes on with them, or end them with `penstock down`\n",
    )
    code, out, _ = local("down")
    assert (code, out) == (0, f"ended what an earlier `penstock up` left running (processes: {left})\n")
    assert local.children() == set()


def test_down_ends_a_running_up(local: Local) -> None:
    process = local.up()
    for name in ("onnxruntime", "triton"):
        assert local("describe", "runtime", name) == (
            1,
            "",
            f"error: ServingRuntime {name} is built in: Models use it without there being an object\n",
        )
    ended = f"ended `penstock up` (process {process.pid}) and all it ran\n"
    assert local("down") == (0, ended, "")
    assert process.wait(DEADLINE_S) == 0


def test_a_terminal_that_is_closed_ends_everything(local: Local, tmp_path: pathlib.Path) -> None:
    ours, theirs = os.openpty()
    ports = ["--port", str(local.port), "--grpc-port", str(local.grpc_port)]
    command = ["setsid", "--ctty", *local.command("up", write_yaml(tmp_path / "model.yaml"), *ports)]
    # Where the tests themselves run under nohup, what they start would ignore the hang-up too.
    process = subprocess.Popen(
        command,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )
    local.processes.append(process)
    os.close(theirs)
    # A terminal takes what is written only as long as somebody reads it.
    hung_up = threading.Event()
    reader = threading.Thread(target=_copy, args=(ours, local.folder / "up.out", hung_up))
    reader.start()
    local.until("up answers", lambda: process.poll() is not None or local.is_announced(process))
    local.serving("times")
    local.until("the screen shows it", lambda: "infer times --input FILE" in local.output())
    hung_up.set()
    reader.join(DEADLINE_S)
    os.close(ours)
    assert process.wait(DEADLINE_S) == 0
    assert (local.children(), (local.data / "up.json").exists()) == (set(), False)


def _copy(terminal: int, file: pathlib.Path, enough: threading.Event) -> None:
    # Reading fails once nobody has the other side open any more.
    with file.open("wb") as copy, contextlib.suppress(OSError):
        while not enough.is_set():
            if select.select([terminal], [], [], 0.1)[0]:
                copy.write(os.read(terminal, 65536))
                copy.flush()


def test_a_second_up_on_the_same_directory_is_refused(local: Local) -> None:
    process = local.up()
    code, _, error = local("up", "--port", str(ports.free(1)[0]), "--grpc-port", str(ports.free(1)[0]))
    assert (code, error) == (
        1,
        f"error: `penstock up` runs on {local.data} already (process {process.pid}); "
        "apply to it, end it with `penstock down`, or name another --data-dir\n",
    )


@pytest.mark.parametrize(("option", "other"), [("--port", "--grpc-port"), ("--grpc-port", "--port")])
def test_a_port_in_use_is_named_and_nothing_is_left_running(local: Local, option: str, other: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = listener.getsockname()[1]
        code, _, error = local("up", option, str(taken), other, str(ports.free(1)[0]))
    assert code == 1
    assert error == f"error: port {taken} of 127.0.0.1 is in use; choose another with {option}\n"
    assert local.children() == set()


def test_a_bad_file_starts_nothing_and_a_bad_object_changes_nothing(local: Local, tmp_path: pathlib.Path) -> None:
    bad = write_yaml(tmp_path / "bad.yaml", replica=2)
    gone = write_yaml(tmp_path / "gone.yaml", source={"uri": "none.onnx"})
    unknown = f"error: {bad}, document 1, line 1: Model 'times': spec.replica: unknown field; did you mean replicas?\n"
    missing = (
        f"error: {gone}, document 1, line 1: Model 'times': spec.source.uri: {tmp_path}/none.onnx does not exist; "
        "correct the path or put the file there\n"
    )
    assert local("up", bad) == (1, "", unknown)
    assert not (local.data / "objects.db").exists()

    local.up(write_yaml(tmp_path / "model.yaml"))
    revision = local.serving("times")
    assert local("apply", "-f", bad) == (1, "", unknown)
    assert local("apply", "-f", gone) == (1, "", missing)
    assert (local.serving("times"), answer(local), local.model("times")["metadata"]["generation"]) == (
        revision,
        [2, 4, 6],
        1,
    )


def test_a_wrong_digest_is_a_condition_and_the_former_revision_serves_on(local: Local, tmp_path: pathlib.Path) -> None:
    local.up(write_yaml(tmp_path / "model.yaml"))
    revision = local.serving("times")
    wrong = "sha256:" + "0" * 64
    file = write_yaml(tmp_path / "wrong.yaml", source={"uri": "model.onnx", "digest": wrong})
    assert local("apply", "-f", file) == (0, "models/times configured\n", "")
    local.until(
        "the rollout fails",
        lambda: (
            local.condition("VariantsReady", "times")["status"] == "False"
            and local.condition("VariantsReady", "times")["reason"] != "Preparing"
        ),
    )
    assert wrong in local.condition("VariantsReady", "times")["message"]
    ready = local.condition("Ready", "times")
    assert (ready["status"], ready["reason"]) == ("True", "ServingPrevious")
    assert (local.model("times")["status"]["revision"], answer(local)) == (revision, [2, 4, 6])


def test_a_model_that_is_none_is_refused_and_the_former_revision_serves_on(
    local: Local, tmp_path: pathlib.Path
) -> None:
    file = write_yaml(tmp_path / "model.yaml")
    local.up(file)
    revision = local.serving("times")
    whole = (tmp_path / "model.onnx").read_bytes()
    (tmp_path / "model.onnx").write_bytes(whole[: len(whole) // 2])
    assert local("apply", "-f", file) == (0, "models/times configured\n", "")
    local.until("the rollout fails", lambda: local.condition("Ready", "times")["reason"] == "ServingPrevious")
    assert (local.model("times")["status"]["revision"], answer(local)) == (revision, [2, 4, 6])


@contextlib.contextmanager
def following(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.terminate()


def test_watching_shows_each_change(local: Local, tmp_path: pathlib.Path) -> None:
    file = write_yaml(tmp_path / "model.yaml")
    local.up(file)
    revision = local.serving("times")
    with following(local.command("get", "models", "-w")) as watch:
        assert watch.stdout is not None
        head, line = watch.stdout.readline().split(), watch.stdout.readline().split()
        assert (head[0], line[:4]) == ("NAME", ["times", "True", "default", revision])
        write_model(tmp_path / "model.onnx", 10)
        local("apply", "-f", file)
        second = local.serving("times")
        while second not in (news := watch.stdout.readline()):
            assert news
        local("delete", "model", "times")
        while (news := watch.stdout.readline()) != "models/times deleted\n":
            assert news
