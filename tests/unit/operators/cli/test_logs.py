"""Log files as one stream."""

from __future__ import annotations

import asyncio
import pathlib

from operators.cli import logs


async def test_files_are_read_one_after_the_other_with_their_names(tmp_path: pathlib.Path) -> None:
    files = [tmp_path / name for name in ("a.log", "b.log", "gone.log")]
    files[0].write_text("first\n")
    files[1].write_text("second\n")
    pieces = [piece async for piece in logs.stream(lambda: files, False)]
    assert b"".join(pieces) == b"==> a.log <==\nfirst\n==> b.log <==\nsecond\n"


async def test_following_gives_what_is_added_and_files_that_come_later(tmp_path: pathlib.Path) -> None:
    files = [tmp_path / "a.log"]
    files[0].write_text("1\n")
    pieces = logs.stream(lambda: files, True)

    async def text(size: int) -> bytes:
        got = b""
        async with asyncio.timeout(10):
            while len(got) < size:
                got += await anext(pieces)
        return got

    first = b"==> a.log <==\n1\n"
    assert await text(len(first)) == first
    with files[0].open("a") as file:
        file.write("2\n")
    assert await text(2) == b"2\n"
    files.append(tmp_path / "b.log")
    files[1].write_text("3\n")
    second = b"==> b.log <==\n3\n"
    assert await text(len(second)) == second


async def test_a_file_that_was_begun_anew_is_read_from_its_beginning(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "a.log"
    file.write_text("long before\n")
    pieces = logs.stream(lambda: [file], True)
    assert [await anext(pieces), await anext(pieces)] == [b"==> a.log <==\n", b"long before\n"]
    file.write_text("new\n")
    async with asyncio.timeout(10):
        assert await anext(pieces) == b"new\n"
