import os
import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from serving.engines.base import Interrupt
from serving.engines.process import ProcessEngine
from serving.errors import ArtifactRefused, EngineLost, InferenceFailed, InvalidInput
from serving.settings import Limits, Settings
from tests.rig import onnx_models
from tests.rig.model_server import until

X = {"x": np.array([[0, 0, 0, 10]], np.float32)}
Y = [9.0, 10.0, 11.0]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return onnx_models.linear(tmp_path / "m.onnx")


@pytest.fixture
def engine(path: Path) -> Iterator[ProcessEngine]:
    started = ProcessEngine(path, Settings())
    yield started
    started.close()


def process(engine: ProcessEngine) -> psutil.Process:
    assert engine.pid is not None
    return psutil.Process(engine.pid)


def values(engine: ProcessEngine) -> list[float]:
    (y,) = engine.infer(X, ["y"])
    return [round(value, 3) for value in y[0].tolist()]


def test_a_process_that_has_ended_is_started_again_and_says_so_meanwhile(engine: ProcessEngine) -> None:
    assert values(engine) == Y
    before = process(engine)

    before.send_signal(signal.SIGSTOP)  # so that it cannot be replaced before its end is looked at
    before.kill()
    with pytest.raises(EngineLost, match=r"killed by signal 9|cannot answer now"):
        engine.infer(X, ["y"])
    assert engine.problem == (
        "its process was killed by signal 9 (SIGKILL, by the kernel if memory ran out) and is started again"
    )

    until(lambda: engine.pid not in (None, before.pid), "another process was there")
    assert engine.problem == ""
    assert values(engine) == Y


def test_a_file_that_has_changed_is_not_loaded_unasked(engine: ProcessEngine, path: Path) -> None:
    assert values(engine) == Y
    onnx_models.linear(path, 2.0)
    os.utime(path, ns=(1, 1))

    process(engine).kill()

    until(lambda: "has changed since it was loaded; load the model again" in engine.problem, "it says why it is gone")
    with pytest.raises(EngineLost, match="has changed since it was loaded"):
        engine.infer(X, ["y"])


def test_what_it_says_of_inputs_is_said_here(tmp_path: Path) -> None:
    engine = ProcessEngine(onnx_models.bomb(tmp_path / "m.onnx"), Settings())

    with pytest.raises((InferenceFailed, InvalidInput)) as failed:
        engine.infer({"n": np.array([-5], np.int64)}, ["y"])

    assert not isinstance(failed.value, EngineLost)
    assert engine.infer({"n": np.array([5], np.int64)}, ["y"])[0].tolist() == [0.0]
    engine.close()


def test_an_order_to_stop_that_is_faster_than_its_call_stops_it(tmp_path: Path) -> None:
    engine = ProcessEngine(onnx_models.endless(tmp_path / "m.onnx", always=False), Settings())
    interrupt = Interrupt()
    interrupt.fire()
    before = engine.pid

    with pytest.raises(InferenceFailed):
        engine.infer({"go": np.array(True)}, ["y"], interrupt)

    assert engine.infer({"go": np.array(False)}, ["y"])[0].tolist() == [1.0]
    assert engine.pid == before
    engine.close()


def test_a_late_order_does_not_stop_the_next_call(engine: ProcessEngine) -> None:
    interrupt = Interrupt()
    engine.infer(X, ["y"], interrupt)

    interrupt.fire()

    assert values(engine) == Y


def test_a_limit_below_what_an_empty_engine_takes_is_refused_in_those_words_alone(
    path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ArtifactRefused) as refused:
        ProcessEngine(path, Settings(isolation="process", limits=Limits(memory="10Mi")))

    text = re.escape(
        f"limits.memory 10Mi is too little to start the engine of {path}; one without a model takes about "
    )
    assert re.fullmatch(text + "[0-9]{2,3}Mi", str(refused.value))
    assert capfd.readouterr().err == ""


def test_a_model_that_needs_more_memory_to_load_than_it_may_have_is_refused(tmp_path: Path) -> None:
    path = onnx_models.table(tmp_path / "m.onnx", 128)

    with pytest.raises(ArtifactRefused) as refused:
        ProcessEngine(path, Settings(isolation="process", limits=Limits(memory="150Mi")))

    assert str(path) in str(refused.value)
    assert re.search(
        r" \(limits\.memory 150Mi, of which an engine without a model takes [0-9]{2,3}Mi\)$", str(refused.value)
    )


def test_a_closed_engine_leaves_no_process_and_no_thread(path: Path) -> None:
    engine = ProcessEngine(path, Settings())
    child, named = process(engine), f"engine-{path.name}"

    engine.close()

    until(lambda: not child.is_running(), "the process ended")
    until(lambda: named not in [thread.name for thread in threading.enumerate()], "its thread ended")


def test_the_process_has_no_environment_of_the_servers(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    engine = ProcessEngine(path, Settings())

    assert sorted(process(engine).environ()) == ["LANG", "PYTHONPATH"]
    engine.close()
