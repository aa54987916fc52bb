import errno
import hashlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import fsspec
import pytest

from serving.artifacts import storage
from serving.artifacts.storage import Fetched
from serving.errors import ArtifactRefused, StorageUnavailable
from tests.rig.model_server import until

A, B = b"a" * 3, b"b" * (3 << 20)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


FOLDER_DIGEST = "sha256:" + sha256("".join(sorted([f"{sha256(A)}  a.onnx\n", f"{sha256(B)}  sub/b.bin\n"])).encode())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "source" / "model.onnx"
    path.parent.mkdir()
    path.write_bytes(A)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "folder"
    (path / "sub").mkdir(parents=True)
    (path / "a.onnx").write_bytes(A)
    (path / "sub" / "b.bin").write_bytes(B)
    return path


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_file_is_copied_into_a_folder_with_the_digest_of_its_bytes(file: Path, tmp_path: Path) -> None:
    to = tmp_path / "to"

    fetched = storage.fetch(str(file), None, to=to)

    assert fetched == Fetched(f"sha256:{sha256(A)}", to, 3, 1)
    assert tree(to) == {"model.onnx": A}


def test_a_folder_is_copied_with_the_digest_that_sha256sum_lets_anybody_check(folder: Path, tmp_path: Path) -> None:
    to = tmp_path / "to"

    fetched = storage.fetch(f"file://{folder}", FOLDER_DIGEST, to=to)

    assert fetched == Fetched(FOLDER_DIGEST, to, 3 + len(B), 2)
    assert tree(to) == {"a.onnx": A, "sub/b.bin": B}
    lines = subprocess.run(["sha256sum", "a.onnx", "sub/b.bin"], cwd=to, capture_output=True, text=True, check=True)
    assert "sha256:" + sha256("".join(sorted(lines.stdout.splitlines(True))).encode()) == FOLDER_DIGEST


def test_a_fetch_can_be_repeated_into_the_same_folder(file: Path, tmp_path: Path) -> None:
    to = tmp_path / "to"
    storage.fetch(str(file), None, to=to)
    file.write_bytes(B)

    storage.fetch(str(file), None, to=to)

    assert tree(to) == {"model.onnx": B}


def test_a_folder_with_other_things_in_it_is_not_touched(file: Path, tmp_path: Path) -> None:
    to = tmp_path / "to"
    to.mkdir()
    (to / "letter.txt").write_bytes(b"dear")

    with pytest.raises(ArtifactRefused) as refused:
        storage.fetch(str(file), None, to=to)

    assert str(refused.value) == f"{to} already holds letter.txt; give a new or an empty folder to copy into"
    assert tree(to) == {"letter.txt": b"dear"}


def test_a_store_keeps_content_by_its_digest_and_does_not_copy_it_twice(file: Path, tmp_path: Path) -> None:
    store, digest = tmp_path / "store", sha256(A)

    first = storage.fetch(str(file), None, store=store)
    file.unlink()
    second = storage.fetch(str(file), f"sha256:{digest}", store=store)

    assert first == second == Fetched(f"sha256:{digest}", store / f"sha256-{digest}", 3, 1)
    assert tree(store) == {f"sha256-{digest}/model.onnx": A}


def test_content_of_a_store_that_has_changed_is_copied_again(folder: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    fetched = storage.fetch(str(folder), FOLDER_DIGEST, store=store)
    (fetched.path / "a.onnx").write_bytes(b"x")

    assert storage.fetch(str(folder), FOLDER_DIGEST, store=store) == fetched
    assert tree(fetched.path) == {"a.onnx": A, "sub/b.bin": B}


def test_a_wrong_digest_is_refused_with_both_and_leaves_nothing(file: Path, tmp_path: Path) -> None:
    wanted = "sha256:" + "0" * 64

    places: tuple[dict[str, Any], ...] = ({"to": tmp_path / "place"}, {"store": tmp_path / "place"})
    for place in places:
        with pytest.raises(ArtifactRefused) as refused:
            storage.fetch(str(file), wanted, **place)
        assert str(refused.value) == (
            f"{file} has the digest sha256:{sha256(A)}, expected {wanted}; "
            "pin the digest of what is there, or restore the file"
        )
        assert list((tmp_path / "place").iterdir()) == []


def test_a_digest_that_is_none_is_refused(file: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactRefused) as refused:
        storage.fetch(str(file), "md5:abc", to=tmp_path / "to")

    assert str(refused.value) == "the digest 'md5:abc' is none; expected sha256: and 64 lower-case hex digits"


@pytest.mark.parametrize("kind", ["link", "hard link", "folder link", "pipe"])
def test_a_folder_with_anything_but_plain_files_is_refused_and_leaves_nothing(
    folder: Path, file: Path, tmp_path: Path, kind: str
) -> None:
    odd = folder / "odd"
    {
        "link": lambda: odd.symlink_to(file),
        "hard link": lambda: os.link(file, odd),
        "folder link": lambda: odd.symlink_to(file.parent),
        "pipe": lambda: os.mkfifo(odd),
    }[kind]()
    what = {"hard link": "a hard link", "pipe": "no regular file"}.get(kind, "a symbolic link")

    with pytest.raises(ArtifactRefused) as refused:
        storage.fetch(str(folder), None, store=tmp_path / "store")

    assert str(refused.value) == f"{odd} is {what}; put a copy of the file in its place"
    assert list((tmp_path / "store").iterdir()) == []


@pytest.mark.parametrize(
    ("uri", "what"),
    [("{}/absent.onnx", "does not exist"), ("file://{}/absent", "does not exist"), ("{}/empty", "holds no file")],
)
def test_what_is_not_there_is_refused(tmp_path: Path, uri: str, what: str) -> None:
    (tmp_path / "empty").mkdir()
    uri = uri.format(tmp_path)

    with pytest.raises(ArtifactRefused) as refused:
        storage.fetch(uri, None, to=tmp_path / "to")

    assert str(refused.value) == f"{uri} {what}; check the URI"


def test_a_scheme_nobody_knows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactRefused, match=r"^nope://x cannot be read here \(Protocol not known: nope\)"):
        storage.fetch("nope://x", None, to=tmp_path / "to")


