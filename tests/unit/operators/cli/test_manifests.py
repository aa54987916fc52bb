"""YAML files become objects, or an error that names file, document, line and what to do."""

from __future__ import annotations

import hashlib
import io
import pathlib
import subprocess
from typing import Any

import pytest

from operators.cli import kinds, manifests
from operators.cli.manifests import BadManifest, Manifest

MODEL = """\
apiVersion: penstock.dev/v1alpha1
kind: Model
metadata: {name: digits}
spec:
  source: {uri: model.onnx}
"""
ENDPOINT = """\
apiVersion: penstock.dev/v1alpha1
kind: Endpoint
metadata: {name: reader, namespace: prod}
spec:
  arms: [{name: a, model: digits, weight: 100}]
"""
RUNTIME = """\
apiVersion: penstock.dev/v1alpha1
kind: ServingRuntime
metadata: {name: triton}
spec: {image: "triton:1", formats: [onnx]}
"""


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def write(folder: pathlib.Path, **files: str) -> pathlib.Path:
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)
    return folder


def test_documents_of_one_file_come_in_order_and_get_the_namespace_they_lack(tmp_path: pathlib.Path) -> None:
    write(tmp_path, model_onnx="weights", all_yaml=f"---\n{MODEL}---\n---\n{ENDPOINT}---\n{RUNTIME}")
    found = manifests.load([str(tmp_path / "all.yaml")], "team")
    assert [(m.kind.kind, m.namespace, m.name) for m in found] == [
        ("Model", "team", "digits"),
        ("Endpoint", "prod", "reader"),
        ("ServingRuntime", "", "triton"),
    ]


def test_a_file_without_a_document_is_an_error(tmp_path: pathlib.Path) -> None:
    file = write(tmp_path, empty_yaml="---\n# nothing yet\n") / "empty.yaml"
    with pytest.raises(BadManifest) as raised:
        manifests.load([str(file)], "default")
    assert str(raised.value) == f"{file}: holds no object; give YAML with apiVersion, kind, metadata and spec"


def test_a_local_artifact_is_made_absolute_and_pinned_and_nothing_else_is_added(
    tmp_path: pathlib.Path,
) -> None:
    write(tmp_path, model_onnx="weights", model_yaml=MODEL)
    assert manifests.load([str(tmp_path / "model.yaml")], "default") == [
        Manifest(
            kinds.of("Model"),
            "default",
            "digits",
            {
                "apiVersion": "penstock.dev/v1alpha1",
                "kind": "Model",
                "metadata": {"namespace": "default", "name": "digits"},
                "spec": {"source": {"uri": f"file://{tmp_path}/model.onnx", "digest": sha256(b"weights")}},
            },
        )
    ]


def test_every_location_in_a_spec_is_completed(tmp_path: pathlib.Path) -> None:
    write(tmp_path, model_onnx="m", int8_onnx="i", eval_npz="e", cal_npz="c")
    (tmp_path / "deep").mkdir()
    spec = """\
  variants:
    - {name: int8, source: {uri: "file:../int8.onnx"}}
    - {name: made, passes: [{quantize: {calibration: {uri: "file://./../cal.npz"}}}]}
  evaluation: {dataset: {uri: ../eval.npz}, maxDrop: 0.01}
"""
    text = MODEL.replace("model.onnx", f"file://{tmp_path}/model.onnx") + spec
    (tmp_path / "deep/model.yaml").write_text(text)
    (found,) = manifests.load([str(tmp_path / "deep")], "default")

    def pinned(name: str, content: bytes) -> dict[str, str]:
        return {"uri": f"file://{tmp_path}/{name}", "digest": sha256(content)}

    assert found.data["spec"] == {
        "source": pinned("model.onnx", b"m"),
        "variants": [
            {"name": "int8", "source": pinned("int8.onnx", b"i")},
            {"name": "made", "passes": [{"quantize": {"calibration": pinned("cal.npz", b"c")}}]},
        ],
        "evaluation": {"dataset": pinned("eval.npz", b"e"), "maxDrop": 0.01},
    }


def test_remote_locations_and_given_digests_are_left_as_they_are(tmp_path: pathlib.Path) -> None:
    digest = sha256(b"what it should be")
    write(tmp_path, model_onnx="what it is")
    write(tmp_path, a_yaml=MODEL.replace("{uri: model.onnx}", f'{{uri: model.onnx, digest: "{digest}"}}'))
    write(tmp_path, b_yaml=MODEL.replace("model.onnx", "s3://models/model.onnx"))
    sources = [m.data["spec"]["source"] for m in manifests.load([str(tmp_path)], "default")]
    assert sources == [
        {"uri": f"file://{tmp_path}/model.onnx", "digest": digest},
        {"uri": "s3://models/model.onnx"},
    ]


def test_a_folder_has_the_digest_of_the_sorted_lines_of_sha256sum(tmp_path: pathlib.Path) -> None:
    (tmp_path / "model/1").mkdir(parents=True)
    (tmp_path / "model/config").write_text("config")
    (tmp_path / "model/1/model.onnx").write_text("weights")
    command = "find . -type f -printf '%P\\0' | xargs -0 sha256sum | sort | sha256sum"
    lines = subprocess.run(["bash", "-c", command], cwd=tmp_path / "model", check=True, capture_output=True)
    assert manifests.digest(tmp_path / "model") == "sha256:" + lines.stdout.decode().split()[0]


