"""``python -m serving.variants.toolchains NAME…``: installs toolchains before a build needs them."""

import functools
import sys

from serving.errors import StorageUnavailable
from serving.variants import toolchains


def main(names: list[str]) -> int:
    """0 when all are there."""
    for name in names:
        try:
            print(toolchains.python(name, functools.partial(print, f"installing toolchain {name}", flush=True)))
        except StorageUnavailable as error:
            print(f"error: {error}", file=sys.stderr)
            return int(error.exit)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
