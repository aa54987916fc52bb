"""``python -m serving``: the model server and its fetcher."""

import logging
import os
import sys

from serving import cli

# NumPy's linear algebra would start a thread for each CPU: they spin at first, a tenth of all that a start costs, and
# again for a sum over one large request.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# gRPC's core would read its connections in a thread pool of its own, whose threads sleep 15 ms when they find nothing:
# a small call costs a fifth more then, and one large call in a hundred takes three times as long.
os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_listener")
code = cli.main(sys.argv[1:])
logging.shutdown()
sys.stdout.flush()
sys.stderr.flush()
# Not sys.exit: a model may be loading or running in a thread's C++ at this moment, and the interpreter ends
# such a thread by unwinding its frames, which C++ answers with abort().
os._exit(code)
