from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from operators.actuators.process.children import Child, Process, expand, recorded
from operators.api.plan import Key
from operators.router import daemon
from serving.contract import Env

OWNER = Key("Model", "default", "m")
PROCESS = Process(
    name="default/m/m-r1-0",
    owner=OWNER,
    workload="m-r1",
    artifact="",
    command=(sys.executable, "-c", "print('one'); print('the last line'); raise SystemExit(7)"),
    environment={},
    host="127.0.0.1",
    ready_path="/ready",
    grpc_over_http1=True,
)


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("--port=$(PORT)", "--port=8001"),
        ("$(PORT)$(HOST)", "8001here"),
        ("$$(PORT)", "$(PORT)"),
        ("$(UNKNOWN) $PORT $() $", "$(UNKNOWN) $PORT $() $"),
    ],
)
def test_variables_are_expanded_as_kubernetes_does(text: str, expanded: str) -> None:
    assert expand(text, {"PORT": "8001", "HOST": "here"}) == expanded


def child(folder: Path, process: Process = PROCESS) -> tuple[Child, asyncio.Event]:
    changed = asyncio.Event()
    return Child(process, folder, os.environ, lambda _: changed.set()), changed


async def after(changed: asyncio.Event, holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await changed.wait()
            changed.clear()


async def test_the_last_line_tells_why_a_process_ended_and_it_starts_again(tmp_path: Path) -> None:
    one, changed = child(tmp_path)
    one.supervise()
    await after(changed, lambda: one.restarts == 2)
    await one.stop()
    assert (one.message, one.refused, one.ready) == ("default/m/m-r1-0 ended with code 7: the last line", False, False)


async def test_a_refusal_is_final_and_told_in_the_words_of_the_process_alone(tmp_path: Path) -> None:
    code = (
        "import os, pathlib; folder = os.environ['PENSTOCK_MODEL_DIR']; "
        "pathlib.Path(os.environ['PENSTOCK_TERMINATION_LOG']).write_text(f'{folder}/m.onnx is bad; export it again'); "
        "print('noise'); raise SystemExit(3)"
    )
    process = dataclasses.replace(
        PROCESS, command=(sys.executable, "-c", code), environment={Env.MODEL_DIR: "/data/artifacts/sha256-1"}
    )
    one, changed = child(tmp_path, process)
    one.supervise()
    await after(changed, lambda: one.refused)
    await one.stop()
    assert (one.message, one.restarts) == ("m.onnx is bad; export it again", 0)


async def test_a_signal_is_named_to_people_and_in_the_log(tmp_path: Path) -> None:
    code = "import os, signal; print('begins', flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    one, changed = child(tmp_path, dataclasses.replace(PROCESS, command=(sys.executable, "-c", code)))
    one.supervise()
    await after(changed, lambda: one.restarts == 1)
    await one.stop()
    why = "default/m/m-r1-0 was killed by signal 9 (SIGKILL)"
    log = tmp_path / "logs" / "default" / "m" / "m-r1-0.log"
    assert (one.message, log.read_text().splitlines()[:2]) == (why, ["begins", why])


async def test_a_record_tells_the_next_supervisor_everything(tmp_path: Path) -> None:
    process = dataclasses.replace(PROCESS, command=(sys.executable, "-c", "import signal; signal.pause()"))
    one, _ = child(tmp_path, process)
    one.supervise()
    record = tmp_path / "children" / "default" / "m" / "m-r1-0.json"
    async with asyncio.timeout(30):
        while not record.exists():
            await asyncio.sleep(0.01)
    found = daemon.adopt(record)
    assert found is not None
    assert recorded(found) == process
    assert json.loads(record.read_text())["notes"]["http_port"] == one.http_port
    await one.stop()
