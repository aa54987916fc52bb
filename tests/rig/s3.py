"""A real S3 server on loopback: buckets are folders, objects are files."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import pathlib
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping

from tests.rig import ports

DEADLINE_S = 60.0
_ACCESS, _SECRET, _REGION = "rig-access", "rig-secret", "us-east-1"


@dataclasses.dataclass(frozen=True)
class Server:
    """``folder`` holds a folder for each bucket; writing a file there puts an object."""

    folder: pathlib.Path
    port: int

    @property
    def environment(self) -> Mapping[str, str]:
        """What any S3 client needs to reach it."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": _ACCESS,
            "AWS_SECRET_ACCESS_KEY": _SECRET,
            "AWS_DEFAULT_REGION": _REGION,
        }


@contextlib.contextmanager
def running(binary: pathlib.Path, folder: pathlib.Path) -> Iterator[Server]:
    """The server with an empty bucket ``models``, until the block ends."""
    (folder / "models").mkdir(parents=True)
    # Uploads in parts need metadata, and not every file system keeps it with its files.
    metadata = folder.with_name(f"metadata-of-{folder.name}")
    metadata.mkdir()
    (port,) = ports.free(1)
    server = Server(folder, port)
    command = [str(binary), "--quiet", "--access", _ACCESS, "--secret", _SECRET, "--region", _REGION]
    command += ["--port", f"127.0.0.1:{server.port}", "posix", "--sidecar", str(metadata), str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait(process, server.port)
        yield server
    finally:
        process.terminate()
        process.wait(DEADLINE_S)


def _wait(process: subprocess.Popen[bytes], port: int) -> None:
    end, pause = time.monotonic() + DEADLINE_S, threading.Event()
    while True:
        assert process.poll() is None, f"the S3 server ended with {process.returncode}"
        with contextlib.suppress(OSError), contextlib.closing(http.client.HTTPConnection("127.0.0.1", port)) as client:
            client.request("GET", "/")
            client.getresponse()
            return
        assert time.monotonic() < end, f"the S3 server does not answer on port {port}"
        pause.wait(0.05)
