"""``penstock up`` as a person uses it: one YAML, from model to answers, and back again after every accident."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import onnx
import onnxruntime
import psutil
import pytest
from onnx import TensorProto, helper

from operators.cli import datadir, kinds
from operators.cli.client import LocalClient

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


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@dataclasses.dataclass
class Local:
    """A data directory, ports, and what a person types."""

    folder: pathlib.Path
    port: int
    grpc_port: int
    processes: list[subprocess.Popen[str]] = dataclasses.field(default_factory=list)

    @property
    def data(self) -> pathlib.Path:
        return self.folder / "data"

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "operators.cli.main", *arguments, "--data-dir", str(self.data)]

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of ``penstock`` with these arguments."""
        done = subprocess.run(self.command(*arguments), capture_output=True, text=True, timeout=DEADLINE_S)
        return done.returncode, done.stdout, done.stderr

    def up(self, *files: str) -> subprocess.Popen[str]:
        """Start ``penstock up`` and wait until it can be spoken to."""
        ports = ["--port", str(self.port), "--grpc-port", str(self.grpc_port)]
        with (self.folder / "up.out").open("a") as output:
            process = subprocess.Popen(self.command("up", *files, *ports), stdout=output, stderr=output, text=True)
        self.processes.append(process)
        self.until("up answers", lambda: process.poll() is not None or self.is_announced(process))
        assert process.poll() is None, self.output()
        return process

    def is_announced(self, process: subprocess.Popen[str]) -> bool:
        running = datadir.running(self.data)
        return running is not None and running.pid == process.pid

    def output(self) -> str:
        return (self.folder / "up.out").read_text()

    def model(self, name: str = "times") -> dict[str, Any]:
        running = datadir.running(self.data)
        assert running is not None
        return LocalClient(running).get(kinds.of("Model"), "default", name)

    def condition(self, type_: str, name: str = "times") -> dict[str, Any]:
        conditions = self.model(name).get("status", {}).get("conditions", [])
        return next((c for c in conditions if c["type"] == type_), {"status": "", "reason": ""})

    def serving(self, name: str = "times") -> str:
        """The revision that serves, once the present generation of the Model does."""

        def settled() -> bool:
            found = self.model(name)
            status = found.get("status", {})
            ready = {c["type"]: c["status"] for c in status.get("conditions", [])}
            current: bool = status.get("observedGeneration") == found["metadata"]["generation"]
            return current and ready.get("Ready") == "True" and ready.get("RolloutComplete") == "True"

        self.until(f"{name} serves its present generation", settled)
        revision: str = self.model(name)["status"]["revision"]
        return revision

    def answer(self, name: str = "times") -> list[float]:
        url = self.model(name)["status"]["url"]
        tensor = {"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}
        reply = httpx.post(f"{url}/infer", json={"inputs": [tensor]})
        assert reply.status_code == 200, reply.text
        data: list[float] = reply.json()["outputs"][0]["data"]
        return data

    def until(self, what: str, holds: Callable[[], bool]) -> None:
        end = time.monotonic() + DEADLINE_S
        pause = threading.Event()
        while not holds():
            pause.wait(0.02)
            assert time.monotonic() < end, f"{what}: not so after {DEADLINE_S} s\n{self.output()}{self.log()}"

    def log(self) -> str:
        file = self.data / "up.log"
        return file.read_text()[-6000:] if file.exists() else ""

    def children(self) -> set[int]:
        """Processes that work for this data directory, ``up`` itself left out."""
        found = set()
        for process in psutil.process_iter(["pid", "cmdline", "environ", "status"]):
            words = [*(process.info["cmdline"] or []), *(process.info["environ"] or {}).values()]
            mine = {p.pid for p in self.processes} | {os.getpid()}
            alive = process.info["status"] != psutil.STATUS_ZOMBIE
            if alive and process.pid not in mine and any(str(self.data) in word for word in words):
                found.add(process.pid)
        return found


@pytest.fixture
def local(tmp_path: pathlib.Path) -> Iterator[Local]:
    """Local mode on a data directory of its own; whatever a test leaves running is ended."""
    made = Local(tmp_path, free_port(), free_port())
    write_model(tmp_path / "model.onnx", 2)
    yield made
    for process in made.processes:
        if process.poll() is None:
            process.terminate()
            process.wait(DEADLINE_S)
    code, _, error = made("down")
    assert code == 0, error
    made.until("no child is left", lambda: not made.children())


def test_from_one_yaml_to_answers_to_the_next_revision_to_nothing(local: Local, tmp_path: pathlib.Path) -> None:
    file = write_yaml(tmp_path / "model.yaml")
    process = local.up(file)
    first = local.serving()
    url = f"http://127.0.0.1:{local.port}/v2/models/times"
    assert local.answer() == [2, 4, 6]

    write_model(tmp_path / "model.onnx", 10)
    assert local("apply", "-f", file) == (0, "models/times configured\n", "")
    second = local.serving()
    assert (first != second, local.answer()) == (True, [10, 20, 30])
    assert local("apply", "-f", file) == (0, "models/times unchanged\n", "")

    code, out, _ = local("get", "models")
    head, line = (row.split() for row in out.splitlines())
    assert (code, head) == (0, ["NAME", "READY", "VARIANT", "REVISION", "REPLICAS", "URL", "AGE"])
    assert line[:6] == ["times", "True", "default", second, "1/1", url]
    code, out, _ = local("describe", "model", "times")
    states = re.findall(r"^  (\w{8}) +default +(\w+) ", out, re.MULTILINE)
    assert (code, states) == (0, [(second, "Serving"), (first, "Retired")])
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

    assert local("delete", "model", "times") == (0, "models/times deleted\n", "")
    local.until("the route is gone", lambda: httpx.get(url).status_code == 404)
    assert local("get", "models") == (0, "no models here; `penstock apply -f FILE` makes one\n", "")

    process.send_signal(signal.SIGINT)
    assert process.wait(DEADLINE_S) == 0
    assert local.children() == set()
    assert f"model default/times Ready: {url} (revision {first})\n" in local.output()


def test_the_digits_example_answers_as_onnx_runtime_does(local: Local) -> None:
    local.up(str(DIGITS / "model.yaml"))
    local.serving("digits")
    code, out, error = local("infer", "digits", "--input", str(DIGITS / "seven.png"), "-o", "json")
    assert code == 0, error
    reply = json.loads(out)
    assert reply["scores"][0]["label"] == "seven"

    x = np.load(DIGITS / "eval.npz")["x"][:1]
    code, out, error = local("infer", "digits", "--input", str(DIGITS / "eval.npz"), "-o", "json")
    assert code == 0, error
    session = onnxruntime.InferenceSession(DIGITS / "model.onnx")
    (expected,) = session.run(None, {session.get_inputs()[0].name: x})
    given = np.asarray(json.loads(out)["outputs"][0]["data"], np.float32).reshape(expected.shape)
    np.testing.assert_allclose(given, expected, rtol=1e-5, atol=1e-6)


def test_a_restart_without_files_goes_on_with_what_is_stored(local: Local, tmp_path: pathlib.Path) -> None:
    process = local.up(write_yaml(tmp_path / "model.yaml"))
    revision, before = local.serving(), local.model()
    process.terminate()
    assert process.wait(DEADLINE_S) == 0
    assert (local.children(), (local.data / "up.json").exists()) == (set(), False)
    local.up()
    assert (local.serving(), local.answer()) == (revision, [2, 4, 6])
    assert local.model()["metadata"]["uid"] == before["metadata"]["uid"]


def test_the_next_up_adopts_what_a_killed_one_left(local: Local, tmp_path: pathlib.Path) -> None:
    process = local.up(write_yaml(tmp_path / "model.yaml"))
    revision = local.serving()
    process.kill()
    process.wait(DEADLINE_S)
    left = local.children()
    assert left
    # Nobody supervises them, but they serve on.
    reply = httpx.get(f"http://127.0.0.1:{local.port}/v2/models/times/ready")
    assert reply.status_code == 200
    local.up()
    assert (local.serving(), local.answer()) == (revision, [2, 4, 6])
    assert local.children() == left


def test_down_ends_what_a_killed_up_left(local: Local, tmp_path: pathlib.Path) -> None:
    process = local.up(write_yaml(tmp_path / "model.yaml"))
    local.serving()
    process.kill()
    process.wait(DEADLINE_S)
    assert local.children()
    assert local("down")[0] == 0
    assert local.children() == set()


def test_down_ends_a_running_up(local: Local) -> None:
    process = local.up()
    assert local("down")[0] == 0
    assert process.wait(DEADLINE_S) == 0


def test_a_second_up_on_the_same_directory_is_refused(local: Local) -> None:
    process = local.up()
    code, _, error = local("up", "--port", str(free_port()), "--grpc-port", str(free_port()))
    assert (code, error) == (
        1,
        f"error: `penstock up` runs on {local.data} already (process {process.pid}); "
        "apply to it, end it with `penstock down`, or name another --data-dir\n",
    )


@pytest.mark.parametrize(("option", "other"), [("--port", "--grpc-port"), ("--grpc-port", "--port")])
def test_a_port_in_use_is_named_and_nothing_is_left_running(local: Local, option: str, other: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = listener.getsockname()[1]
        code, _, error = local("up", option, str(taken), other, str(free_port()))
    assert code == 1
    assert error == f"error: port {taken} of 127.0.0.1 is in use; choose another with {option}\n"
    assert local.children() == set()


def test_a_bad_file_starts_nothing_and_a_bad_object_changes_nothing(local: Local, tmp_path: pathlib.Path) -> None:
    bad = write_yaml(tmp_path / "bad.yaml", replica=2)
    gone = write_yaml(tmp_path / "gone.yaml", source={"uri": "none.onnx"})
    unknown = (
        f"error: {bad}, document 1, line 1: Model 'times': spec.replica: unknown field; "
        "remove it, or see `kubectl explain` for the fields there are\n"
    )
    missing = (
        f"error: {gone}, document 1, line 1: Model 'times': spec.source.uri: {tmp_path}/none.onnx does not exist; "
        "correct the path or put the file there\n"
    )
    assert local("up", bad) == (1, "", unknown)
    assert not (local.data / "objects.db").exists()

    local.up(write_yaml(tmp_path / "model.yaml"))
    revision = local.serving()
    assert local("apply", "-f", bad) == (1, "", unknown)
    assert local("apply", "-f", gone) == (1, "", missing)
    assert (local.serving(), local.answer(), local.model()["metadata"]["generation"]) == (revision, [2, 4, 6], 1)


def test_a_wrong_digest_is_a_condition_and_the_former_revision_serves_on(local: Local, tmp_path: pathlib.Path) -> None:
    local.up(write_yaml(tmp_path / "model.yaml"))
    revision = local.serving()
    wrong = "sha256:" + "0" * 64
    file = write_yaml(tmp_path / "wrong.yaml", source={"uri": "model.onnx", "digest": wrong})
    assert local("apply", "-f", file) == (0, "models/times configured\n", "")
    local.until(
        "the rollout fails",
        lambda: (
            local.condition("VariantsReady")["status"] == "False"
            and local.condition("VariantsReady")["reason"] != "Preparing"
        ),
    )
    assert wrong in local.condition("VariantsReady")["message"]
    ready = local.condition("Ready")
    assert (ready["status"], ready["reason"]) == ("True", "ServingPrevious")
    assert (local.model()["status"]["revision"], local.answer()) == (revision, [2, 4, 6])


def test_a_model_that_is_none_is_refused_and_the_former_revision_serves_on(
    local: Local, tmp_path: pathlib.Path
) -> None:
    file = write_yaml(tmp_path / "model.yaml")
    local.up(file)
    revision = local.serving()
    whole = (tmp_path / "model.onnx").read_bytes()
    (tmp_path / "model.onnx").write_bytes(whole[: len(whole) // 2])
    assert local("apply", "-f", file) == (0, "models/times configured\n", "")
    local.until("the rollout fails", lambda: local.condition("Ready")["reason"] == "ServingPrevious")
    assert (local.model()["status"]["revision"], local.answer()) == (revision, [2, 4, 6])


@contextlib.contextmanager
def following(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.terminate()


def test_watching_shows_each_change(local: Local, tmp_path: pathlib.Path) -> None:
    file = write_yaml(tmp_path / "model.yaml")
    local.up(file)
    revision = local.serving()
    with following(local.command("get", "models", "-w")) as watch:
        assert watch.stdout is not None
        head, line = watch.stdout.readline().split(), watch.stdout.readline().split()
        assert (head[0], line[:4]) == ("NAME", ["times", "True", "default", revision])
        write_model(tmp_path / "model.onnx", 10)
        local("apply", "-f", file)
        second = local.serving()
        while second not in (news := watch.stdout.readline()):
            assert news
