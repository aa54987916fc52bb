"""A folder that goes with the server, however that ends."""

import subprocess
import sys
import threading
from pathlib import Path

from serving.workers import scratch
from tests.rig.model_server import ROOT


def test_it_is_there_as_long_as_it_is_used_and_for_this_user_alone(tmp_path: Path) -> None:
    with scratch.folder(tmp_path) as made:
        assert made is not None
        assert made.stat().st_mode & 0o777 == 0o700
        (made / "weights").write_bytes(b"1")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_server_left_is_removed_and_what_a_live_one_uses_is_not(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\nfrom serving.workers import scratch\n"
        "with scratch.folder(pathlib.Path(sys.argv[1])) as made:\n    print(made, flush=True)\n    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    killed, alive = (
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)
    )
    assert killed.stdout is not None
    assert alive.stdout is not None
    left, used = (Path(process.stdout.readline().strip()) for process in (killed, alive) if process.stdout)
    killed.kill()
    killed.communicate()

    with scratch.folder(tmp_path) as made:
        assert {*tmp_path.iterdir()} == {used, made}
        assert left not in (used, made)
    alive.communicate()


def test_servers_that_start_together_leave_each_other_their_folders(tmp_path: Path) -> None:
    kept: list[bool] = []

    def begin() -> None:
        for _ in range(200):
            with scratch.folder(tmp_path) as made:
                kept.append(made is not None and made.is_dir())

    threads = [threading.Thread(target=begin) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert kept == [True] * 800


def test_where_there_can_be_no_folder_there_is_none(tmp_path: Path) -> None:
    with scratch.folder(tmp_path / "nowhere") as made:
        assert made is None
