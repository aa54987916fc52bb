"""One ``penstock up`` a data directory, and the others find it."""

from __future__ import annotations

import os
import pathlib
import re
import stat
import subprocess
import sys

import pytest

from operators.cli import datadir
from operators.cli.datadir import InUse, Running

RUNNING = Running(os.getpid(), "http://127.0.0.1:1", "token", "http://127.0.0.1:2", "127.0.0.1:3")


def test_the_directory_comes_from_the_environment() -> None:
    home = pathlib.Path.home()
    found = [datadir.default(e) for e in ({"PENSTOCK_DATA_DIR": "/a"}, {"XDG_STATE_HOME": "/b"}, {})]
    assert found == [pathlib.Path("/a"), pathlib.Path("/b/penstock"), home / ".local/state/penstock"]


def test_a_second_user_is_refused_until_the_first_has_gone(tmp_path: pathlib.Path) -> None:
    message = (
        f"`penstock up` runs on {tmp_path} already (process {os.getpid()}); "
        "apply to it, end it with `penstock down`, or name another --data-dir"
    )
    with datadir.locked(tmp_path), pytest.raises(InUse, match=re.escape(message)), datadir.locked(tmp_path):
        pytest.fail("locked twice")
    with datadir.locked(tmp_path):
        pass


def test_what_is_announced_is_found_and_is_the_owners_alone(tmp_path: pathlib.Path) -> None:
    datadir.announce(tmp_path, RUNNING)
    assert datadir.running(tmp_path) == RUNNING
    assert stat.S_IMODE((tmp_path / "up.json").stat().st_mode) == 0o600
    datadir.withdraw(tmp_path)
    assert datadir.running(tmp_path) is None


def test_one_that_ended_without_a_word_is_not_found(tmp_path: pathlib.Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    datadir.announce(tmp_path, Running(ended.pid, "http://127.0.0.1:1", "token", "", ""))
    assert datadir.running(tmp_path) is None
