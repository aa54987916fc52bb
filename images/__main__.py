"""``python -m images``: build the container images into archives, and print their sizes."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from images import build, inputs, storage


def main(arguments: list[str]) -> int:
    """Build; 0 if every image is there."""
    parser = argparse.ArgumentParser(prog="python -m images", description="Build container images into archives.")
    parser.add_argument("name", nargs="*", help=f"one or more of {', '.join(inputs.NAMES)}; all without any")
    parser.add_argument("--output", type=Path, default=build.OUTPUT, metavar="DIR")
    parser.add_argument("--base", metavar="IMAGE", help="build on this image instead of a base made here")
    parser.add_argument("--refresh", action="store_true", help="make the base anew, with Debian's updates")
    given = parser.parse_args(arguments)
    try:
        images = build.build(given.name, given.output, storage.tell, public_base=given.base, refresh=given.refresh)
    except storage.CannotBuild as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(build.table(images))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
