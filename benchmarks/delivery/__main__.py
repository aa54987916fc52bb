"""``python -m benchmarks.delivery``: the same as ``python -m benchmarks delivery``."""

import sys

from benchmarks.__main__ import main

if __name__ == "__main__":
    sys.argv[1:1] = ["delivery"]  # as the results tell it
    sys.exit(main(sys.argv[1:]))
