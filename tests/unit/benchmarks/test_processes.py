import sys
from pathlib import Path

import psutil
import pytest

from benchmarks import processes
from tests.rig.model_server import until

PARENT = """
import signal, subprocess, sys
child = "import os, signal; signal.signal(15, signal.SIG_IGN); print(os.getpid(), flush=True); signal.pause()"
subprocess.run([sys.executable, "-c", child])
"""
POLITE = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(print("bye")))
print("up", flush=True)
signal.pause()
"""


def test_a_tree_is_the_process_with_all_it_started_and_ends_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_END_S", 0.1)
    tree = processes.start([sys.executable, "-c", PARENT], tmp_path, {}, cpu=0)
    try:
        until(lambda: (tmp_path / "output.log").read_text() != "", "the child is up")
        members = tree.members()
        assert len(members) == 2
        assert [member.cpu_affinity() for member in members] == [[0], [0]]
        assert tree.cpu_s() > 0
        assert tree.uss_mib() > 0
        assert tree.pss_mib() > tree.uss_mib()
        assert tree.file_descriptors() > 0
    finally:
        tree.end()
    assert not tree.alive
    assert not tree.members()
    until(lambda: not any(psutil.pid_exists(member.pid) for member in members), "both are gone")


def test_a_tree_that_has_ended_used_nothing_and_can_be_ended_again(tmp_path: Path) -> None:
    tree = processes.start([sys.executable, "-c", ""], tmp_path, {}, cpu=None)
    until(lambda: not tree.alive, "it has ended")
    tree.end()
    assert (tree.members(), tree.cpu_s(), tree.pss_mib()) == ([], 0, 0)


def test_children_of_a_process_that_ended_by_itself_end_too(tmp_path: Path) -> None:
    orphan = PARENT.replace("subprocess.run", "subprocess.Popen")
    tree = processes.start([sys.executable, "-c", orphan], tmp_path, {}, cpu=None)
    output = tmp_path / "output.log"
    until(lambda: not tree.alive and output.read_text().endswith("\n"), "only the child is there")
    child = psutil.Process(int(output.read_text()))
    tree.end()
    until(lambda: not child.is_running(), "it is gone")


def test_a_process_is_asked_to_end_before_it_is_killed(tmp_path: Path) -> None:
    tree = processes.start([sys.executable, "-c", POLITE], tmp_path, {}, cpu=None)
    output = tmp_path / "output.log"
    until(lambda: output.read_text() == "up\n", "it is up")
    tree.end()
    assert output.read_text() == "up\nbye\n"
