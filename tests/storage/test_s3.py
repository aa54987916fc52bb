"""Artifacts out of a real S3 server."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest
import yaml

from serving.contract import Exit
from tests.rig import binaries, local_mode, s3

DIGITS = pathlib.Path(__file__).parents[2] / "examples" / "digits"


@pytest.fixture
def server(tmp_path: pathlib.Path) -> Iterator[s3.Server]:
    binary = binaries.built(binaries.S3_GATEWAY, os.environ, print)
    with s3.running(binary, tmp_path / "buckets") as running:
        (running.folder / "models" / "digits").mkdir()
        shutil.copy(DIGITS / "model.onnx", running.folder / "models" / "digits" / "model.onnx")
        shutil.copy(DIGITS / "README.md", running.folder / "models" / "digits" / "README.md")
        yield running


def fetch(server: s3.Server, *arguments: str, **environment: str) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "serving", "fetch", *arguments]
    environ = {**os.environ, **server.environment, **environment}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


def sha256(path: pathlib.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_an_object_is_fetched_with_its_digest(server: s3.Server, tmp_path: pathlib.Path) -> None:
    digest = f"sha256:{sha256(DIGITS / 'model.onnx')}"
    uri = "s3://models/digits/model.onnx"
    code, out, error = fetch(server, "--uri", uri, "--digest", digest, "--to", str(tmp_path / "to"))
    assert code == Exit.OK, error
    assert json.loads(out)["digest"] == digest
    assert sha256(tmp_path / "to" / "model.onnx") == digest.removeprefix("sha256:")


def test_a_prefix_is_fetched_as_a_folder(server: s3.Server, tmp_path: pathlib.Path) -> None:
    code, out, error = fetch(server, "--uri", "s3://models/digits", "--to", str(tmp_path / "to"))
    assert code == Exit.OK, error
    lines = "".join(sorted(f"{sha256(DIGITS / name)}  {name}\n" for name in ("README.md", "model.onnx")))
    assert json.loads(out)["digest"] == f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"
    assert sorted(path.name for path in (tmp_path / "to").iterdir()) == ["README.md", "model.onnx"]


def test_a_missing_object_is_refused_and_names_it(server: s3.Server, tmp_path: pathlib.Path) -> None:
    code, _, error = fetch(server, "--uri", "s3://models/nothing.onnx", "--to", str(tmp_path / "to"))
    assert code == Exit.REFUSED
    assert "s3://models/nothing.onnx" in error


def test_a_wrong_key_is_told_without_showing_any_key(server: s3.Server, tmp_path: pathlib.Path) -> None:
    uri = "s3://models/digits/model.onnx"
    code, _, error = fetch(server, "--uri", uri, "--to", str(tmp_path / "to"), AWS_SECRET_ACCESS_KEY="not-the-key")
    assert code == Exit.UNAVAILABLE, error
    assert uri in error
    assert "not-the-key" not in error
    assert "Traceback" not in error


def test_a_source_without_digest_stays_what_it_was_when_it_was_first_seen(
    server: s3.Server, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    model = yaml.safe_load((DIGITS / "plain.yaml").read_text())
    model["spec"]["source"] = {"uri": "s3://models/digits/model.onnx"}
    file = tmp_path / "model.yaml"
    file.write_text(yaml.safe_dump(model))
    with local_mode.running(tmp_path) as local:
        process = local.up(str(file))
        first = local.serving("digits")
        (source,) = local.model("digits")["status"]["sources"]
        digest = f"sha256:{sha256(DIGITS / 'model.onnx')}"
        assert source == {"uri": "s3://models/digits/model.onnx", "digest": digest}

        shutil.copy(DIGITS / "next" / "model.onnx", server.folder / "models" / "digits" / "model.onnx")
        process.terminate()
        process.wait(60)
        local.up()
        assert local.serving("digits") == first

        model["spec"]["source"]["digest"] = f"sha256:{sha256(DIGITS / 'next' / 'model.onnx')}"
        file.write_text(yaml.safe_dump(model))
        assert local("apply", "-f", str(file))[0] == 0
        assert local.serving("digits") != first
