import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from serving.errors import ArtifactRefused
from serving.models import loading
from serving.models.rows import Clocks
from serving.settings import Batching, Limits, Settings
from tests.rig import onnx_models


def ticking(clock: Callable[[], float]) -> Clocks:
    return Clocks(wall=clock, processor=clock)


def test_a_model_that_never_ends_is_refused_before_anybody_can_ask_it(tmp_path: Path) -> None:
    path = onnx_models.endless(tmp_path / "m.onnx")

    with pytest.raises(ArtifactRefused) as refused:
        loading.load(path, Settings(limits=Limits(timeout="200ms")))

    assert str(refused.value) == (
        f"{path} did not end its trial inference within 0.2 s; check the model for an endless loop, "
        "or raise limits.timeout"
    )


def test_a_model_whose_time_depends_on_its_inputs_never_runs_on_the_event_loop(tmp_path: Path) -> None:
    paths = [onnx_models.endless(tmp_path / "m.onnx", always=False), onnx_models.deaf(tmp_path / "n.onnx")]

    assert [loading.load(path, Settings()).inline_elements for path in paths] == [0, 0]


@pytest.mark.parametrize(
    ("took_s", "elements"),
    [(1e-6, 32), (12.5e-6, 32), (50e-6, 8), (100e-6, 4), (101e-6, 0), (1.0, 0)],
)
def test_a_quick_model_may_run_on_the_event_loop_for_inputs_not_much_larger_than_those_tried(
    tmp_path: Path, took_s: float, elements: int
) -> None:
    path = tmp_path / "m.identity.json"
    path.write_text('{"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]}')
    readings = itertools.count()

    loaded = loading.load(path, Settings(), clocks=ticking(lambda: next(readings) * took_s))

    assert loaded.inline_elements == elements


def test_a_model_that_does_not_like_zeros_is_loaded_all_the_same(tmp_path: Path) -> None:
    path = onnx_models.save(
        tmp_path / "m.onnx",
        helper.make_graph(
            [helper.make_node("Reshape", ["x", "to"], ["y"])],
            "g",
            [onnx_models.value("x", TensorProto.FLOAT, ["n"])],
            [onnx_models.value("y", TensorProto.FLOAT, ["a", "b"])],
            [helper.make_tensor("to", TensorProto.INT64, [2], [2, 3])],
        ),
    )

    assert loading.load(path, Settings()).inline_elements == 0


def test_labels_for_an_output_that_there_is_not_are_refused(tmp_path: Path) -> None:
    path = onnx_models.linear(tmp_path / "m.onnx")

    with pytest.raises(ArtifactRefused) as refused:
        loading.load(path, Settings(labels={"z": ("a",)}))

    assert (
        str(refused.value) == f"{path} does not fit its settings: labels are given for an output 'z'; the model has 'y'"
    )


def mixing(tmp_path: Path) -> Path:
    return onnx_models.save(
        tmp_path / "m.onnx",
        helper.make_graph(
            [helper.make_node("Softmax", ["x"], ["y"], axis=0)],
            "g",
            [onnx_models.value("x", TensorProto.FLOAT, ["n", 4])],
            [onnx_models.value("y", TensorProto.FLOAT, ["n", 4])],
        ),
    )


def unproved(tmp_path: Path) -> Path:
    table = numpy_helper.from_array(np.ones((2, 3), np.float32), "table")
    return onnx_models.save(
        tmp_path / "m.onnx",
        helper.make_graph(
            [helper.make_node("Gather", ["table", "x"], ["y"])],
            "g",
            [onnx_models.value("x", TensorProto.INT64, ["n"])],
            [onnx_models.value("y", TensorProto.FLOAT, ["n", 3])],
            [table],
        ),
    )


def linear(tmp_path: Path) -> Path:
    return onnx_models.linear(tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("make", "max_size", "max_rows", "max_batch_size"),
    [
        (linear, None, 32, 32),
        (linear, 1, 1, 0),
        (linear, 7, 7, 7),
        (mixing, None, 1, 0),
        (mixing, 1, 1, 0),
        (unproved, None, 1, 0),
        (unproved, 7, 7, 7),
    ],
)
def test_requests_are_joined_where_that_changes_no_answer_or_where_the_owner_says_so(
    tmp_path: Path, make: Callable[[Path], Path], max_size: int | None, max_rows: int, max_batch_size: int
) -> None:
    loaded = loading.load(make(tmp_path), Settings(batching=Batching(max_size=max_size)))

    assert (loaded.max_rows, loaded.max_batch_size) == (max_rows, max_batch_size)
    assert loaded.finding.endswith(
        "shares no calls (batching.maxSize is 1)" if max_size == 1
        else "shares calls of up to 32 rows (as measured now; batching.maxSize pins it)" if max_rows == 32
        else f"shares calls of up to {max_rows} rows" if max_rows > 1
        else "shares no calls"
    )  # fmt: skip


def test_a_model_that_would_mix_requests_is_refused_where_they_are_to_be_joined(tmp_path: Path) -> None:
    path = mixing(tmp_path)

    with pytest.raises(ArtifactRefused) as refused:
        loading.load(path, Settings(batching=Batching(max_size=8)))

    assert str(refused.value) == (
        f"{path} cannot share calls of 8 rows: it mixes rows: output 'y' of one changes with those beside it; "
        "leave batching.maxSize out, or set it to 1"
    )


def test_a_quick_model_computes_on_the_event_loop_together_unless_requests_are_to_wait_for_each_other(
    tmp_path: Path,
) -> None:
    path = linear(tmp_path)
    waits = loading.load(path, Settings(batching=Batching(max_delay="1ms")))

    assert (waits.inline_elements, waits.joins_inline) == (0, False)


def steady() -> Callable[[], float]:
    return itertools.count(step=1e-6).__next__


def slower_with_each_look() -> Callable[[], float]:
    """The first call, of a row by itself, takes least, so that four together seem to gain nothing."""
    return (2**look * 1e-6 for look in itertools.count()).__next__


@pytest.mark.parametrize(
    ("isolation", "wall", "processor", "max_rows"),
    [
        ("none", steady(), slower_with_each_look(), 1),
        ("none", slower_with_each_look(), steady(), 32),  # what a busy machine looks like
        ("none", steady(), lambda: 0.01, 32),  # a processor clock that ticks too coarsely
        ("process", steady(), slower_with_each_look(), 32),  # the child's time is not in the server's
    ],
)
def test_joining_must_be_worth_it_in_processor_time_where_that_can_be_told(
    tmp_path: Path, isolation: Any, wall: Callable[[], float], processor: Callable[[], float], max_rows: int
) -> None:
    path = tmp_path / "m.identity.json"
    path.write_text('{"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]}')

    loaded = loading.load(path, Settings(isolation=isolation), clocks=Clocks(wall, processor))
    loaded.engine.close()

    assert (loaded.max_rows, loaded.finding.split(", 4")[0]) == (max_rows, "computes rows one by one")
    shares = "shares calls of up to 32 rows" if max_rows == 32 else "shares no calls"
    assert loaded.finding.endswith(f"; {shares} (as measured now; batching.maxSize pins it)")


def test_a_machine_that_pauses_during_the_trial_does_not_keep_a_small_model_off_the_event_loop(tmp_path: Path) -> None:
    moments = itertools.accumulate(itertools.chain([0, 0, 0.02], itertools.repeat(10e-6)))

    loaded = loading.load(onnx_models.linear(tmp_path / "m.onnx"), Settings(), clocks=ticking(lambda: next(moments)))

    assert loaded.inline_elements > 0
