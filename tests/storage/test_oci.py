"""Artifacts out of a real OCI registry."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

from serving.contract import Exit
from tests.rig import binaries, registry
from tests.rig.registry import Registry

A, B = b"a" * 3, b"b" * (3 << 20)


@pytest.fixture
def server(tmp_path: pathlib.Path) -> Iterator[Registry]:
    binary = binaries.built(binaries.REGISTRY, os.environ, print)
    with registry.running(binary, tmp_path / "registry") as running:
        yield running


@pytest.fixture
def closed(tmp_path: pathlib.Path) -> Iterator[Registry]:
    binary = binaries.built(binaries.REGISTRY, os.environ, print)
    with registry.running(binary, tmp_path / "closed", closed=True) as running:
        yield running


def fetch(tmp_path: pathlib.Path, uri: str, *arguments: str, **environment: str) -> tuple[int, str, str]:
    """Exit code, output, and the error without its log lines."""
    command = [sys.executable, "-m", "serving", "fetch", "--uri", uri, "--to", str(tmp_path / "to"), *arguments]
    environ = {**os.environ, "DOCKER_CONFIG": str(tmp_path / "docker"), **environment}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


def refused(tmp_path: pathlib.Path, uri: str, *arguments: str, code: Exit = Exit.REFUSED) -> str:
    """Why a fetch is refused, which leaves nothing."""
    found, _, error = fetch(tmp_path, uri, *arguments)
    assert (found, error[:7]) == (code, "error: "), error
    assert tree(tmp_path / "to") == {}
    return error.removeprefix("error: ").rstrip("\n")


def log_in(tmp_path: pathlib.Path, host: str, password: str) -> None:
    pair = base64.b64encode(f"{registry.USER}:{password}".encode()).decode()
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker" / "config.json").write_text(json.dumps({"auths": {host: {"auth": pair}}}))


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def tree(folder: pathlib.Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_artifact_of_one_file_is_that_file(server: Registry, tmp_path: pathlib.Path) -> None:
    server.push("models/digits", "v1", {"model.onnx": B})
    code, out, error = fetch(tmp_path, f"oci://{server.host}/models/digits:v1", "--digest", f"sha256:{sha256(B)}")
    assert code == Exit.OK, error
    assert json.loads(out)["digest"] == f"sha256:{sha256(B)}"
    assert tree(tmp_path / "to") == {"model.onnx": B}


def test_an_artifact_of_several_files_is_a_folder(server: Registry, tmp_path: pathlib.Path) -> None:
    manifest = server.push("models/digits", "v1", {"a.onnx": A, "sub/b.bin": B})
    lines = "".join(sorted([f"{sha256(A)}  a.onnx\n", f"{sha256(B)}  sub/b.bin\n"]))
    digest = f"sha256:{sha256(lines.encode())}"
    code, out, error = fetch(tmp_path, f"oci://{server.host}/models/digits@{manifest}", "--digest", digest)
    assert code == Exit.OK, error
    assert json.loads(out)["digest"] == digest
    assert tree(tmp_path / "to") == {"a.onnx": A, "sub/b.bin": B}


def test_another_content_than_the_pinned_one_is_refused(server: Registry, tmp_path: pathlib.Path) -> None:
    server.push("digits", "latest", {"model.onnx": A})
    uri, other = f"oci://{server.host}/digits", f"sha256:{sha256(B)}"
    assert refused(tmp_path, uri, "--digest", other) == (
        f"{uri} has the digest sha256:{sha256(A)}, expected {other}; "
        "pin the digest of what is there, or restore the file"
    )


def test_what_is_not_there_is_refused(server: Registry, tmp_path: pathlib.Path) -> None:
    server.push("digits", "v1", {"model.onnx": A})
    for uri in (
        f"oci://{server.host}/digits:v2",
        f"oci://{server.host}/none",
        f"oci://{server.host}/digits@sha256:{sha256(A)}",
    ):
        assert refused(tmp_path, uri) == f"{uri} does not exist; check the URI"


def test_a_registry_with_a_login_is_read_with_the_right_password_alone(
    closed: Registry, tmp_path: pathlib.Path
) -> None:
    closed.push("digits", "v1", {"model.onnx": A})
    uri = f"oci://{closed.host}/digits:v1"
    log_in_by = (
        f"log in to {closed.host}, in a cluster by a Secret: "
        f"kubectl create secret docker-registry penstock-registry --docker-server={closed.host} …"
    )
    assert refused(tmp_path, uri, code=Exit.UNAVAILABLE) == (
        f"{uri} may not be read: the registry wants credentials and none are set; {log_in_by}"
    )
    log_in(tmp_path, closed.host, "not-the-password")
    why = refused(tmp_path, uri, code=Exit.UNAVAILABLE)
    assert why == f"{uri} may not be read: HTTP 401: authentication required; {log_in_by}"
    (tmp_path / "docker" / "config.json").unlink()
    (tmp_path / "docker").rmdir()
    log_in(tmp_path, closed.host, registry.PASSWORD)
    assert fetch(tmp_path, uri)[0] == Exit.OK
    assert tree(tmp_path / "to") == {"model.onnx": A}


@pytest.mark.parametrize("title", ["../model.onnx", "/etc/model.onnx", "a/../../b", "a\\b"])
def test_a_title_that_leads_out_of_the_folder_is_refused(server: Registry, tmp_path: pathlib.Path, title: str) -> None:
    server.push("digits", "v1", {title: A, "other": B})
    uri = f"oci://{server.host}/digits:v1"
    assert refused(tmp_path, uri) == f"{uri} holds a file called '{title}'; push it from the folder it is in"


def test_an_archive_is_refused_and_it_is_said_what_to_push(server: Registry, tmp_path: pathlib.Path) -> None:
    uri, unpack = f"oci://{server.host}/digits:v1", {"io.deis.oras.content.unpack": "true"}
    for layer, what in (
        (server.layer("digits", None, A), f"a layer without a title, as in a container image, ({registry.LAYER})"),
        (server.layer("digits", "m", A, registry.LAYER + "+gzip"), f"an archive ({registry.LAYER}+gzip)"),
        (server.layer("digits", "m", A, **unpack), f"an archive ({registry.LAYER})"),
    ):
        server.push_layers("digits", "v1", [layer])
        assert refused(tmp_path, uri) == (
            f"{uri} holds {what}, and nothing is unpacked; push the files themselves: "
            f"oras push {server.host}/digits:TAG FILE…"
        )


def test_a_file_that_is_not_what_its_manifest_promises_is_refused(server: Registry, tmp_path: pathlib.Path) -> None:
    server.push("digits", "v1", {"model.onnx": B})
    uri, blob = f"oci://{server.host}/digits:v1", server.blob(f"sha256:{sha256(B)}")
    damages = {
        f"ended after {len(A)} of {len(B)} bytes; try again, or push it again": (A, Exit.UNAVAILABLE),
        f"has more than the {len(B)} bytes of its manifest": (B + A, Exit.REFUSED),
        "is not what its manifest promises; push it again": (B[:-3] + A, Exit.REFUSED),
    }
    for why, (damaged, code) in damages.items():
        blob.write_bytes(damaged)
        assert refused(tmp_path, uri, code=code) == f"{uri}: model.onnx {why}"
