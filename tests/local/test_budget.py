"""More models than a server has memory for: every one answers, and the server stays within its budget."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import psutil

from tests.rig import model_server, onnx_models
from tests.rig.model_server import ModelServer

MIB = 2**20
MODELS, SIZE, BUDGET = 10, 24 * MIB, 120 * MIB
ROUNDS = 3


def ask(server: ModelServer, model: str, value: int) -> tuple[int, float | str]:
    inputs = [{"name": "x", "datatype": "INT64", "shape": [1], "data": [value]}]
    status, text = server.request("POST", f"/v2/models/{model}/infer", json.dumps({"inputs": inputs}).encode())
    document = json.loads(text)
    return status, document["outputs"][0]["data"][0] if status == 200 else document["error"]


def total(server: ModelServer, name: str) -> int:
    lines = [line for line in server.get("/metrics")[1].splitlines() if line.startswith(f"{name}{{")]
    return sum(int(line.rpartition(" ")[2]) for line in lines)


def test_every_model_answers_and_together_they_take_no_more_than_the_budget(tmp_path: Path) -> None:
    for number in range(MODELS):
        onnx_models.table(tmp_path / f"m{number}" / "model.onnx", SIZE // MIB, scale=number + 1)
    with model_server.running("serve", str(tmp_path), f"--memory-budget={BUDGET}") as server:
        process = psutil.Process(server.process.pid)
        wrong: list[object] = []
        highest = 0

        def client(first: int) -> None:
            for turn in range(ROUNDS * MODELS):
                model, value = (first + turn) % MODELS, first * 100 + turn
                answer = ask(server, f"m{model}", value)
                if answer != (200, value * (model + 1)):
                    wrong.append((model, answer))

        clients = [threading.Thread(target=client, args=(first,)) for first in (0, 5)]
        for one in clients:
            one.start()
        while any(one.is_alive() for one in clients):
            clients[0].join(0.02)
            highest = max(highest, process.memory_info().rss)

        assert wrong == []
        loads, evictions = total(server, "penstock_model_loads_total"), total(server, "penstock_model_evictions_total")
        assert loads > MODELS
        assert 0 <= loads - evictions <= BUDGET // SIZE
        # 100 MiB for the server itself, one model that is being loaded, and what loading it needs beside it.
        assert highest < BUDGET + 100 * MIB + 2 * SIZE

        index = json.loads(server.request("POST", "/v2/repository/index")[1])
        assert {entry["state"] for entry in index} == {"READY"}
        away = [entry for entry in index if entry["reason"]]
        assert len(away) == MODELS - (loads - evictions)
        assert {entry["reason"] for entry in away} == {
            "it made room for other models and is loaded again when it is asked"
        }


def test_a_model_that_can_never_have_room_is_refused_and_the_others_serve(tmp_path: Path) -> None:
    onnx_models.table(tmp_path / "large" / "model.onnx", 64)
    onnx_models.table(tmp_path / "small" / "model.onnx", 1)

    with model_server.running("serve", str(tmp_path), f"--memory-budget={40 * MIB}") as server:
        assert ask(server, "small", 3) == (200, 3)
        status, error = ask(server, "large", 3)
        assert status == 503
        assert "the budget of this server is 40 MiB (--memory-budget)" in str(error)
