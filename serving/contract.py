"""What the serving side promises to whoever starts it: ports, paths, environment, exit codes.

Standard library only. This is the one module of ``serving`` that ``operators`` may import, so that
an operator image needs no engine and a serving image needs no operator.
"""

from __future__ import annotations

import enum

HTTP_PORT = 8080
"""REST and, as HTTP/1.1 with trailers from the router, unary gRPC."""
GRPC_PORT = 9000
"""gRPC over HTTP/2: direct calls and streams."""

CACHE_PORT = 8083
"""A node's cache of artifacts."""

BUILD_PORT = 8084
"""Where a builder in a cluster says how far it is."""

MODEL_DIR = "/mnt/models"
"""Where a pod finds its artifact (KServe's convention)."""

VARIANT_FILE = ".variant"
"""Beside an artifact: name of the variant that a fetch took in place of the one it was asked for."""

IMPORTED = (".skops", ".pt2")
"""Files that a build turns into ONNX, which no engine loads as they are."""
NEVER_READ = (".pkl", ".pickle", ".joblib", ".pt", ".pth", ".ckpt")
"""Files that a build refuses with what to give instead."""

ENGINE_SUFFIXES = {"openvino": ".openvino.onnx", "litert": ".tflite"}
"""How the files of an engine are called, other than ONNX Runtime's."""

LIVE_PATH = "/v2/health/live"
READY_PATH = "/v2/health/ready"
METRICS_PATH = "/metrics"
DEBUG_PATH = "/debug/"
"""What begins so is for whoever looks after a server; a router for strangers leads nobody there."""
REQUESTS_PATH = f"{DEBUG_PATH}requests"
"""The slowest requests and those in work."""
SHADOW_PATH = f"{DEBUG_PATH}shadow"
"""What came of mirrored requests."""

GRPC_SERVICE = "inference.GRPCInferenceService"
STREAM_METHOD = "ModelStreamInfer"
"""The one method that needs HTTP/2 end to end."""

REVISION_HEADER = "penstock-revision"
VARIANT_HEADER = "penstock-variant"
"""In an answer: who gave it. In a request, or in its query: whom the router is to ask."""
ARM_HEADER = "penstock-arm"
"""In an Endpoint's answer: whose it is. In a request for it, or in its query: which arm the router is to ask."""
REQUEST_ID_HEADER = "penstock-request-id"
"""In an answer of an Endpoint with an experiment, or of a Model with feedback: what a client names in its report."""
MIRROR_HEADER = "penstock-mirror"
"""The router says to a server: where a copy of this request is to be sent, how answers are compared (base64 of JSON),
and a token, with ``|`` between. The server says to the router: the token, with a copy and with what came of it.
"""
AGREED_PATH, DISAGREED_PATH = "/penstock/agreed", "/penstock/disagreed"
"""Of the router: what came of a copy, by POST."""
MODEL_METADATA_KEY = "penstock-model"
"""gRPC metadata by which a client may name ``NAMESPACE/NAME``; the message's model name is used without it."""
ALIAS_METADATA_KEY = "penstock-alias"
"""``NAME/MODEL``: a call for NAME means the server's MODEL. The router says so of an Endpoint's calls."""
GRPC_HEAD_PATH = "/penstock/grpc-head"
"""Where the beginning of a compressed gRPC message is unpacked for the router, as hexadecimal digits."""
COMPRESSION_METADATA_KEY = "penstock-compression"
"""gRPC metadata by which a client asks for answers in ``gzip`` or ``deflate``; without it they are not compressed."""

DRAIN_TIMEOUT_S = 30
"""How long a server that got SIGTERM goes on answering requests it has begun."""
PRE_STOP_SLEEP_S = 3
"""Endpoints take this long to settle: without it 26-34 of 1,000 requests failed in a rolling update, with it none."""


def stored(store: str, digest: str) -> str:
    """The folder of an artifact store that holds what has this digest; nothing in it is ever written over."""
    return f"{store.rstrip('/')}/{digest.replace(':', '-')}"


def stored_report(store: str, build: str) -> str:
    """The page in an artifact store that tells all of a build; the same as JSON is beside it."""
    return f"{store.rstrip('/')}/builds/{build}/report.html"


class Env(enum.StrEnum):
    """Environment a serving process is started with; ``$(NAME)`` in a runtime's command stands for the value."""

    MODEL = "PENSTOCK_MODEL"
    NAMESPACE = "PENSTOCK_NAMESPACE"
    REVISION = "PENSTOCK_REVISION"
    VARIANT = "PENSTOCK_VARIANT"
    MODEL_DIR = "PENSTOCK_MODEL_DIR"
    HOST = "PENSTOCK_HOST"
    HTTP_PORT = "PENSTOCK_HTTP_PORT"
    GRPC_PORT = "PENSTOCK_GRPC_PORT"
    ROUTED = "PENSTOCK_ROUTED"
    """``1`` where all requests come from Penstock's router, which takes ``penstock-mirror`` of clients away; only then
    is that header acted on.
    """
    SETTINGS = "PENSTOCK_SETTINGS"
    """JSON of ``serving.settings`` for all models of the process."""
    CACHE_URL = "PENSTOCK_CACHE_URL"
    """Cache of artifacts on the node that ``fetch`` asks before the source."""
    DOCKER_CONFIG = "DOCKER_CONFIG"
    """Folder of the ``config.json`` with the logins of OCI registries; the name is Docker's."""
    PLAIN_HTTP = "PENSTOCK_PLAIN_HTTP"
    """OCI registries, ``HOST:PORT`` with commas between, that ``fetch`` may speak to without TLS."""
    LOG_REQUESTS = "PENSTOCK_LOG_REQUESTS"
    """Share of requests of which a line is written, as ``--log-requests`` takes it."""
    TERMINATION_LOG = "PENSTOCK_TERMINATION_LOG"
    """File that takes the last word of a process: why it ended, or a fetch's result. /dev/termination-log in a pod."""


class Exit(enum.IntEnum):
    """Exit codes of ``penstock serve``, ``fetch`` and ``build``."""

    OK = 0
    FAILED = 1
    USAGE = 2
    REFUSED = 3
    """The artifact itself is bad (truncated, hostile, wrong digest): starting again cannot help."""
    PORT_IN_USE = 4
    UNAVAILABLE = 5
    """Storage could not be reached or is full: trying again may help."""
    HUNG = 6
    """Every engine of a server was told to stop and did not: only a new process helps."""


METRIC_SUCCESS = "nv_inference_request_success"
METRIC_FAILURE = "nv_inference_request_failure"
METRIC_COUNT = "nv_inference_count"
METRIC_EXEC_COUNT = "nv_inference_exec_count"
METRIC_REQUEST_DURATION_US = "nv_inference_request_duration_us"
METRIC_QUEUE_DURATION_US = "nv_inference_queue_duration_us"
METRIC_COMPUTE_INPUT_DURATION_US = "nv_inference_compute_input_duration_us"
METRIC_COMPUTE_INFER_DURATION_US = "nv_inference_compute_infer_duration_us"
METRIC_COMPUTE_OUTPUT_DURATION_US = "nv_inference_compute_output_duration_us"
METRIC_CACHE_HITS = "nv_cache_num_hits_per_model"
METRIC_CACHE_MISSES = "nv_cache_num_misses_per_model"
METRIC_CACHE_HIT_US = "nv_cache_hit_duration_per_model"
METRIC_CACHE_MISS_US = "nv_cache_miss_duration_per_model"
METRIC_PENDING = "nv_inference_pending_request_count"
