"""What each image may leave out, held by importing it without that."""

import subprocess
import sys

from tests.tiers import ROOT

LIST_OURS = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import serving.contract
print(*sorted(name for name in sys.modules if name.split('.')[0] in ('serving', 'operators')))
"""


def test_the_seam_between_both_packages_needs_only_the_standard_library() -> None:
    without_packages = (sys.executable, "-I", "-S", "-c", LIST_OURS)
    done = subprocess.run(without_packages, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "serving serving.contract\n", "")
