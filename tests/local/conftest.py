"""A router by itself, for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from operators.router.agent import Router
from operators.router.configuration import Listen
from tests.rig import ports
from tests.rig.backends import STOP_TIMEOUT_S, router


@pytest.fixture
def listen() -> Listen:
    return Listen("127.0.0.1", *ports.free(2))


@pytest.fixture
async def running(tmp_path: Path, listen: Listen) -> AsyncIterator[Router]:
    started = router(tmp_path / "router", listen)
    await started.start()
    try:
        yield started
    finally:
        await started.stop(STOP_TIMEOUT_S)
