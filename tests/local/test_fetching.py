"""Fetches by real child processes."""

from __future__ import annotations

import asyncio
import hashlib
import os
import pathlib
import sys

from operators.actuators.process.fetching import Fetching
from operators.api.plan import Fetch, FetchObserved, FetchState


async def test_a_file_that_was_missing_is_fetched_once_somebody_puts_it_there(tmp_path: pathlib.Path) -> None:
    file, content = tmp_path / "model.onnx", b"a model"
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    wish = Fetch(f"file://{file}", digest)
    told = asyncio.Event()
    fetching = Fetching(tmp_path / "data", sys.executable, os.environ, lambda _: told.set())
    async with asyncio.timeout(60):
        fetching.want([wish])
        await told.wait()
        assert fetching.observed(wish).state is FetchState.REFUSED
        told.clear()
        file.write_bytes(content)
        await told.wait()
    assert fetching.observed(wish) == FetchObserved(FetchState.FETCHED, digest)
    assert (fetching.path(digest) / "model.onnx").read_bytes() == content
    await fetching.stop()
