"""What `penstock apply` puts into a store is what `fetch` gets out of it."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
import s3fs

from operators.api.errors import Unreachable
from operators.cli import artifacts, manifests
from operators.cli.artifacts import BadStore, Upload
from serving.artifacts import store
from serving.contract import Exit
from serving.errors import StorageUnavailable
from tests.rig import binaries, s3

STORE = "s3://models/store"


@pytest.fixture
def server(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[s3.Server]:
    binary = binaries.built(binaries.S3_GATEWAY, os.environ, print)
    with s3.running(binary, tmp_path / "buckets") as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        yield running


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "model"
    (path / "sub dir").mkdir(parents=True)
    (path / "a.onnx").write_bytes(b"a" * 3)
    (path / "sub dir" / "big.bin").write_bytes(b"b" * 4)
    return path


def upload(path: pathlib.Path, store: str = STORE) -> Upload:
    digest = manifests.digest(path)
    place = f"{store}/{digest.replace(':', '-')}"
    return Upload(path, digest, f"{place}/{path.name}" if path.is_file() else place)


class Told:
    """Progress as it was told: for each block the bytes it began with, and those that were sent."""

    def __init__(self) -> None:
        self.blocks: list[tuple[int, int]] = []

    @contextlib.contextmanager
    def __call__(self, upload: Upload, total: int) -> Iterator[Callable[[int], None]]:
        sent: list[int] = []
        yield sent.append
        self.blocks.append((total, sum(sent)))


def fetched(made: Upload, to: pathlib.Path) -> int:
    command = [sys.executable, "-m", "serving", "fetch", "--uri", made.uri, "--digest", made.digest, "--to", str(to)]
    return subprocess.run(command, timeout=60).returncode


def test_a_file_and_a_folder_come_back_with_their_digests_and_are_sent_once(
    server: s3.Server, folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    with (folder / "sub dir" / "big.bin").open("ab") as big:
        big.truncate(120 << 20)  # from about 100 MB on it goes in parts
    for path, size in ((folder, 3 + (120 << 20)), (folder / "a.onnx", 3)):
        made, told = upload(path), Told()
        assert [artifacts.send(made, told), artifacts.send(made, told)] == [size, 0]
        assert told.blocks == [(size, size)]
        assert fetched(made, tmp_path / "to" / path.name) == Exit.OK


def test_what_broke_off_is_completed(server: s3.Server, folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    made = upload(folder)
    artifacts.send(made, Told())
    (place,) = (server.folder / "models" / "store").iterdir()
    (place / "a.onnx").unlink()

    assert artifacts.send(made, Told()) == 3
    assert fetched(made, tmp_path / "to") == Exit.OK


def test_a_file_that_does_not_belong_there_is_told(server: s3.Server, folder: pathlib.Path) -> None:
    made = upload(folder)
    artifacts.send(made, Told())
    (place,) = (server.folder / "models" / "store").iterdir()
    (place / "stray").write_bytes(b"x")

    with pytest.raises(BadStore) as refusal:
        artifacts.send(made, Told())
    assert (
        str(refusal.value)
        == f"{made.uri}/stray does not belong to what its folder is named for; remove it and try again"
    )


@pytest.mark.parametrize(
    ("changes", "store", "message"),
    [
        (
            {},
            "s3://none/store",
            "{uri} cannot be written: The specified bucket does not exist.; make the bucket, or name another store",
        ),
        (
            {"AWS_SECRET_ACCESS_KEY": "not-the-key"},
            STORE,
            "{uri} may not be written: The request signature we calculated does not match the signature you provided. "
            "Check your key and signing method.; see the credentials in your environment",
        ),
        (
            {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_EC2_METADATA_DISABLED": "true"},
            STORE,
            "{uri} could not be written: NoCredentialsError: Unable to locate credentials; "
            "see store, network and the credentials in your environment, and try again",
        ),
        (
            {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"},
            STORE,
            "{uri} could not be written: EndpointConnectionError: Could not connect to the endpoint URL: "
            '"http://127.0.0.1:1/models"; '
            "see store, network and the credentials in your environment, and try again",
        ),
    ],
    ids=["no bucket", "wrong key", "no key", "nobody answers"],
)
def test_a_store_that_cannot_be_written_is_told_in_a_line(
    server: s3.Server,
    folder: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, str],
    store: str,
    message: str,
) -> None:
    for name, value in changes.items():
        monkeypatch.setenv(name, value)
    made = upload(folder / "a.onnx", store)
    with pytest.raises(Unreachable) as refusal:
        artifacts.send(made, Told())
    assert re.sub(r"\?list-type=[^\"]*", "", str(refusal.value)) == message.format(uri=made.uri)


def test_a_builder_s_file_is_there_whole_or_not_at_all(server: s3.Server, tmp_path: pathlib.Path) -> None:
    model, uri = tmp_path / "model.onnx", f"{STORE}/sha256-0/model.onnx"
    with model.open("wb") as large:
        large.truncate(120 << 20)  # in parts
    put = f"from pathlib import Path; from serving.artifacts import store; store.put(Path({str(model)!r}), {uri!r})"
    there = server.folder / "models" / "store" / "sha256-0" / "model.onnx"
    sending = subprocess.Popen([sys.executable, "-c", f"print(flush=True); {put}"], stdout=subprocess.PIPE)
    assert sending.stdout is not None
    sending.stdout.readline()
    with contextlib.suppress(subprocess.TimeoutExpired):
        sending.wait(1.0)  # wherever it is by then
    sending.kill()
    sending.wait()
    sending.stdout.close()
    assert not there.exists() or there.stat().st_size == model.stat().st_size

    store.put(model, uri)
    assert there.stat().st_size == model.stat().st_size
    written = there.stat()
    assert not store.put(model, uri)
    assert there.stat() == written
    model.write_bytes(b"another size")
    assert store.put(model, uri)
    assert there.read_bytes() == b"another size"


def test_a_builder_without_keys_is_told_which_secret_to_give(
    server: s3.Server, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").touch()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-key")
    s3fs.S3FileSystem.clear_instance_cache()
    uri = f"{STORE}/a"
    with pytest.raises(StorageUnavailable) as refusal:
        store.put(tmp_path / "a", uri)
    assert str(refusal.value).startswith(f"{uri} may not be written: ")
    assert str(refusal.value).endswith("in a cluster by the Secret penstock-storage of the Model's namespace")
