"""What every engine promises (``serving.engines.base.Engine``), on the same signature: y or x FP32 [-1, 4]."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from serving.engines import artifact
from serving.engines.base import Engine, Interrupt
from serving.engines.process import ProcessEngine
from serving.errors import ArtifactRefused
from serving.settings import Settings
from serving.tensors import TensorSpec
from tests.rig import onnx_models


def identity(folder: Path) -> Path:
    path = folder / "m.identity.json"
    path.write_text('{"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]}')
    return path


def onnx(folder: Path) -> Path:
    return onnx_models.save(
        folder / "m.onnx",
        helper.make_graph(
            [helper.make_node("Identity", ["x"], ["y"])],
            "echo",
            [onnx_models.value("x", TensorProto.FLOAT, ["n", 4])],
            [onnx_models.value("y", TensorProto.FLOAT, ["n", 4])],
        ),
    )


ENGINES: list[Callable[[Path], Path]] = [identity, onnx]


def apart(path: Path) -> Engine:
    return ProcessEngine(path, Settings())


@pytest.fixture(params=ENGINES, ids=["identity", "onnxruntime"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    make: Callable[[Path], Path] = request.param
    return make(tmp_path)


@pytest.fixture(params=[artifact.load, apart], ids=["here", "apart"])
def load(request: pytest.FixtureRequest) -> Callable[[Path], Engine]:
    found: Callable[[Path], Engine] = request.param
    return found


@pytest.fixture
def engine(path: Path, load: Callable[[Path], Engine]) -> Iterator[Engine]:
    loaded = load(path)
    yield loaded
    loaded.close()


def test_it_says_what_it_takes_and_gives(engine: Engine) -> None:
    assert engine.signature.inputs == (TensorSpec("x", "FP32", (-1, 4)),)
    assert [(spec.datatype, spec.shape) for spec in engine.signature.outputs] == [("FP32", (-1, 4))]
    assert engine.platform
    assert engine.may_loop is False
    assert engine.may_block is isinstance(engine, ProcessEngine)
    assert engine.problem == ""


@pytest.mark.parametrize("rows", [0, 1, 3, 50_000])
def test_it_answers_inputs_of_any_size_its_signature_allows(engine: Engine, rows: int) -> None:
    x = np.arange(rows * 4, dtype=np.float32).reshape(rows, 4)

    (y,) = engine.infer({"x": x}, [engine.signature.outputs[0].name])

    assert y.dtype == np.float32
    assert y.flags.c_contiguous
    assert np.array_equal(y, x)


def test_it_takes_memory_that_it_must_not_write_to(engine: Engine) -> None:
    x = np.frombuffer(np.ones((1, 4), np.float32).tobytes(), np.float32).reshape(1, 4)

    (y,) = engine.infer({"x": x}, [engine.signature.outputs[0].name])

    assert y.tolist() == [[1, 1, 1, 1]]


def test_it_keeps_values_that_are_no_finite_numbers(engine: Engine) -> None:
    x = np.array([[np.nan, np.inf, -np.inf, -0.0]], np.float32)

    (y,) = engine.infer({"x": x}, [engine.signature.outputs[0].name])

    assert np.array_equal(y, x, equal_nan=True)


def test_an_interrupt_that_does_not_fire_changes_nothing(engine: Engine) -> None:
    interrupt = Interrupt()

    (y,) = engine.infer({"x": np.ones((1, 4), np.float32)}, [engine.signature.outputs[0].name], interrupt)
    interrupt.fire()

    assert y.tolist() == [[1, 1, 1, 1]]


def test_an_artifact_cut_in_half_is_refused_by_name(path: Path, load: Callable[[Path], Engine]) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    with pytest.raises(ArtifactRefused, match=str(path)):
        load(path)


def test_it_can_be_closed(path: Path, load: Callable[[Path], Engine]) -> None:
    load(path).close()


def test_an_engine_that_streams_is_refused_a_process_of_its_own(tmp_path: Path) -> None:
    path = identity(tmp_path)
    path.write_text('{"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}], "stream": true}')

    with pytest.raises(ArtifactRefused) as refused:
        ProcessEngine(path, Settings())

    assert str(refused.value) == (
        f"{path} answers with streams, which come from the server's own process only; use isolation: none"
    )
