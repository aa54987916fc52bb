"""Files become requests, answers become something to read."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from operators.api.errors import Unreachable
from operators.cli import infer
from operators.cli.infer import Answer, BadInput, Request, Score

INPUTS: list[dict[str, Any]] = [{"name": "x", "datatype": "FP32", "shape": [-1, 1, 2, 3]}]
GREY: dict[str, Any] = {"input": {"image": {"size": [2, 3], "mode": "grey", "scale": 0.5}}}


def decoded(request: Request) -> tuple[Any, Any]:
    assert request.header_length is not None
    header = json.loads(request.body[: request.header_length])
    return header, np.frombuffer(request.body[request.header_length :], np.float32)


def header(shape: list[int], size: int) -> dict[str, Any]:
    tensor = {"name": "x", "shape": shape, "datatype": "FP32", "parameters": {"binary_data_size": size}}
    return {"inputs": [tensor]}


def test_a_grey_image_becomes_one_scaled_channel(tmp_path: pathlib.Path) -> None:
    Image.fromarray(np.array([[0, 2, 4], [6, 8, 10]], np.uint8)).save(tmp_path / "a.png")
    described, values = decoded(infer.request(tmp_path / "a.png", INPUTS, GREY))
    assert described == header([1, 1, 2, 3], 24)
    assert values.tolist() == [0, 1, 2, 3, 4, 5]


def test_a_colour_image_becomes_three_channels_one_after_the_other(tmp_path: pathlib.Path) -> None:
    pixels = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    contract = {"input": {"image": {"size": [2, 3]}}}
    described, values = decoded(infer.request(tmp_path / "a.png", INPUTS, contract))
    assert described == header([1, 3, 2, 3], 72)
    assert values.reshape(3, 2, 3).tolist() == pixels.transpose(2, 0, 1).tolist()


def test_an_image_of_another_size_is_scaled(tmp_path: pathlib.Path) -> None:
    Image.new("L", (30, 20), 100).save(tmp_path / "a.jpg")
    described, values = decoded(infer.request(tmp_path / "a.jpg", INPUTS, GREY))
    assert (described, values.tolist()) == (header([1, 1, 2, 3], 24), [50] * 6)


def test_the_first_sample_of_arrays_is_sent_in_the_models_datatype(tmp_path: pathlib.Path) -> None:
    samples = np.arange(12, dtype=np.float64).reshape(2, 6)
    np.save(tmp_path / "a.npy", samples)
    np.savez(tmp_path / "a.npz", y=np.zeros(2), x=samples)
    for name in ("a.npy", "a.npz"):
        made = infer.request(tmp_path / name, INPUTS, {})
        described, values = decoded(made)
        assert (described, values.tolist(), made.rows) == (header([1, 6], 24), [0, 1, 2, 3, 4, 5], 2)


def test_a_nested_list_is_a_tensor_and_an_object_a_request_as_it_is(tmp_path: pathlib.Path) -> None:
    (tmp_path / "list.json").write_text("[[1, 2], [3, 4]]")
    (tmp_path / "request.json").write_text('{"inputs": []}')
    described, values = decoded(infer.request(tmp_path / "list.json", INPUTS, {}))
    assert (described, values.tolist()) == (header([2, 2], 16), [1, 2, 3, 4])
    assert infer.request(tmp_path / "request.json", INPUTS, {}) == Request(b'{"inputs": []}')


@pytest.mark.parametrize("given", ["http://h:1/v2/models/digits/", "http://h/team/digits/v2/models/digits"])
def test_the_url_of_a_model_goes_up_to_its_name(given: str) -> None:
    assert infer.model_url(given) == given.rstrip("/")


@pytest.mark.parametrize("given", ["http://h:1/", "http://h:1/v2/models/", "http://h:1/v2/models/digits/infer", "h:1"])
def test_the_url_of_anything_else_is_refused(given: str) -> None:
    with pytest.raises(BadInput) as raised:
        infer.model_url(given)
    assert str(raised.value) == (
        f"--url {given}: give the URL of the model, up to its name: http://HOST:PORT/v2/models/NAME"
    )


@pytest.mark.parametrize("timeout_s", [-1.0, 0.0, float("nan")])
def test_a_request_that_cannot_be_made_is_an_error_that_names_the_url(tmp_path: pathlib.Path, timeout_s: float) -> None:
    url = "http://127.0.0.1:1/v2/models/digits"
    with pytest.raises(Unreachable, match=f"^{url}: "):
        infer.ask(url, "digits", {}, tmp_path / "a.json", timeout_s)


def _text(path: pathlib.Path) -> None:
    path.write_text("hello")


def _nothing(path: pathlib.Path) -> None:
    pass


def _words(path: pathlib.Path) -> None:
    path.write_text('["a", "b"]')


@pytest.mark.parametrize(
    ("name", "make", "contract", "problem"),
    [
        ("none.png", _nothing, GREY, "No such file or directory; give an image, .npy, .npz or .json file"),
        ("a.txt", _text, GREY, ".txt suffix; give a .png, .jpg, .npy, .npz or .json file"),
        ("a.png", _text, GREY, "cannot be read as an image: cannot identify image file '{file}'"),
        (
            "b.png",
            _text,
            {},
            "the Model does not say how an image becomes a tensor; set spec.contract.input.image, "
            "or give a .npy, .npz or .json file",
        ),
        ("a.json", _text, {}, "not JSON: Expecting value: line 1 column 1 (char 0)"),
        ("b.json", _words, {}, "holds <U1, input 'x' takes FP32; convert it first"),
    ],
)
def test_a_file_that_is_no_input_is_named(
    tmp_path: pathlib.Path, name: str, make: Any, contract: dict[str, Any], problem: str
) -> None:
    file = tmp_path / name
    make(file)
    with pytest.raises(BadInput) as raised:
        infer.request(file, INPUTS, contract)
    assert str(raised.value) == f"--input {file}: {problem.format(file=file)}"


def test_a_model_of_two_inputs_needs_a_request(tmp_path: pathlib.Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros(3))
    two = [*INPUTS, {"name": "mask", "datatype": "BOOL"}]
    with pytest.raises(BadInput, match=r"the model has 2 inputs \(x, mask\); give a V2 request as .json"):
        infer.request(tmp_path / "a.npy", two, {})


def answer(data: list[float], shape: list[int] | None = None) -> Answer:
    output = {"name": "y", "datatype": "FP32", "shape": shape or [1, len(data)], "data": data}
    return Answer("digits", "1a2b3c4d", "fp32", 3.21, [output])


LABELS: dict[str, Any] = {"output": {"labels": ["zero", "one", "two"]}}


def test_logits_become_probabilities_most_probable_first() -> None:
    found = infer.scores(answer([0.0, float(np.log(3)), 0.0]), LABELS)
    assert [score.label for score in found] == ["one", "zero", "two"]
    assert [score.probability for score in found] == pytest.approx([0.6, 0.2, 0.2])


def test_a_distribution_is_left_as_it_is() -> None:
    found = infer.scores(answer([0.25, 0.25, 0.5]), {})
    assert found == [Score("2", 0.5), Score("0", 0.25), Score("1", 0.25)]


def test_another_number_of_labels_than_scores_is_an_error() -> None:
    with pytest.raises(BadInput) as raised:
        infer.scores(answer([0.5, 0.5]), LABELS)
    assert str(raised.value) == (
        "spec.contract.output.labels has 3 names, output 'y' 2 scores: make them the same number"
    )


def test_the_answer_is_a_label_a_chart_and_who_said_so() -> None:
    reply = answer([0.25, 0.625, 0.125])
    assert infer.as_text(reply, infer.scores(reply, LABELS)) == (
        "digits: one (62.5%)\n"
        "\n"
        "  one   ███████████████            62.5%\n"
        "  zero  ██████                     25.0%\n"
        "  two   ███                        12.5%\n"
        "\n"
        "revision 1a2b3c4d (fp32), 3.2 ms\n"
    )


def test_an_answer_that_is_no_row_of_scores_is_shown_as_it_is() -> None:
    reply = answer([1.0, 2.0, 3.0, 4.0], [1, 2, 2])
    assert infer.as_text(reply, infer.scores(reply, LABELS)) == (
        "y FP32 [1, 2, 2]: [1.0, 2.0, 3.0, 4.0]\nrevision 1a2b3c4d (fp32), 3.2 ms\n"
    )


def test_the_answer_for_programs_has_everything() -> None:
    reply = answer([0.25, 0.75])
    assert infer.as_data(reply, infer.scores(reply, {})) == {
        "model": "digits",
        "revision": "1a2b3c4d",
        "variant": "fp32",
        "latencyMs": 3.21,
        "scores": [{"label": "1", "probability": 0.75}, {"label": "0", "probability": 0.25}],
        "outputs": reply.outputs,
    }
