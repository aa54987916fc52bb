import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from serving.engines.base import Interrupt
from serving.errors import ArtifactRefused, InferenceFailed, NotReady
from serving.models import budget, loading
from serving.models.budget import Budget, Evictable
from serving.settings import Settings
from serving.telemetry.metrics import ModelCounters
from tests.rig import onnx_models
from tests.rig.model_server import until

MIB = 2**20


class Models:
    """Models of about 16 MiB under a budget."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self.folder = folder
        self.budget = Budget(limit_bytes)
        self.counters: dict[str, ModelCounters] = {}
        self.engines: dict[str, Evictable] = {}

    def load(self, name: str, said: Settings | None = None, wait_s: float = 5.0, mebibytes: int = 16) -> Evictable:
        path = onnx_models.table(self.folder / f"{name}.onnx", mebibytes)
        counters = self.counters[name] = ModelCounters()
        loaded = self.budget.admit(path, lambda: loading.load(path, said or Settings()), counters, wait_s)
        assert loaded.inline_elements == 0
        assert isinstance(loaded.engine, Evictable)
        self.engines[name] = loaded.engine
        return loaded.engine

    def loaded(self) -> list[str]:
        return sorted(name for name, engine in self.engines.items() if engine.is_loaded)

    def ask(self, name: str, value: int = 3, interrupt: Interrupt | None = None) -> float:
        (y,) = self.engines[name].infer({"x": np.array([value])}, ["y"], interrupt)
        return float(y[0, 0])

    def may_go(self) -> None:
        """As if some time had passed."""
        for engine in self.engines.values():
            engine._stays_until = 0.0


@pytest.fixture(scope="module", autouse=True)
def first_session(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What ONNX Runtime makes once in a process would be counted to the first model: about 10 MiB."""
    loading.load(onnx_models.linear(tmp_path_factory.mktemp("first") / "m.onnx"), Settings()).engine.close()


@pytest.fixture
def models(tmp_path: Path) -> Iterator[Models]:
    found = Models(tmp_path, 60 * MIB)
    yield found
    for engine in found.engines.values():
        engine.close()


def test_what_was_asked_longest_ago_makes_room_and_comes_back_when_it_is_asked(models: Models) -> None:
    for name in "abc":
        models.load(name)
    assert models.loaded() == ["a", "b", "c"]
    models.ask("a")

    models.load("d")
    assert models.loaded() == ["a", "c", "d"]

    assert [models.ask(name, 7) for name in "bd"] == [7.0, 7.0]
    assert models.loaded() == ["a", "b", "d"]
    assert {name: (counters.loads, counters.evictions) for name, counters in models.counters.items()} == {
        "a": (0, 0),
        "b": (1, 1),
        "c": (0, 1),
        "d": (0, 0),
    }
    assert models.budget.used_bytes() <= models.budget.limit_bytes


def test_a_model_larger_than_the_budget_is_refused_and_puts_nobody_away(models: Models) -> None:
    models.load("a")

    with pytest.raises(
        ArtifactRefused, match=r"large.onnx takes \d+ MiB of memory, the budget of this server is 60 MiB"
    ):
        models.load("large", mebibytes=70)

    assert models.loaded() == ["a"]


def test_a_model_that_has_just_come_back_stays_for_a_while(models: Models) -> None:
    for name in "abcd":
        models.load(name)
    assert models.loaded() == ["b", "c", "d"]
    models.ask("a")
    models.engines["a"]._stays_until = np.inf
    models.engines["a"].used = 0.0

    models.ask("b")

    assert models.loaded() == ["a", "b", "d"]


def test_a_request_whose_time_is_over_does_not_wait_for_room(models: Models) -> None:
    for name in "abcd":
        models.load(name)
    for name in "bcd":
        models.engines[name]._stays_until = np.inf
    interrupt = Interrupt()
    failures: list[str] = []

    def ask() -> None:
        with pytest.raises(InferenceFailed) as failed:
            models.ask("a", 1, interrupt)
        failures.append(str(failed.value))

    asking = threading.Thread(target=ask)
    asking.start()
    until(models.budget._turn.locked, "the request waited for room")
    interrupt.fire()
    asking.join()

    assert failures == ["the request's time was over before there was room for the model"]
    models.may_go()
    assert models.ask("a", 5) == 5.0


def test_a_new_model_waits_for_room_only_so_long(models: Models) -> None:
    for name in "abc":
        models.load(name)
        models.engines[name]._stays_until = np.inf

    with pytest.raises(NotReady) as refused:
        models.load("d", wait_s=0.0)

    assert str(refused.value) == f"{models.folder}/d.onnx found no room: every other model is being asked"


def test_a_file_that_has_changed_does_not_come_back_unasked(models: Models) -> None:
    for name in "abcd":
        models.load(name)
    path = onnx_models.table(models.folder / "a.onnx", 16, scale=2.0)

    with pytest.raises(NotReady) as refused:
        models.ask("a")

    problem = (
        f"it made room for others and cannot come back: {path} has changed since it was loaded; load the model again"
    )
    assert str(refused.value) == f"the model cannot answer now: {problem}"
    assert models.engines["a"].problem == problem


def test_a_closed_model_takes_nothing(models: Models) -> None:
    engine = models.load("a")
    assert models.budget.used_bytes() == engine.size

    engine.close()

    assert models.budget.used_bytes() == 0


def test_memory_is_measured_where_it_is_taken(tmp_path: Path) -> None:
    path = onnx_models.table(tmp_path / "m.onnx", 64)
    for said in (Settings(), Settings(isolation="process")):
        loaded, size = budget.measured(path, lambda said=said: loading.load(path, said))  # type: ignore[misc]
        loaded.engine.close()
        assert 64 * MIB <= size < 200 * MIB, said.isolation


def test_many_threads_that_ask_more_models_than_fit_get_their_own_answers(models: Models) -> None:
    names = "abcdefgh"
    for name in names:
        models.load(name)
    wrong: list[str] = []

    def ask(number: int) -> None:
        for turn in range(12):
            name, value = names[(number * 3 + turn) % len(names)], number * 100 + turn
            models.may_go()
            if models.ask(name, value) != value:
                wrong.append(f"{name} {value}")

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []
    assert models.budget.used_bytes() <= models.budget.limit_bytes
    assert sum(counters.evictions for counters in models.counters.values()) > 0
