from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from operators.router import daemon
from operators.router.daemon import Daemon

FOREVER = [sys.executable, "-c", "import signal; print('up', flush=True); signal.pause()"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True)\nwhile True: signal.pause()",
]


def start(folder: Path, command: list[str] = FOREVER) -> Daemon:
    return daemon.start(
        command,
        environment=os.environ,
        folder=folder,
        log=folder / "logs" / "one.log",
        record=folder / "one.json",
        notes={"port": 1},
    )


async def up(folder: Path) -> None:
    async with asyncio.timeout(20):
        while "up" not in (folder / "logs" / "one.log").read_text():
            await asyncio.sleep(0.02)


async def test_a_process_is_found_again_by_its_record(tmp_path: Path) -> None:
    started = start(tmp_path)
    found = daemon.adopt(tmp_path / "one.json")
    assert found is not None
    assert (found.process.pid, found.notes, found.alive, found.exit_code) == (
        started.process.pid,
        {"port": 1},
        True,
        None,
    )
    await up(tmp_path)
    await started.end(10)
    assert (started.exit_code, (tmp_path / "one.json").exists()) == (-signal.SIGTERM, False)


async def test_a_record_of_a_process_that_is_gone_is_deleted(tmp_path: Path) -> None:
    started = start(tmp_path)
    kept = (tmp_path / "one.json").read_text()
    await started.end(0)
    (tmp_path / "one.json").write_text(kept)
    assert daemon.adopt(tmp_path / "one.json") is None
    assert not (tmp_path / "one.json").exists()


async def test_a_process_that_was_given_the_same_id_is_not_taken_for_ours(tmp_path: Path) -> None:
    started = start(tmp_path)
    record = json.loads((tmp_path / "one.json").read_text())
    (tmp_path / "one.json").write_text(json.dumps({**record, "born": record["born"] - 60}))
    assert daemon.adopt(tmp_path / "one.json") is None
    assert started.alive
    await started.end(0)


async def test_what_does_not_end_when_asked_is_killed(tmp_path: Path) -> None:
    started = start(tmp_path, STUBBORN)
    await up(tmp_path)
    await started.end(0.2)
    assert started.exit_code == -signal.SIGKILL


async def test_a_large_log_is_put_aside_at_the_next_start(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "one.log"
    log.parent.mkdir()
    log.write_bytes(b"x" * (10 * 2**20 + 1))
    started = start(tmp_path)
    await up(tmp_path)
    await started.end(10)
    assert (log.read_text(), (tmp_path / "logs" / "one.log.1").stat().st_size) == ("up\n", 10 * 2**20 + 1)
