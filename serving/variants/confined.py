"""``python -m serving.variants.confined FOLDER COMMAND…``: a command that writes below FOLDER alone, without network.

Two means, each where the kernel lets: a network namespace of its own, which has no way out (as root, else in a user
namespace), and Landlock (Linux 5.13), which any process may lay on itself: no file is written, made or removed outside
of FOLDER, no TCP port reached (6.7), and no process outside signalled (6.12). In a pod whose seccomp profile forbids
namespaces, Landlock is what is left. Reading is not confined, nor are sockets that are files.

This runs in a process of its own before anything else is loaded, because neither reaches threads that are there.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from pathlib import Path

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
"""Landlock's system calls, on every architecture."""
_VERSION, _BENEATH = 1, 1
_PR_SET_NO_NEW_PRIVS = 38
_WRITE_FILE = 1 << 1
_CHANGES = _WRITE_FILE | sum(1 << right for right in range(4, 13))
"""Writing files, and making or removing anything that has a name."""
_REFER, _TRUNCATE = 1 << 13, 1 << 14
_TCP, _SCOPES = 0b11, 0b11


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scopes", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32))


def confine(folder: Path) -> None:
    """Confines this process and all it starts, as far as the kernel lets."""
    libc = ctypes.CDLL(None, use_errno=True)
    _leave_network(libc)
    _only_below(libc, folder)


def _leave_network(libc: ctypes.CDLL) -> None:
    if libc.unshare(_CLONE_NEWNET) == 0:
        return
    user, group = os.geteuid(), os.getegid()
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0:
        # Without this, files would seem to be nobody's.
        with contextlib.suppress(OSError):
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
            Path("/proc/self/gid_map").write_text(f"{group} {group} 1")


def _only_below(libc: ctypes.CDLL, folder: Path) -> None:
    version = libc.syscall(_CREATE_RULESET, None, 0, _VERSION)
    if version < 1:
        return
    changes = _CHANGES | (_REFER if version >= 2 else 0) | (_TRUNCATE if version >= 3 else 0)
    rules = _Ruleset(changes, _TCP if version >= 4 else 0, _SCOPES if version >= 6 else 0)
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = libc.syscall(_CREATE_RULESET, ctypes.byref(rules), size, 0)
    if ruleset < 0:
        return
    for path, allowed in ((folder, changes), (Path(os.devnull), _WRITE_FILE)):
        opened = os.open(path, os.O_PATH)
        rule = _Beneath(allowed, opened)
        libc.syscall(_ADD_RULE, ruleset, _BENEATH, ctypes.byref(rule), 0)
        os.close(opened)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.syscall(_RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)


if __name__ == "__main__":
    confine(Path(sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])  # the command is ours, and nothing is looked up
