"""What a process has to do with its parent, without which it has nothing to do, and with others of its user."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4
_FILES = 4096


def die_with(parent: int) -> bool:
    """Arranges to be killed when the parent ends, on Linux; False when it has ended already."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    return os.getppid() == parent


def hide_from_children() -> None:
    """Have what this process was told, its environment above all, read by no other one of the same user, on Linux.

    Who may trace every process still reads it, as root does.
    """
    if sys.platform == "linux":
        # Its own list of open files is hidden, too: starting a process then means to close every number there could be.
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(_FILES, most), most))
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0)
