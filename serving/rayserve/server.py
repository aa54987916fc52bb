"""A Ray of one machine with Serve on it, for as long as this process lives.

Ray runs whatever is sent to it, so its own ports are on loopback alone and ask for a token that is drawn anew at each
start (ShadowRay, CVE-2023-48022, was a dashboard that asked for none). Ray takes no loopback address for a node of
Linux, which is right for clusters: it is given one here all the same.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import secrets
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from serving import settings
from serving.contract import DRAIN_TIMEOUT_S, Env, Exit
from serving.errors import ArtifactRefused, ServingError
from serving.http import listener
from serving.models import discovery, loading

_log = logging.getLogger(__name__)

_FOLDERS = Path("/tmp")
"""Not where the environment says: Ray's sockets are in it, whose paths have at most 107 characters."""
_PREFIX = "penstock-ray-"
_STORE_BYTES = 256 * 2**20
_KEPT = ("PATH", "HOME", "LANG", "TZ")
"""Of the environment; the rest is nothing for strangers' models."""
_LOOPBACK = "127.0.0.1"
_IDLE_S = 620
"""Longer than the idle timeout of any proxy in front, as in ``http.plane``."""
_LOOK_S = 0.5


@dataclasses.dataclass(frozen=True)
class Listen:
    """Where Serve's proxy listens; 0 takes a free port."""

    host: str
    http_port: int
    grpc_port: int


@dataclasses.dataclass(frozen=True)
class Served:
    """A model as Serve is to serve it."""

    path: Path
    name: str | None
    settings: settings.Document
    revision: str
    variant: str

    def arguments(self) -> dict[str, str]:
        """What ``application.build`` takes."""
        return dataclasses.asdict(self) | {"path": str(self.path.absolute()), "settings": json.dumps(self.settings)}


def serve(listen: Listen, served: Served) -> Exit:
    """Serves the model until told to end; first it says on standard output by which ports.

    ArtifactRefused when it cannot be served, PortInUse, and ServingError when a part of Ray ended by itself.
    """
    _try(served)
    listen = _free(listen)
    with _scratch() as folder:
        told = environment(listen.host, os.environ)
        os.environ.clear()
        os.environ.update(told)
        return _run(listen, served, folder)


def environment(host: str, own: Mapping[str, str]) -> dict[str, str]:
    """What Ray and everything it starts is told, with a new token."""
    return {name: own[name] for name in _KEPT if name in own} | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
        "RAY_enable_metrics_collection": "0",
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serving.rayserve.proxy.listen_where_told",
        Env.HOST: host,
    }


def _try(served: Served) -> None:
    """Loads and tries the one model as ``penstock serve`` does: what is bad is told before Ray is started."""
    models = discovery.discover([served.path], served.name)
    if len(models) != 1 or len(models[0].versions) != 1:
        raise ArtifactRefused(
            models[0].problem
            or f"{served.path} holds several models or versions, and a replica has one; name its folder"
        )
    (file,) = models[0].versions.values()
    loaded = loading.load(file, settings.of(file, served.settings))
    loaded.engine.close()
    _log.info("model %s: it %s", models[0].name, loaded.finding)


def _free(listen: Listen) -> Listen:
    """The same with a number for each port; PortInUse when one is taken, which Serve would say less clearly."""
    with contextlib.ExitStack() as held:
        http, grpc = (
            held.enter_context(listener.bound(listen.host, port, protocol=protocol)[0]).getsockname()[1]
            for protocol, port in (("HTTP", listen.http_port), ("gRPC", listen.grpc_port))
        )
    return Listen(listen.host, http, grpc)


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    """A folder for Ray's sockets and logs, which are open to everybody who gets there: that is nobody else.

    What servers left that were killed is removed first.
    """
    for left in _FOLDERS.glob(f"{_PREFIX}*"):
        owner = left.name.removeprefix(_PREFIX).partition("-")[0]
        if owner.isdecimal() and not _is_alive(int(owner)) and left.lstat().st_uid == os.getuid():
            _clear(left)
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=_FOLDERS))
    try:
        yield folder
    finally:
        _clear(folder)


def _clear(folder: Path) -> None:
    """Removes a folder, and processes of its Ray: an agent that is busy when its Ray ends stays, and keeps its port.

    They are known by their logs, which are open in the folder: their titles are written over command line and
    environment.
    """
    for process in Path("/proc").glob("[0-9]*"):
        if int(process.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):  # it has ended, or is somebody else's
            if any(os.readlink(file).startswith(f"{folder}/") for file in (process / "fd").iterdir()):
                os.kill(int(process.name), signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _run(listen: Listen, served: Served, folder: Path) -> Exit:
    import ray
    from ray import serve as ray_serve
    from ray._private import services, worker
    from ray.serve.config import HTTPOptions, ProxyLocation, gRPCOptions

    from serving.rayserve import application

    services.resolve_ip_for_localhost = lambda host: host
    ending = threading.Event()
    try:
        ray.init(
            address="local",
            num_cpus=1,
            object_store_memory=_STORE_BYTES,
            include_dashboard=False,
            logging_level=logging.WARNING,
            _node_ip_address=_LOOPBACK,
            _temp_dir=str(folder / "ray"),
        )
        ray_serve.start(
            ProxyLocation.HeadOnly,
            HTTPOptions(host=listen.host, port=listen.http_port, keep_alive_timeout_s=_IDLE_S),
            gRPCOptions(port=listen.grpc_port, grpc_servicer_functions=["serving.rayserve.proxy.add_methods"]),
            {"enable_access_log": False},
        )
        try:
            replica = ray_serve.run(application.build(served.arguments()), name="penstock")
        except RuntimeError as error:
            raise ServingError(f"Ray Serve could not start model {served.name}: {error}") from error
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, frame: ending.set())
        sys.stdout.write(json.dumps({"http_port": listen.http_port, "grpc_port": listen.grpc_port}) + "\n")
        sys.stdout.flush()
        while not ending.wait(_LOOK_S):
            node = worker.global_worker.node
            if dead := [("Ray", None)] if node is None else node.dead_processes():
                names = ", ".join(name for name, _ in dead)
                raise ServingError(
                    f"{names} of the Ray of model {served.name} ended unasked; it is to be started again"
                )
        with contextlib.suppress(Exception):  # it has ended, and has nothing to finish
            replica.leave.remote().result(timeout_s=DRAIN_TIMEOUT_S)
    finally:
        ray.shutdown()
    return Exit.OK
