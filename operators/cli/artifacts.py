"""Artifacts of this machine brought to where the pods of a cluster read them.

A store is a place that both can reach, such as ``s3://bucket/models``. What is put there is named by its digest:
``STORE/sha256-HEX/NAME`` for a file, ``STORE/sha256-HEX`` for a folder and its files below. So nothing that is there
is ever written over, what is there already is not sent again, and where it will be is known before it is sent.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import fsspec
from fsspec.callbacks import Callback

from operators.api.errors import OperatorError, Unreachable
from operators.cli import manifests
from operators.cli.manifests import Manifest
from serving import contract

SCHEMES = ("s3",)
"""Stores that the pods of this version read, and this machine writes."""
_EXTRAS = {"s3": "s3"}
_FILE = "file://"


class BadStore(OperatorError):
    """What was named cannot be a store; the message says what can."""


@dataclasses.dataclass(frozen=True)
class Upload:
    """A file or folder of this machine and the URI it has in a store."""

    path: pathlib.Path
    digest: str
    uri: str

    @property
    def files(self) -> dict[str, pathlib.Path]:
        """Each file of it by its URI in the store."""
        if self.path.is_file():
            return {self.uri: self.path}
        found = (path for path in sorted(self.path.rglob("*")) if path.is_file())
        return {f"{self.uri}/{path.relative_to(self.path).as_posix()}": path for path in found}


def relocated(manifest: Manifest, store: Callable[[], str | None]) -> tuple[Manifest, list[Upload]]:
    """``manifest`` with every file of this machine at its place in ``store``, and what has to be sent for that.

    ``store`` is asked only where there is something to send.

    Raises:
        BadStore: there is something to send, and no store that pods can read.
    """
    uploads: list[Upload] = []

    def moved(value: Any) -> Any:
        if isinstance(value, list):
            return [moved(item) for item in value]
        if not isinstance(value, dict):
            return value
        uri = value.get("uri")
        if not isinstance(uri, str) or not uri.startswith(_FILE):
            return {key: moved(item) for key, item in value.items()}
        upload = _upload(pathlib.Path(uri.removeprefix(_FILE)), value["digest"], _checked(store(), uri))
        uploads.append(upload)
        return value | {"uri": upload.uri}

    return dataclasses.replace(manifest, data=moved(manifest.data)), uploads


def _checked(store: str | None, uri: str) -> str:
    if store is None:
        raise BadStore(
            f"{uri} has to be uploaded, and no artifact store is set: name one that you can write and the pods can "
            "read with --store s3://BUCKET/PREFIX or PENSTOCK_STORE, or for everybody as `store` in the ConfigMap "
            "`penstock` of Penstock's namespace"
        )
    scheme, _, place = store.partition("://")
    if scheme not in SCHEMES or not place.strip("/"):
        known = " or ".join(f"{scheme}://BUCKET/PREFIX" for scheme in SCHEMES)
        raise BadStore(f"artifact store {store}: pods of this version read no such place; name {known}")
    return store.rstrip("/")


def _upload(path: pathlib.Path, digest: str, store: str) -> Upload:
    found = manifests.digest(path)
    if found != digest:
        raise BadStore(f"{path} has the digest {found}, its YAML says {digest}; leave digest out, or restore the file")
    place = contract.stored(store, digest)
    return Upload(path, digest, f"{place}/{path.name}" if path.is_file() else place)


Progress = Callable[[Upload, int], contextlib.AbstractContextManager[Callable[[int], None]]]
"""From what is sent and its bytes to a block that is told of each number of bytes that was sent."""


def send(upload: Upload, progress: Progress) -> int:
    """Send what is not there yet; how many bytes that was.

    Raises:
        BadStore: the store cannot be used from here.
        Unreachable: it does not answer, or does not let us write.
    """
    with _translated(upload.uri):
        filesystem, _ = fsspec.core.url_to_fs(upload.uri)
        there = _there(filesystem, upload)
        files = {uri: path for uri, path in upload.files.items() if there.get(uri) != path.stat().st_size}
        if strange := sorted(there.keys() - upload.files.keys()):
            raise BadStore(f"{strange[0]} does not belong to what its folder is named for; remove it and try again")
        total = sum(path.stat().st_size for path in files.values())
        if files:
            with progress(upload, total) as sent:
                for uri, path in files.items():
                    filesystem.put_file(str(path), uri, callback=_Told(sent))
        return total


def _there(filesystem: Any, upload: Upload) -> dict[str, int]:
    """Sizes of what the store holds at an upload's place, by URI."""
    root = filesystem._strip_protocol(upload.uri)
    scheme = upload.uri.partition("://")[0]
    try:
        found = filesystem.find(root, detail=True)
    except FileNotFoundError:
        return {}
    return {f"{scheme}://{path}": info["size"] for path, info in found.items()}


class _Told(Callback):  # type: ignore[misc]
    """Passes on what fsspec tells of its progress."""

    def __init__(self, sent: Callable[[int], None]) -> None:
        super().__init__()
        self._sent = sent

    def relative_update(self, inc: int = 1) -> None:
        self._sent(inc)


@contextlib.contextmanager
def _translated(uri: str) -> Iterator[None]:
    scheme = uri.partition("://")[0]
    try:
        yield
    except OperatorError:
        raise
    except ImportError as error:
        extra = _EXTRAS[scheme]
        raise BadStore(f"{uri} cannot be written from here: install penstock[{extra}] ({error})") from error
    except PermissionError as error:
        raise Unreachable(f"{uri} may not be written: {error}; see the credentials in your environment") from error
    except FileNotFoundError as error:
        raise Unreachable(f"{uri} cannot be written: {error}; make the bucket, or name another store") from error
    except Exception as error:  # the clients behind fsspec raise errors of their own
        raise Unreachable(
            f"{uri} could not be written: {type(error).__name__}: {error}; "
            "see store, network and the credentials in your environment, and try again"
        ) from error
