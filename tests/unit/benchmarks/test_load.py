import asyncio

from benchmarks.load import Sample, drive


async def test_a_request_leaves_at_its_moment_although_none_came_back() -> None:
    open_requests = 0
    all_left = asyncio.Event()

    async def send() -> str:
        nonlocal open_requests
        open_requests += 1
        if open_requests == 3:
            all_left.set()
        await all_left.wait()
        return ""

    async with asyncio.timeout(10):
        samples = await drive(send, (0.0, 0.0, 0.01), asyncio.get_running_loop().time)
    assert [(sample.due_s, sample.error) for sample in samples] == [(0.0, ""), (0.0, ""), (0.01, "")]


async def test_latency_counts_from_the_moment_a_request_was_due() -> None:
    now = iter([100.0, 100.0, 103.0])

    async def send() -> str:
        return ""

    assert await drive(send, (0.0,), lambda: next(now)) == (Sample(0.0, 3.0, ""),)
