"""Where the files of this machine go in a store, decided before anything is sent."""

from __future__ import annotations

import hashlib
import pathlib
from typing import Any

import pytest

from operators.cli import artifacts, kinds, manifests
from operators.cli.artifacts import BadStore, Upload
from operators.cli.manifests import Manifest


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def manifest(**spec: Any) -> Manifest:
    return Manifest(kinds.of("Model"), "team", "digits", {"kind": "Model", "spec": spec})


def nobody_asks() -> str:
    raise AssertionError("the store is not needed")


def test_every_local_file_and_folder_gets_a_place_named_by_its_digest(tmp_path: pathlib.Path) -> None:
    (tmp_path / "folder" / "sub").mkdir(parents=True)
    (tmp_path / "folder" / "sub" / "model.onnx").write_bytes(b"m")
    (tmp_path / "int8.onnx").write_bytes(b"i")
    folder, file = manifests.digest(tmp_path / "folder"), f"sha256:{sha256(b'i')}"
    elsewhere = {"uri": "s3://elsewhere/eval.npz", "digest": file}
    given = manifest(
        source={"uri": f"file://{tmp_path}/folder", "digest": folder},
        variants=[{"name": "int8", "source": {"uri": f"file://{tmp_path}/int8.onnx", "digest": file}}],
        evaluation={"dataset": elsewhere},
    )

    moved, uploads = artifacts.relocated(given, lambda: "s3://bucket/models/")

    root, leaf = f"s3://bucket/models/{folder.replace(':', '-')}", f"s3://bucket/models/sha256-{sha256(b'i')}/int8.onnx"
    assert moved == manifest(
        source={"uri": root, "digest": folder},
        variants=[{"name": "int8", "source": {"uri": leaf, "digest": file}}],
        evaluation={"dataset": elsewhere},
    )
    assert uploads == [Upload(tmp_path / "folder", folder, root), Upload(tmp_path / "int8.onnx", file, leaf)]
    assert [upload.files for upload in uploads] == [
        {f"{root}/sub/model.onnx": tmp_path / "folder/sub/model.onnx"},
        {leaf: tmp_path / "int8.onnx"},
    ]


def test_without_a_local_file_no_store_is_asked_for() -> None:
    given = manifest(source={"uri": "s3://models/digits.onnx"})
    assert artifacts.relocated(given, nobody_asks) == (given, [])


@pytest.mark.parametrize(
    ("store", "message"),
    [
        (
            None,
            "{uri} has to be uploaded, and no artifact store is set: name one that you can write and the pods can read "
            "with --store s3://BUCKET/PREFIX or PENSTOCK_STORE, or for everybody as `store` in the ConfigMap "
            "`penstock` of Penstock's namespace",
        ),
        ("/mnt/models", "artifact store /mnt/models: pods of this version read no such place; name s3://BUCKET/PREFIX"),
        ("gs://m", "artifact store gs://m: pods of this version read no such place; name s3://BUCKET/PREFIX"),
        ("s3://", "artifact store s3://: pods of this version read no such place; name s3://BUCKET/PREFIX"),
    ],
)
def test_a_place_that_is_no_store_is_told(tmp_path: pathlib.Path, store: str | None, message: str) -> None:
    (tmp_path / "m.onnx").write_bytes(b"m")
    uri = f"file://{tmp_path}/m.onnx"
    with pytest.raises(BadStore) as refusal:
        artifacts.relocated(manifest(source={"uri": uri, "digest": f"sha256:{sha256(b'm')}"}), lambda: store)
    assert str(refusal.value) == message.format(uri=uri)


def test_a_file_that_is_not_what_its_yaml_promises_is_not_sent(tmp_path: pathlib.Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"m")
    promised = f"sha256:{sha256(b'other')}"
    with pytest.raises(BadStore) as refusal:
        artifacts.relocated(manifest(source={"uri": f"file://{tmp_path}/m.onnx", "digest": promised}), lambda: "s3://b")
    assert str(refusal.value) == (
        f"{tmp_path}/m.onnx has the digest sha256:{sha256(b'm')}, its YAML says {promised}; "
        "leave digest out, or restore the file"
    )
