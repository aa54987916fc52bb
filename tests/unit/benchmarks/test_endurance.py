"""What the endurance run takes for a right answer."""

import asyncio
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from benchmarks.endurance import models
from benchmarks.endurance.clients import Gate, Score

X = [65535, 15, 250, 12]


@pytest.mark.parametrize("version", [1, 7])
def test_an_answer_tells_which_version_computed_it(version: int, tmp_path: Path) -> None:
    models.write_whole(tmp_path / "whole.onnx", version)
    models.write_linear(tmp_path / "linear.onnx", version)

    def answer(name: str, kind: type) -> list[float]:
        session = onnxruntime.InferenceSession(tmp_path / f"{name}.onnx", providers=["CPUExecutionProvider"])
        found: list[float] = session.run(["y"], {"x": np.array([X], kind)})[0][0].tolist()
        return found

    assert models.whole_version(X, [int(y) for y in answer("whole", np.int64)]) == version
    assert models.linear_version(X, answer("linear", np.float32)) == version


def test_an_answer_to_another_input_is_wrong() -> None:
    score = Score(1, known={1})
    step = models.WHOLE_STEP

    score.whole("json", [1, 2, 3, 4], [1 + step, 2 + step, 3 + step, 5 + step])
    score.whole("json", [1, 2, 3, 4], [1 + 2 * step, 2 + 2 * step, 3 + 2 * step, 4 + 2 * step])
    score.linear("binary", [1, 2, 3, 4], [models.LINEAR_STEP + 10, models.LINEAR_STEP + 31])
    score.linear("binary", [1, 2, 3, 4], [models.LINEAR_STEP + 10, models.LINEAR_STEP + 30])

    assert (score.wrong, score.answered) == ({"json": 2, "binary": 1}, {"binary": 1})
    assert score.notes[1] == f"json gave {[x + 2 * step for x in (1, 2, 3, 4)]} for [1, 2, 3, 4]"


async def test_a_closed_gate_lets_nobody_in_and_waits_for_those_inside() -> None:
    gate, inside, leave = Gate(), asyncio.Event(), asyncio.Event()
    seen = []

    async def guest() -> None:
        async with gate.passed():
            inside.set()
            await leave.wait()
        async with gate.passed():
            seen.append("inside again")

    async def keeper() -> None:
        async with gate.closed():
            seen.append("closed")

    visiting = asyncio.ensure_future(guest())
    await inside.wait()
    closing = asyncio.ensure_future(keeper())
    leave.set()
    await asyncio.gather(visiting, closing)

    assert seen == ["closed", "inside again"]
