"""A real S3 server: buckets are folders, objects are files."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import pathlib
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence

from tests.rig import ports

DEADLINE_S = 60.0
_ACCESS, _SECRET, _REGION = "rig-access", "rig-secret", "us-east-1"


@dataclasses.dataclass(frozen=True)
class Server:
    """``folder`` holds a folder for each bucket; writing a file there puts an object."""

    folder: pathlib.Path
    host: str
    """ADDRESS:PORT."""

    @property
    def environment(self) -> Mapping[str, str]:
        """What any S3 client needs to reach it."""
        return {
            "AWS_ENDPOINT_URL": f"http://{self.host}",
            "AWS_ACCESS_KEY_ID": _ACCESS,
            "AWS_SECRET_ACCESS_KEY": _SECRET,
            "AWS_DEFAULT_REGION": _REGION,
        }


def prepare(binary: pathlib.Path, server: Server) -> list[str]:
    """The command line that runs it, with an empty bucket ``models``."""
    (server.folder / "models").mkdir(parents=True)
    # Uploads in parts need metadata, and not every file system keeps it with its files.
    metadata = server.folder.with_name(f"metadata-of-{server.folder.name}")
    metadata.mkdir()
    keys = ["--access", _ACCESS, "--secret", _SECRET, "--region", _REGION]
    return [
        str(binary),
        "--quiet",
        *keys,
        "--port",
        server.host,
        "posix",
        "--sidecar",
        str(metadata),
        str(server.folder),
    ]


@contextlib.contextmanager
def running(
    binary: pathlib.Path, folder: pathlib.Path, address: str = "127.0.0.1", within: Sequence[str] = ()
) -> Iterator[Server]:
    """The server until the block ends; ``within`` begins its command line."""
    (port,) = ports.free(1)
    server = Server(folder, f"{address}:{port}")
    process = subprocess.Popen(
        [*within, *prepare(binary, server)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _wait(process, server.host)
        yield server
    finally:
        process.terminate()
        process.wait(DEADLINE_S)


def _wait(process: subprocess.Popen[bytes], host: str) -> None:
    end, pause = time.monotonic() + DEADLINE_S, threading.Event()
    while True:
        assert process.poll() is None, f"the S3 server ended with {process.returncode}"
        with contextlib.suppress(OSError), contextlib.closing(http.client.HTTPConnection(host)) as client:
            client.request("GET", "/")
            client.getresponse()
            return
        assert time.monotonic() < end, f"the S3 server does not answer at {host}"
        pause.wait(0.05)
