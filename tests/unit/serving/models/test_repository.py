import asyncio
import json
from pathlib import Path

import numpy as np
import pytest

from serving.errors import ArtifactRefused, NotReady, UnknownModel
from serving.models.base import Entry, State
from serving.models.repository import Repository
from serving.scheduling import Admission
from serving.telemetry.metrics import Metrics
from tests.rig import onnx_models
from tests.rig.waiting import until

UNKNOWN = "Request for unknown model: 'q' is not served here; GET /v2/models lists what is served: m"

READY = State.READY


def models(*paths: Path, name: str | None = None) -> Repository:
    return Repository(paths, name, Metrics(), {}, Admission(100, 10**9))


def answer(of: Repository, name: str, version: str = "") -> tuple[str, float]:
    """The version that answers, and the scale of its weights."""
    queue = of.find(name, version)
    (y,) = queue._engine.infer({"x": np.array([[0, 0, 0, 1]], np.float32)}, ["y"])
    return queue.version, round(float(y[0, 0] / onnx_models.WEIGHTS[3, 0]), 3)


async def test_all_versions_are_loaded_and_the_highest_answers_unless_another_is_named(tmp_path: Path) -> None:
    for number, scale in (("2", 2.0), ("10", 10.0)):
        onnx_models.linear(tmp_path / "m" / number / "model.onnx", scale)
    of = models(tmp_path / "m")
    assert not of.is_ready()

    await of.start()

    assert of.is_ready()
    assert of.index() == [Entry("m", "2", READY), Entry("m", "10", READY)]
    assert (answer(of, "m"), answer(of, "m", "2"), answer(of, "m", "10")) == (("10", 10.0), ("2", 2.0), ("10", 10.0))
    with pytest.raises(UnknownModel) as unknown:
        of.find("m", "3")
    assert str(unknown.value) == "Request for unknown model: 'm' has no version '3'; it has 2, 10"
    with pytest.raises(UnknownModel) as unknown:
        of.find("q", "")
    assert str(unknown.value) == UNKNOWN


async def test_a_bad_model_among_several_is_listed_with_its_reason_and_the_others_serve(tmp_path: Path) -> None:
    onnx_models.linear(tmp_path / "good" / "model.onnx")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "model.onnx").touch()
    onnx_models.linear(tmp_path / "two" / "a.onnx")
    onnx_models.linear(tmp_path / "two" / "b.onnx")
    of = models(tmp_path)

    await of.start()

    empty = f"{tmp_path}/bad/model.onnx is empty; fetch or export the model again"
    two = f"{tmp_path}/two holds 2 models (a.onnx, b.onnx); keep one"
    assert of.index() == [
        Entry("bad", "1", State.UNAVAILABLE, empty),
        Entry("good", "1", READY),
        Entry("two", "", State.UNAVAILABLE, two),
    ]
    assert of.is_ready()
    for name, reason in (
        ("bad", f"model 'bad' version '1' is not ready: {empty}"),
        ("two", f"model 'two' is not ready: {two}"),
    ):
        with pytest.raises(NotReady) as refused:
            of.find(name, "")
        assert str(refused.value) == reason


async def test_when_nothing_can_be_served_the_start_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").touch()
    of = models(tmp_path / "m.onnx")

    with pytest.raises(ArtifactRefused) as refused:
        await of.start()

    assert str(refused.value) == f"{tmp_path}/m.onnx is empty; fetch or export the model again"
    assert not of.is_ready()


async def test_a_reload_swaps_and_a_bad_one_leaves_what_served(tmp_path: Path) -> None:
    path = onnx_models.linear(tmp_path / "m.onnx", 1.0)
    of = models(path)
    await of.start()

    onnx_models.linear(path, 2.0)
    await of.load("m")
    assert answer(of, "m") == ("1", 2.0)

    path.write_bytes(b"")
    with pytest.raises(ArtifactRefused) as refused:
        await of.load("m")
    assert str(refused.value) == f"model 'm' was not loaded: {path} is empty; fetch or export the model again"
    assert answer(of, "m") == ("1", 2.0)
    assert of.index() == [Entry("m", "1", READY, f"{path} is empty; fetch or export the model again")]


async def test_a_load_finds_new_versions_and_models_and_drops_those_that_are_gone(tmp_path: Path) -> None:
    first = onnx_models.linear(tmp_path / "m" / "1" / "model.onnx", 1.0)
    of = models(tmp_path)
    await of.start()

    onnx_models.linear(tmp_path / "m" / "2" / "model.onnx", 2.0)
    onnx_models.linear(tmp_path / "n" / "model.onnx")
    first.unlink()
    await of.load("m")
    await of.load("n")

    assert of.index() == [Entry("m", "2", READY), Entry("n", "1", READY)]
    assert answer(of, "m") == ("2", 2.0)
    with pytest.raises(UnknownModel) as unknown:
        await of.load("q")
    assert str(unknown.value) == "Request for unknown model: 'q' is not among the paths given to this server"