def test_a_process_out_of_disk_says_so_and_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    """The limit on a file's size stands for a full disk, which an ordinary user cannot make."""
    code = (
        "import resource, signal, sys\n"
        "from serving import cli\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        "sys.exit(cli.main(sys.argv[1:], {}))\n"
    )
    store = tmp_path / "store"

    ended = subprocess.run(
        [sys.executable, "-c", code, "fetch", "--uri", str(folder), "--store", str(store)],
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert (ended.returncode, ended.stderr) == (
        5,
        f"error: {folder} could not be copied: {os.strerror(errno.EFBIG)}; check storage and access and try again\n",
    )
    assert list(store.iterdir()) == []


class Files(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


class Breaking(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000000")
        self.end_headers()
        self.wfile.write(b"x" * 1000)

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000000")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@pytest.fixture
def web(request: pytest.FixtureRequest, folder: Path) -> Iterator[str]:
    handler: Any = request.param
    if handler is Files:
        server = HTTPServer(("127.0.0.1", 0), lambda *a, **k: Files(*a, directory=str(folder), **k))
    else:
        server = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("web", [Files], indirect=True)
def test_a_file_is_fetched_over_http(web: str, tmp_path: Path) -> None:
    fetched = storage.fetch(f"{web}/a.onnx?version=1", f"sha256:{sha256(A)}", to=tmp_path / "to")

    assert fetched == Fetched(f"sha256:{sha256(A)}", tmp_path / "to", 3, 1)
    assert tree(tmp_path / "to") == {"a.onnx": A}


@pytest.mark.parametrize("web", [Breaking], indirect=True)
def test_a_download_that_breaks_off_leaves_nothing_and_may_be_tried_again(web: str, tmp_path: Path) -> None:
    with pytest.raises(StorageUnavailable, match=r"could not be copied: .* try again$"):
        storage.fetch(f"{web}/model.onnx", None, store=tmp_path / "store")

    assert list((tmp_path / "store").iterdir()) == []


class Failing(Breaking):
    def do_GET(self) -> None:
        self.send_error(503)

    def do_HEAD(self) -> None:
        self.send_error(503)


@pytest.mark.parametrize("web", [Failing], indirect=True)
def test_a_storage_that_answers_with_an_error_of_its_own_is_unavailable(web: str, tmp_path: Path) -> None:
    with pytest.raises(StorageUnavailable):
        storage.fetch(f"{web}/model.onnx", None, to=tmp_path / "to")


@pytest.mark.parametrize("web", [Files], indirect=True)
def test_a_file_that_a_web_server_does_not_have_is_refused(web: str, tmp_path: Path) -> None:
    with pytest.raises(ArtifactRefused) as refused:
        storage.fetch(f"{web}/absent.onnx", None, to=tmp_path / "to")

    assert str(refused.value) == f"{web}/absent.onnx does not exist; check the URI"


def test_a_storage_that_does_not_answer_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(StorageUnavailable):
        storage.fetch("http://127.0.0.1:1/model.onnx", None, to=tmp_path / "to")

    assert list((tmp_path / "to").iterdir()) == []


def test_any_file_system_of_fsspec_is_read(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe({"/models/digits/a.onnx": A, "/models/digits/sub/b.bin": B})

    assert storage.fetch("memory://models/digits", FOLDER_DIGEST, to=tmp_path / "to").files == 2
    assert tree(tmp_path / "to") == {"a.onnx": A, "sub/b.bin": B}


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_fetch_that_is_ended_leaves_nothing_or_the_next_one_removes_it(tmp_path: Path, end: signal.Signals) -> None:
    pipe, store = tmp_path / "pipe", tmp_path / "store"
    os.mkfifo(pipe)
    file = tmp_path / "model.onnx"
    file.write_bytes(A)
    code = (
        "import sys; from serving.artifacts import storage\n"
        "storage._copy = lambda uri, folder, access: ((folder / 'part').write_bytes(b'x'), open(uri).read())\n"
        "storage.fetch(sys.argv[1], None, store=storage.Path(sys.argv[2]))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(pipe), str(store)], stderr=subprocess.DEVNULL)
    until(lambda: bool(list(store.glob(".fetch-*/part"))), "the copy has begun")
    process.send_signal(end)
    process.wait(60)

    if end is signal.SIGTERM:
        assert list(store.iterdir()) == []
    storage.fetch(str(file), None, store=store)
    assert tree(store) == {f"sha256-{sha256(A)}/model.onnx": A}


def test_a_fetch_leaves_the_temporary_folder_of_another_that_runs(file: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()

    with storage._temporary(store) as busy:
        storage.fetch(str(file), None, store=store)
        assert busy.is_dir()

    assert [path.name for path in store.iterdir()] == [f"sha256-{sha256(A)}"]
