import sys

import numpy as np
import pytest
import tritonclient.http as client
from tritonclient.utils import InferenceServerException

from tests.conformance import expected


def main(authority: str, way: str) -> None:
    server = client.InferenceServerClient(authority)
    assert server.is_server_live()
    assert server.is_server_ready()
    assert server.is_model_ready("echo")
    assert server.is_model_ready("echo", "1")
    assert not server.is_model_ready("nope")
    assert server.get_server_metadata()["name"] == "penstock"
    assert set(server.get_server_metadata()["extensions"]) >= expected.EXTENSIONS
    metadata = server.get_model_metadata("echo")
    assert {name: metadata[name] for name in expected.METADATA} == expected.METADATA
    assert [tensor["name"] for tensor in metadata["inputs"]] == list(expected.EVERYTHING)
    assert server.get_model_config("echo")["max_batch_size"] == 32
    ready = {"version": "1", "state": "READY", "reason": ""}
    assert server.get_model_repository_index() == [
        {"name": "digits", **ready},
        {"name": "echo", **ready},
        {"name": "rows", **ready},
    ]

    for binary in (True, False):
        for packing in (None, "gzip", "deflate"):
            echo(server, binary, packing)
    digits(server)
    schedule(server)
    classification(server, way)
    statistics(server, way)

    with pytest.raises(InferenceServerException) as refused:
        server.infer("nope", inputs(True))
    assert (refused.value.status(), refused.value.message()) == ("404", expected.UNKNOWN)
    with pytest.raises(InferenceServerException) as refused:
        server.infer("echo", inputs(True)[1:])
    assert refused.value.status() == "400"
    assert refused.value.message().startswith("input 'BOOL' of model 'echo' is missing; given: 'UINT8', ")

    if way == "direct":
        server.unload_model("echo")
        assert not server.is_model_ready("echo")
        server.load_model("echo")
    else:
        with pytest.raises(InferenceServerException) as refused:
            server.unload_model("echo")
        assert (refused.value.status(), refused.value.message()) == ("501", expected.DECLARED)
    assert server.is_model_ready("echo")


def inputs(binary: bool) -> list[client.InferInput]:
    found = []
    for name, array in expected.EVERYTHING.items():
        tensor = client.InferInput(name, array.shape, name)
        tensor.set_data_from_numpy(array, binary_data=binary or name not in expected.JSON_CAN_CARRY)
        found.append(tensor)
    return found


def echo(server: client.InferenceServerClient, binary: bool, packing: str | None) -> None:
    names = [*expected.EVERYTHING] if binary else expected.JSON_CAN_CARRY
    answer = server.infer(
        "echo",
        inputs(binary),
        outputs=[client.InferRequestedOutput(name, binary_data=binary) for name in names],
        request_id="7",
        request_compression_algorithm=packing,
        response_compression_algorithm=packing,
    )
    assert answer.get_response()["id"] == "7"
    assert [output["name"] for output in answer.get_response()["outputs"]] == names
    for name in names:
        expected.assert_echo(name, answer.as_numpy(name))


def digits(server: client.InferenceServerClient) -> None:
    source, x, target, y = expected.digits()
    for binary in (True, False):
        tensor = client.InferInput(source, x.shape, "FP32")
        tensor.set_data_from_numpy(x, binary_data=binary)
        assert np.array_equal(server.infer("digits", [tensor]).as_numpy(target), y)


def digits_input() -> client.InferInput:
    source, x, _, _ = expected.digits()
    tensor = client.InferInput(source, x.shape, "FP32")
    tensor.set_data_from_numpy(x)
    return tensor


def schedule(server: client.InferenceServerClient) -> None:
    """Priority and a timeout that is long enough; one that is not a number of microseconds."""
    _, _, target, y = expected.digits()
    answer = server.infer(
        "digits", [digits_input()], priority=1, timeout=60_000_000, sequence_id=7, sequence_start=True
    )
    assert np.array_equal(answer.as_numpy(target), y)
    with pytest.raises(InferenceServerException) as refused:
        server.infer("digits", [digits_input()], timeout=-1)
    assert refused.value.message() == "the parameter timeout is -1, expected a number of microseconds from 0 up"


def classification(server: client.InferenceServerClient, way: str) -> None:
    _, _, target, y = expected.digits()
    assert target == expected.OUTPUT
    for binary in (True, False):
        asked = client.InferRequestedOutput(target, binary_data=binary, class_count=3)
        found = server.infer("digits", [digits_input()], outputs=[asked]).as_numpy(target)
        given = [[item if binary else item.encode() for item in row] for row in found.tolist()]
        assert given == expected.classes(y, 3, way), found


def statistics(server: client.InferenceServerClient, way: str) -> None:
    (before,) = server.get_inference_statistics("digits")["model_stats"]
    for _ in range(3):
        server.infer("digits", [digits_input()])
    (after,) = server.get_inference_statistics("digits", "1")["model_stats"]
    expected.assert_counted(before, after, requests=3, rows=9)
    if way == "direct":
        everything = {entry["name"] for entry in server.get_inference_statistics()["model_stats"]}
        assert everything == {"digits", "echo", "rows"}
        return
    with pytest.raises(InferenceServerException) as refused:
        server.get_inference_statistics()
    assert (refused.value.status(), refused.value.message()) == ("501", expected.EACH_COUNTS)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[3])
    print("conforms")
