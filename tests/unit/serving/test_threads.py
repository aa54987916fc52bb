import threading

import pytest

from serving import threads


async def test_a_call_returns_what_the_function_returns_from_a_thread_that_does_not_hold_up_the_end() -> None:
    thread = await threads.call(threading.current_thread)

    assert thread is not threading.current_thread()
    assert thread.daemon


async def test_an_error_of_the_function_is_raised() -> None:
    with pytest.raises(ValueError, match=r"invalid literal for int\(\) with base 10: 'x'"):
        await threads.call(int, "x")
