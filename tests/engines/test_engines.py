"""The same of every engine, in real processes: protocol, batches, mistakes, metrics, what is closed, how it lives."""

from __future__ import annotations

import concurrent.futures
import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from serving.conformance.target import LENGTH_HEADER, Place, Target, outputs
from serving.contract import Exit
from serving.tensors import Tensor
from tests.conformance import expected
from tests.engines import started, table
from tests.rig import model_server
from tests.rig.model_server import DEADLINE_S

pytestmark = pytest.mark.timeout(600)
ROWS = 16


@pytest.fixture(scope="module", params=started.ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return started.artifact(engine, tmp_path_factory.mktemp(engine))


@pytest.fixture(scope="module")
def place(engine: str, model: Path) -> Iterator[Place]:
    with started.running(engine, model) as (_, found):
        yield found


def test_it_supports_what_the_table_says(engine: str, place: Place) -> None:
    with contextlib.closing(Target(place)) as target:
        found = table.asked(target)
    assert found == table.known()[engine], "python -m tests.engines.table writes it anew"


def test_its_answers_are_those_of_onnx_runtime(place: Place) -> None:
    name, x, output, y = expected.digits()
    with contextlib.closing(Target(place)) as target:
        found = target.infer([Tensor(name, "FP32", x)])
    np.testing.assert_allclose(found[output], y, rtol=1e-3, atol=1e-4)


def test_told_to_end_it_answers_what_it_has_begun_and_ends_well(engine: str, model: Path) -> None:
    answered = threading.Semaphore(0)
    with started.running(engine, model) as (server, place), contextlib.closing(Target(place)) as target:
        tensors = target.sample(rows=ROWS)
        alone = target.infer(tensors)
        body, headers = target.binary(tensors, parameters={"binary_data_output": True})

        def ask(_: int) -> httpx.Response:
            answer = httpx.post(target.path("/infer"), content=body, headers=headers, timeout=DEADLINE_S)
            answered.release()
            return answer

        with concurrent.futures.ThreadPoolExecutor(48) as clients:
            calls = [clients.submit(ask, number) for number in range(48)]
            assert answered.acquire(timeout=DEADLINE_S)
            assert server.stop() == Exit.OK
            answers = [call.result() for call in calls if call.exception() is None]
    assert {answer.status_code for answer in answers} == {200}
    assert all(LENGTH_HEADER in answer.headers for answer in answers)
    for answer in answers:
        for name, array in outputs(answer).items():
            np.testing.assert_allclose(array, alone[name], rtol=1e-3, atol=1e-4)


def test_a_file_that_is_cut_in_half_is_refused_by_name(engine: str, model: Path, tmp_path: Path) -> None:
    (file,) = model.iterdir()
    cut = tmp_path / "digits" / file.name
    cut.parent.mkdir()
    cut.write_bytes(file.read_bytes()[: file.stat().st_size // 2])

    process = model_server.start(started.command(engine), str(cut.parent))
    try:
        _, errors = process.communicate(timeout=DEADLINE_S)
    finally:
        process.kill()

    assert process.returncode == Exit.REFUSED
    assert str(cut) in errors
