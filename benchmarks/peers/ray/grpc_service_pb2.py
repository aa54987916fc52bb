"""Where Triton's messages say they are from: Ray pickles them on their way to a replica."""

from tritonclient.grpc.service_pb2 import *  # noqa: F403
