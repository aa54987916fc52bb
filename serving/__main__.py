"""``python -m serving``: the model server and its fetcher."""

import sys

from serving import cli

sys.exit(cli.main(sys.argv[1:]))
