from pathlib import Path

import pytest

from serving import settings
from serving.errors import ArtifactRefused, InvalidInput
from serving.settings import Batching, Limits, Settings


def test_a_model_says_less_than_its_server_and_more_than_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "penstock.json").write_text('{"limits": {"maxPending": 7, "timeout": "2s"}}')

    said = settings.of(tmp_path / "model.onnx", {"limits": {"timeout": "500ms"}})

    assert said == Settings(limits=Limits(max_pending=7, timeout="500ms"))
    assert said.limits.timeout_s == 0.5
    assert settings.of(tmp_path / "elsewhere" / "model.onnx", {}) == Settings()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "S is no JSON: unexpected end of data: line 1 column 2 (char 1)"),
        ("[]", "S cannot be taken: Expected `object`, got `array`"),
        (
            '{"limitz": {}}',
            "S cannot be taken: unknown key 'limitz'; did you mean limits? known: batching, cache, isolation, labels, "
            "limits, onnxruntime, threads, warmUp",
        ),
        (
            '{"limits": {"maxPendin": 1}}',
            "S cannot be taken: unknown key 'maxPendin' at $.limits; did you mean maxPending? "
            "known: execution, maxPending, maxPendingBytes, memory, timeout",
        ),
        (
            '{"warmUp": [{"often": 2}]}',
            "S cannot be taken: unknown key 'often' at $.warmUp[0]; known: batchSizes, count, file, shapes",
        ),
        ('{"isolation": "thread"}', "S cannot be taken: expected one of none, process at $.isolation, got 'thread'"),
        (
            '{"onnxruntime": {"graphOptimization": 1}}',
            "S cannot be taken: expected one of all, basic, disabled, extended at $.onnxruntime.graphOptimization, "
            "got 1",
        ),
        (
            '{"limits": {"memory": "2 GB"}}',
            "S cannot be taken: expected a quantity such as 512Mi or 2Gi at $.limits.memory, got '2 GB'",
        ),
        ('{"limits": {"maxPending": 0}}', "S cannot be taken: Expected `int` >= 1 - at `$.limits.maxPending`"),
        ('{"batching": {"maxSize": 0}}', "S cannot be taken: Expected `int` >= 1 - at `$.batching.maxSize`"),
        (
            '{"limits": {"timeout": 5}}',
            "S cannot be taken: expected a duration such as 500ms, 30s or 1m30s at $.limits.timeout, got 5",
        ),
        (
            '{"limits": {"timeout": "5 s"}}',
            "S cannot be taken: expected a duration such as 500ms, 30s or 1m30s at $.limits.timeout, got '5 s'",
        ),
        (
            '{"warmUp": [{}]}',
            "S cannot be taken: a warm-up needs one of file, shapes and batchSizes - at `$.warmUp[0]`",
        ),
    ],
)
def test_what_cannot_be_said_is_refused_by_key(text: str, message: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        settings.parse(text, "S")

    assert str(refused.value) == message


def test_a_model_with_a_wrong_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "penstock.json").write_text('{"size": 1}')

    with pytest.raises(ArtifactRefused) as refused:
        settings.of(tmp_path / "model.onnx", {})

    assert str(refused.value) == (
        f"{tmp_path}/penstock.json cannot be taken: unknown key 'size'; known: batching, cache, isolation, labels, "
        "limits, onnxruntime, threads, warmUp"
    )


def test_quantities_are_bytes() -> None:
    written = {"7": 7, "2k": 2000, "2Ki": 2048, "512Mi": 512 * 2**20, "3G": 3 * 10**9, "2Gi": 2**31, "1Ti": 2**40}
    assert {text: settings.size_bytes(text) for text in written} == written
    with pytest.raises(InvalidInput) as refused:
        settings.size_bytes("2 GB")
    assert str(refused.value) == "'2 GB' is no size; expected a quantity such as 512Mi or 2Gi"
    assert Limits(memory="1Gi").memory_bytes == 2**30
    assert Limits().memory_bytes is None


def test_a_limit_that_nobody_would_keep_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactRefused) as refused:
        settings.of(tmp_path / "m.onnx", {"limits": {"memory": "1Gi"}})
    assert str(refused.value) == (
        f"limits.memory of {tmp_path}/m.onnx cannot be kept in the server's own process; say isolation: process too"
    )
    assert settings.of(tmp_path / "m.onnx", {"isolation": "process", "limits": {"memory": "1Gi"}}).limits.memory


def test_durations_add_up() -> None:
    assert [settings.seconds(text) for text in ("250ms", "1.5s", "1m30s", "2h")] == [0.25, 1.5, 90.0, 7200.0]


def test_labels_are_lists_by_output(tmp_path: Path) -> None:
    assert settings.of(tmp_path / "m.onnx", {"labels": {"y": ["a", "b"]}}).labels == {"y": ("a", "b")}
    with pytest.raises(InvalidInput) as refused:
        settings.parse('{"labels": {"y": "ab"}}', "S")
    assert str(refused.value) == "S cannot be taken: Expected `array`, got `str` - at `$.labels[...]`"


def test_an_engine_may_take_as_long_as_a_request_unless_it_is_said() -> None:
    assert (Limits(timeout="2s").execution_s, Limits(timeout="2s", execution="500ms").execution_s) == (2.0, 0.5)
    assert Batching(max_delay="5ms").max_delay_s == 0.005
