from __future__ import annotations

import subprocess
import sys

SHOWN = """
import ctypes, resource
from serving import parent
parent.hide_from_children()
print(ctypes.CDLL(None).prctl(3), resource.getrlimit(resource.RLIMIT_NOFILE)[0] <= 4096)
"""


def test_a_hidden_process_is_not_shown_to_others_of_its_user() -> None:
    # That it keeps an environment from them is seen in a pod, by tests/cluster/test_builds.py: here tests may be root.
    assert subprocess.run([sys.executable, "-c", SHOWN], capture_output=True, text=True).stdout == "0 True\n"
