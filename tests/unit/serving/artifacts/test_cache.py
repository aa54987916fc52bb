"""A node's cache: it gives what has the digest, takes nothing else, and is needed by nobody."""

import hashlib
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from serving.artifacts import storage
from serving.artifacts.cache import Full, Objects
from serving.artifacts.cached import Cache
from serving.artifacts.storage import Access
from tests.rig import ports
from tests.rig.model_server import until

A, B = b"a" * 3, b"b" * (3 << 20)
MAX_BYTES = 8 << 20


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def no_larger_file_than_a_megabyte() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))


class Node:
    """A cache as its own process, and the folder it keeps things in."""

    def __init__(self, folder: Path, prepare: Callable[[], None] | None = None) -> None:
        (port,) = ports.free(1)
        self.folder, self.url = folder, f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "serving", "cache", "--dir", str(folder), "--max-bytes", str(MAX_BYTES)]
        self.process = subprocess.Popen([*command, "--port", str(port)], preexec_fn=prepare)
        until(self._answers, "the cache answers")

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/healthz").status_code == 200
        except httpx.ConnectError:
            return False

    def put(self, data: bytes, name: str | None = None) -> int:
        return httpx.put(f"{self.url}/v1/{name or f'sha256-{sha256(data)}'}", content=data).status_code

    def get(self, data: bytes) -> bytes | None:
        answer = httpx.get(f"{self.url}/v1/sha256-{sha256(data)}")
        return answer.content if answer.status_code == 200 else None

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(60)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path / "cache")
    yield made
    made.end()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "folder"
    (path / "sub").mkdir(parents=True)
    (path / "a.onnx").write_bytes(A)
    (path / "sub" / "b.bin").write_bytes(B)
    return path


def gone(path: Path) -> None:
    path.rename(path.with_name("gone"))


def test_content_is_given_back_by_its_digest_and_by_no_other_name(node: Node) -> None:
    assert (node.get(A), node.put(A), node.get(A)) == (None, 201, A)
    head = httpx.head(f"{node.url}/v1/sha256-{sha256(A)}")
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(A)))
    for name in ("", "..%2f..%2fetc%2fpasswd", "sha256-0", f"sha256-{sha256(A).upper()}"):
        assert httpx.get(f"{node.url}/v1/{name}").status_code == 404
    assert httpx.delete(f"{node.url}/v1/sha256-{sha256(A)}").status_code == 405


def test_what_is_not_what_its_name_says_is_never_stored(node: Node) -> None:
    assert node.put(B, f"sha256-{sha256(A)}") == 422
    assert tree(node.folder) == {}


def test_a_writer_that_breaks_off_leaves_nothing(node: Node) -> None:
    with socket.create_connection(("127.0.0.1", int(node.url.rpartition(":")[2]))) as connection:
        connection.sendall(
            f"PUT /v1/sha256-{sha256(B)} HTTP/1.1\r\nHost: h\r\nContent-Length: {len(B)}\r\n\r\nbbb".encode()
        )
        until(lambda: len(tree(node.folder)) == 1, "the content is being received")
    until(lambda: tree(node.folder) == {}, "nothing is left")
    assert node.put(B) == 201


def test_what_was_used_longest_ago_goes_first(node: Node) -> None:
    first, second, third = (bytes([n]) * (3 << 20) for n in range(3))
    assert [node.put(first), node.put(second)] == [201, 201]
    assert node.get(first) == first
    assert node.put(third) == 201
    assert (node.get(second), node.get(first), node.get(third)) == (None, first, third)
    assert set(tree(node.folder)) == {f"sha256-{sha256(first)}", f"sha256-{sha256(third)}"}


def test_more_than_there_may_be_is_refused_and_costs_nobody_a_place(node: Node) -> None:
    assert (node.put(A), node.put(bytes(MAX_BYTES + 1)), node.get(A)) == (201, 507, A)


def test_many_writers_at_once_never_hold_more_than_there_may_be(tmp_path: Path) -> None:
    objects = Objects.open(tmp_path / "cache", 10)
    with objects.place(6), pytest.raises(Full), objects.place(6):
        pass
    with objects.place(6), objects.place(4):
        pass
    assert tree(tmp_path / "cache") == {}


