"""``python -m benchmarks.delivery``: the same as ``python -m benchmarks delivery``."""

import sys

from benchmarks.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["delivery", *sys.argv[1:]]))
