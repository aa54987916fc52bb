"""Locks of nodes: one process at a time, and nothing left."""

from __future__ import annotations

import concurrent.futures
from pathlib import Path

from tests.rig.node.layout import locked


def test_a_lock_keeps_others_out_and_its_file_goes_with_the_last(tmp_path: Path) -> None:
    path, inside, most = tmp_path / "folder" / ".lock", [0], [0]

    def enter() -> None:
        for _ in range(50):
            with locked(path):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                inside[0] -= 1

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for entered in [pool.submit(enter) for _ in range(8)]:
            entered.result()
    assert most == [1]
    assert list(path.parent.iterdir()) == []