async def test_a_server_is_hung_when_an_engine_is_and_nothing_else_answers(tmp_path: Path) -> None:
    of = models(onnx_models.linear(tmp_path / "m.onnx"), onnx_models.linear(tmp_path / "n.onnx"))
    await of.start()
    queues = [of.find(name, "") for name in "mn"]

    queues[0].hung = True
    of.tick(0.0)
    assert of.index()[0] == Entry("m", "1", State.UNAVAILABLE, "its engine was told to stop and does not")
    assert (of.is_ready(), of.hung()) == (True, "")
    with pytest.raises(NotReady):
        of.find("m", "")

    await of.unload("n")
    assert (of.is_ready(), of.hung()) == (False, "model 'm' version '1': its engine was told to stop and does not")

    queues[0].hung = False
    of.tick(0.0)
    assert (of.is_ready(), of.hung()) == (True, "")
    assert of.find("m", "") is queues[0]


async def test_a_model_that_takes_long_to_load_holds_up_no_other(tmp_path: Path) -> None:
    onnx_models.linear(tmp_path / "quick" / "model.onnx")
    of = models(tmp_path)
    await of.start()
    slow = onnx_models.endless(tmp_path / "slow" / "model.onnx", always=False).parent
    go = [{"name": "go", "datatype": "BOOL", "shape": [], "data": [True]}]
    (slow / "warm.json").write_text(json.dumps({"inputs": go}))
    (slow / "penstock.json").write_text('{"limits": {"timeout": "3s"}, "warmUp": [{"file": "warm.json"}]}')

    loading = asyncio.ensure_future(of.load("slow"))

    async def has_begun() -> bool:
        return Entry("slow", "1", State.LOADING) in of.index()

    await until("the slow model is being loaded", has_begun)
    await of.load("quick")
    await of.unload("quick")
    await of.load("quick")
    assert not loading.done()
    with pytest.raises(ArtifactRefused):
        await loading
    assert answer(of, "quick") == ("1", 1.0)


async def test_an_unloaded_model_is_not_ready_until_it_is_loaded_again(tmp_path: Path) -> None:
    of = models(onnx_models.linear(tmp_path / "m.onnx"))
    await of.start()

    await of.unload("m")

    assert of.index() == [Entry("m", "1", State.UNAVAILABLE, "unloaded")]
    assert not of.is_ready()
    with pytest.raises(NotReady) as refused:
        of.find("m", "")
    assert str(refused.value) == "model 'm' version '1' is not ready: unloaded"
    await of.load("m")
    assert answer(of, "m") == ("1", 1.0)


async def test_each_change_of_a_model_is_a_line_of_the_log_and_a_refused_one_a_warning_with_its_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "serving.models.repository")
    (tmp_path / "bad").mkdir()
    for name in ("a", "b"):
        (tmp_path / "bad" / f"{name}.onnx").touch()
    onnx_models.linear(tmp_path / "m" / "1" / "model.onnx")
    second = onnx_models.linear(tmp_path / "m" / "2" / "model.onnx")
    of = Repository([tmp_path], None, Metrics(), {"batching": {"maxSize": 1}}, Admission(100, 10**9))
    await of.start()

    second.unlink()
    await of.load("m")
    first = tmp_path / "m" / "1" / "model.onnx"
    first.write_bytes(b"")
    with pytest.raises(ArtifactRefused):
        await of.load("m")
    await of.unload("m")
    with pytest.raises(ArtifactRefused):
        await of.load("m")

    kept = "it shares no calls (batching.maxSize is 1)"
    empty = f"{first} is empty; fetch or export the model again"
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", f"model bad was not loaded: {tmp_path}/bad holds 2 models (a.onnx, b.onnx); keep one"),
        ("INFO", f"model m version 1 loaded: {kept}"),
        ("INFO", f"model m version 2 loaded: {kept}"),
        ("INFO", f"model m version 1 swapped: {kept}"),
        ("INFO", "model m version 2 unloaded: it is not on the disk any more"),
        ("WARNING", f"model m version 1 was not loaded, and what served before goes on: {empty}"),
        ("INFO", "model m version 1 unloaded"),
        ("WARNING", f"model m version 1 was not loaded: {empty}"),
    ]
