import sys
from pathlib import Path

import numpy as np

from benchmarks.contestants import CONTESTANTS, OURS
from benchmarks.models import Model
from benchmarks.peers import PEERS

MODEL = Model("m", Path("/models/m.onnx"), np.zeros((1, 3, 4), np.float32), np.zeros((1, 2), np.float32))


def test_ours_is_started_as_a_user_would_with_all_defaults() -> None:
    command = CONTESTANTS[OURS].command(MODEL, 1, 2)
    assert command == (
        sys.executable, "-m", "serving", "serve", "/models/m.onnx", "--http-port", "1", "--grpc-port", "2",
    )  # fmt: skip


def test_every_peer_has_pinned_requirements_and_a_server() -> None:
    for contestant in CONTESTANTS.values():
        if contestant.environment:
            folder = PEERS / contestant.environment
            assert (folder / "server.py").is_file()
            lines = (folder / "requirements.txt").read_text().splitlines()
            assert all("==" in line or "<" in line for line in lines)
