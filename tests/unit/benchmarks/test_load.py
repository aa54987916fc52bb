import asyncio

from benchmarks.load import Sample, closed, drive, good_rate


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


async def test_latency_counts_from_the_moment_a_request_was_due_and_lateness_is_told() -> None:
    now = iter([100.0, 102.0, 102.0, 102.0, 103.0])

    async def send() -> str:
        return ""

    assert await drive(send, (1.0,), lambda: next(now)) == (Sample(1.0, 2.0, "", late_s=1.0),)


async def test_closed_workers_send_as_soon_as_they_have_their_answer_until_the_time_is_over() -> None:
    time_s = 0.0

    async def send() -> str:
        nonlocal time_s
        time_s += 1.0
        return "HTTP 503" if time_s == 2.0 else ""

    samples = await closed(send, 1, 3.0, lambda: time_s)
    assert samples == (Sample(0.0, 1.0, ""), Sample(1.0, 1.0, "HTTP 503"), Sample(2.0, 1.0, ""))
    assert good_rate(samples, 0.0, 4.0) == 0.5
