import os
import subprocess
import time

from serving.telemetry import process


def test_the_process_began_before_now_and_has_no_more_in_ram_than_it_has_addresses() -> None:
    assert 0 < process.started() < time.time()
    assert 0 < process.resident_bytes() < process.virtual_bytes()


def test_an_open_file_is_counted_and_a_closed_one_is_not() -> None:
    before = process.open_fds()
    opened = os.open(os.devnull, os.O_RDONLY)
    try:
        assert process.open_fds() == before + 1
    finally:
        os.close(opened)
    assert process.open_fds() == before


def test_work_takes_cpu_time() -> None:
    before = process.cpu_s()
    deadline = time.monotonic() + 30
    while process.cpu_s() <= before and time.monotonic() < deadline:
        sum(range(10_000))
    assert process.cpu_s() > before


def test_another_process_has_memory_until_it_ends() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as other:
        assert 0 < process.proportional_bytes(other.pid) < 100 * 2**20
    assert process.proportional_bytes(other.pid) == 0
