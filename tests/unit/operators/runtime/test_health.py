from __future__ import annotations

import aiohttp
import pytest

from operators.runtime.health import Check, serving


def saying(complaint: str | None) -> Check:
    return lambda: complaint


@pytest.mark.parametrize(
    ("live", "ready", "healthz", "readyz"),
    [
        ([], [], (200, "ok\n"), (200, "ok\n")),
        ([None], [None], (200, "ok\n"), (200, "ok\n")),
        ([None], ["not yet"], (200, "ok\n"), (500, "not yet\n")),
        (["blind", None, "stuck"], ["not yet"], (500, "blind\nstuck\n"), (500, "blind\nstuck\nnot yet\n")),
    ],
)
async def test_answers_with_every_complaint(
    live: list[str | None], ready: list[str | None], healthz: tuple[int, str], readyz: tuple[int, str]
) -> None:
    async with (
        serving("127.0.0.1", 0, [saying(c) for c in live], [saying(c) for c in ready]) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
    ):
        answers = []
        for path in ("/healthz", "/readyz"):
            async with session.get(path) as response:
                answers.append((response.status, await response.text()))
    assert answers == [healthz, readyz]


async def test_metrics_are_read_when_they_are_asked_for() -> None:
    told = iter(["a 1\n", "a 2\n"])
    async with (
        serving("127.0.0.1", 0, [], [], lambda: next(told)) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
    ):
        for expected in ("a 1\n", "a 2\n"):
            async with session.get("/metrics") as response:
                assert (response.status, response.content_type, await response.text()) == (200, "text/plain", expected)