def test_writers_of_the_same_content_and_its_readers_do_not_meet(node: Node) -> None:
    data = B[: 512 << 10]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: node.put(data) if n % 2 else node.get(data), range(32)))
    assert set(found) <= {201, None, data}
    assert tree(node.folder) == {f"sha256-{sha256(data)}": data}


def test_a_cache_goes_on_with_what_an_earlier_one_left(tmp_path: Path) -> None:
    first = Node(tmp_path / "cache")
    first.put(A)
    first.process.send_signal(signal.SIGKILL)
    first.process.wait(60)
    (tmp_path / "cache" / ".put-abandoned").write_bytes(B)
    second = Node(tmp_path / "cache")
    try:
        assert second.get(A) == A
        assert set(tree(tmp_path / "cache")) == {f"sha256-{sha256(A)}"}
    finally:
        second.end()


def test_a_disk_that_is_full_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    node = Node(tmp_path / "cache", no_larger_file_than_a_megabyte)
    try:
        assert (node.put(B), node.put(A), node.get(A)) == (507, 201, A)
        assert set(tree(node.folder)) == {f"sha256-{sha256(A)}"}
    finally:
        node.end()


def test_a_folder_is_fetched_from_the_cache_when_its_source_is_gone(node: Node, folder: Path, tmp_path: Path) -> None:
    access = Access(cache=Cache(node.url))
    first = storage.fetch(str(folder), None, to=tmp_path / "first", access=access)
    gone(folder)
    second = storage.fetch(str(folder), first.digest, to=tmp_path / "second", access=access)
    assert (second.digest, second.bytes, second.files) == (first.digest, first.bytes, 2)
    assert tree(tmp_path / "second") == {"a.onnx": A, "sub/b.bin": B}


def test_a_file_keeps_its_name(node: Node, folder: Path, tmp_path: Path) -> None:
    access = Access(cache=Cache(node.url))
    first = storage.fetch(str(folder / "a.onnx"), None, store=tmp_path / "first", access=access)
    gone(folder)
    second = storage.fetch(f"file://{folder}/a.onnx", first.digest, store=tmp_path / "second", access=access)
    assert tree(second.path) == {"a.onnx": A}


def test_what_is_damaged_in_the_cache_is_not_used_and_is_put_right(node: Node, folder: Path, tmp_path: Path) -> None:
    access = Access(cache=Cache(node.url))
    digest = storage.fetch(str(folder), None, to=tmp_path / "first", access=access).digest
    kept = node.folder / f"sha256-{sha256(B)}"
    kept.write_bytes(A)
    storage.fetch(str(folder), digest, to=tmp_path / "second", access=access)
    assert tree(tmp_path / "second") == {"a.onnx": A, "sub/b.bin": B}
    assert kept.read_bytes() == B


def test_a_list_that_leads_out_of_the_folder_is_no_folder(node: Node, tmp_path: Path) -> None:
    listing = f"{sha256(A)}  ../a.onnx\n".encode()
    assert [node.put(A), node.put(listing)] == [201, 201]
    (tmp_path / "list").write_bytes(listing)
    access = Access(cache=Cache(node.url))
    storage.fetch(str(tmp_path / "list"), f"sha256:{sha256(listing)}", to=tmp_path / "to", access=access)
    assert tree(tmp_path / "to") == {"list": listing}


@pytest.mark.parametrize("trouble", ["nobody listens", "nobody answers", "nonsense"])
def test_a_cache_in_trouble_is_logged_and_the_source_is_asked(
    folder: Path, tmp_path: Path, trouble: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.artifacts.cached._TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1] if trouble != 'nobody listens' else ports.free(1)[0]}"
        if trouble == "nonsense":
            threading.Thread(target=_talk_nonsense, args=(server,), daemon=True).start()
        digest = storage.fetch(str(folder), None, to=tmp_path / "known").digest
        storage.fetch(str(folder), digest, to=tmp_path / "to", access=Access(cache=Cache(url)))
    assert tree(tmp_path / "to") == {"a.onnx": A, "sub/b.bin": B}
    assert [r.message.partition(": ")[0] for r in caplog.records] == [
        f"cache {url} does not give {digest}",
        f"cache {url} does not take it",
    ]


def _talk_nonsense(server: socket.socket) -> None:
    for _ in range(2):
        connection, _ = server.accept()
        with connection:
            connection.recv(100)
            connection.sendall(b"nonsense\r\n\r\n")