def test_standard_input_is_relative_to_the_working_directory(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, model_onnx="weights")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO(MODEL))
    (found,) = manifests.load(["-"], "default")
    assert found.data["spec"]["source"]["uri"] == f"file://{tmp_path}/model.onnx"


def test_names_need_no_valid_spec(tmp_path: pathlib.Path) -> None:
    write(tmp_path, all_yaml=f"{MODEL}  nonsense: 1\n---\n{ENDPOINT}")
    found = manifests.names([str(tmp_path / "all.yaml")], "default")
    assert found == [(kinds.of("Model"), "default", "digits"), (kinds.of("Endpoint"), "prod", "reader")]


CASES: dict[str, tuple[str, str]] = {
    "unknown field": (
        MODEL.replace("model.onnx", "s3://m") + "  replica: 2\n",
        "{file}, document 1, line 6: Model 'digits': spec.replica: unknown field; did you mean replicas?",
    ),
    "wrong type in the second document": (
        ENDPOINT + "---\n" + MODEL.replace("model.onnx", "s3://m/m") + "  replicas: many\n",
        "{file}, document 2, line 12: Model 'digits': spec.replicas: "
        "input should be a valid integer, unable to parse string as an integer; got 'many'",
    ),
    "missing artifact": (
        "# a comment\n" + MODEL,
        "{file}, document 1, line 6: Model 'digits': spec.source.uri: {folder}/model.onnx does not exist; "
        "correct the path or put the file there",
    ),
    "unknown kind": (
        MODEL.replace("kind: Model", "kind: Tensor"),
        "{file}, document 1, line 2: 'digits': kind is 'Tensor', expected one of Model, Endpoint, ServingRuntime",
    ),
    "two fields of a list": (
        MODEL.replace("model.onnx", "s3://m/m")
        + "  rollout:\n    steps:\n      - {weight: 5, for: 20}\n      - weight: 50\n        for: 5 minutes\n",
        "{file}, document 1, lines 8, 10: Model 'digits': spec.rollout.steps[0].for: 20 has no unit; write ms, s, m "
        "or h behind it, such as 20s; spec.rollout.steps[1].for: '5 minutes' is no duration; write numbers with "
        "ms, s, m or h, such as 90s or 1h30m",
    ),
    "what is missing": (
        MODEL.replace("  source: {uri: model.onnx}\n", "  replicas: 1\n"),
        "{file}, document 1, line 4: Model 'digits': spec.source: required, but not given",
    ),
    "times without quotes": (
        MODEL.replace("model.onnx", "s3://m/m")
        + "  rollout:\n    windows:\n    - days: [Mon]\n      from: 9:00\n      to: 16:00\n",
        "{file}, document 1, lines 9, 10: Model 'digits': spec.rollout.windows[0].from: YAML reads a time without "
        'quotes as a number, 540; quote it: "09:00"; spec.rollout.windows[0].to: YAML reads a time without quotes as a '
        'number, 960; quote it: "16:00"',
    ),
    "no time": (
        MODEL.replace("model.onnx", "s3://m/m") + "  rollout: {windows: [{from: 9}]}\n",
        "{file}, document 1, line 6: Model 'digits': spec.rollout.windows[0].from: 9 is no time of day; write hours "
        'and minutes in quotes, such as "09:00"',
    ),
    "unknown time zone": (
        MODEL.replace("model.onnx", "s3://m/m")
        + "  rollout:\n    windows:\n    - {from: '09:00'}\n    - {timezone: Berlin}\n",
        "{file}, document 1, line 9: Model 'digits': spec.rollout.windows[1].timezone: the time zone database has no "
        "Berlin; write a name such as Europe/Berlin",
    ),
    "no mapping": (
        "- a\n- b\n",
        "{file}, document 1, line 1: expected an object (apiVersion, kind, metadata, spec), got ['a', 'b']",
    ),
    "no YAML": (
        ENDPOINT + "---\nkind: [Model\nmetadata: {}\n",
        "{file}, document 2, line 8: not YAML: expected ',' or ']', but got ':'",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_document_that_cannot_be_used_is_named_with_file_and_line(tmp_path: pathlib.Path, case: str) -> None:
    text, message = CASES[case]
    write(tmp_path, bad_yaml=text)
    if case == "unknown kind":
        write(tmp_path, model_onnx="weights")
    with pytest.raises(BadManifest) as raised:
        manifests.load([str(tmp_path / "bad.yaml")], "default")
    assert str(raised.value) == message.format(file=tmp_path / "bad.yaml", folder=tmp_path)


def test_a_model_given_in_the_place_of_its_yaml_is_named_with_where_it_belongs(tmp_path: pathlib.Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"\x08\x08\xcd\xff")
    with pytest.raises(
        BadManifest, match=r"is no text; give a YAML of a Model, which names such a file in spec\.source"
    ):
        manifests.load([str(tmp_path / "model.onnx")], "default")


def test_paths_that_hold_no_manifests_are_named(tmp_path: pathlib.Path) -> None:
    errors: list[Any] = []
    for given in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(BadManifest) as raised:
            manifests.load([str(given)], "default")
        errors.append(str(raised.value))
    assert errors == [
        f"{tmp_path}/none.yaml: no such file or folder; give a YAML file, a folder of them, or - for standard input",
        f"{tmp_path}: the folder has no *.yaml file; give the file itself, or another folder",
    ]
