import queue
import sys
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as client
from tritonclient.utils import InferenceServerException

from tests.conformance import expected


def main(authority: str, way: str) -> None:
    server = client.InferenceServerClient(authority)
    assert server.is_server_live()
    assert server.is_server_ready()
    assert server.is_model_ready("echo")
    assert server.get_server_metadata(as_json=True)["name"] == "penstock"
    metadata = server.get_model_metadata("echo", as_json=True)
    assert {name: metadata[name] for name in expected.METADATA} == expected.METADATA
    assert server.get_model_config("echo").config.input[0].name == "BOOL"
    index = server.get_model_repository_index().models
    assert [(entry.name, entry.version, entry.state) for entry in index] == [
        ("digits", "1", "READY"),
        ("echo", "1", "READY"),
        ("rows", "1", "READY"),
    ]
    assert server.get_model_config("rows").config.model_transaction_policy.decoupled

    for packing in (None, "gzip", "deflate"):
        answer = server.infer("echo", inputs(), request_id="7", priority=3, compression_algorithm=packing)
        assert answer.get_response().id == "7"
        for name in expected.EVERYTHING:
            expected.assert_echo(name, answer.as_numpy(name))
    source, x, target, y = expected.digits()
    tensor = client.InferInput(source, x.shape, "FP32")
    tensor.set_data_from_numpy(x)
    assert np.array_equal(server.infer("digits", [tensor], client_timeout=60).as_numpy(target), y)

    with pytest.raises(InferenceServerException) as refused:
        server.infer("nope", inputs())
    assert (refused.value.status(), refused.value.message()) == ("StatusCode.NOT_FOUND", expected.UNKNOWN)
    with pytest.raises(InferenceServerException) as refused:
        server.infer("echo", inputs()[1:])
    assert refused.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert refused.value.message().startswith("input 'BOOL' of model 'echo' is missing; given: 'UINT8', ")

    schedule_and_classification(server, way)
    statistics(server)
    stream(server)
    stream_of_rows(server)
    if way == "direct":
        server.unload_model("echo")
        assert not server.is_model_ready("echo")
        server.load_model("echo")
    else:
        with pytest.raises(InferenceServerException) as refused:
            server.unload_model("echo")
        assert refused.value.status() == "StatusCode.UNIMPLEMENTED"
        assert refused.value.message() == expected.DECLARED
    assert server.is_model_ready("echo")


def inputs() -> list[client.InferInput]:
    found = []
    for name, array in expected.EVERYTHING.items():
        tensor = client.InferInput(name, array.shape, name)
        tensor.set_data_from_numpy(array)
        found.append(tensor)
    return found


def stream(server: client.InferenceServerClient) -> None:
    """Ten requests on one stream, the fifth of which is wrong."""
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    server.start_stream(callback=lambda result, error: answers.put((result, error)))
    for number in range(10):
        server.async_stream_infer("nope" if number == 5 else "echo", inputs(), request_id=str(number))
    for number in range(10):
        result, error = answers.get(timeout=60)
        if number == 5:
            # A routed stream stays with the server of its first model, which lists that one alone.
            assert expected.UNKNOWN.partition(": digits")[0] in str(error)
        else:
            assert result.get_response().id == str(number)
            expected.assert_echo("BYTES", result.as_numpy("BYTES"))
    server.stop_stream()


def digits_input() -> client.InferInput:
    source, x, _, _ = expected.digits()
    tensor = client.InferInput(source, x.shape, "FP32")
    tensor.set_data_from_numpy(x)
    return tensor


def schedule_and_classification(server: client.InferenceServerClient, way: str) -> None:
    _, _, target, y = expected.digits()
    asked = client.InferRequestedOutput(target, class_count=3)
    answer = server.infer("digits", [digits_input()], outputs=[asked], priority=1, timeout=60_000_000)
    assert answer.as_numpy(target).tolist() == expected.classes(y, 3, way)
    with pytest.raises(InferenceServerException) as refused:
        server.infer("digits", [digits_input()], timeout=-1)
    assert refused.value.message() == "the parameter timeout is -1, expected a number of microseconds from 0 up"


def statistics(server: client.InferenceServerClient) -> None:
    (before,) = server.get_inference_statistics("digits", as_json=True)["model_stats"]
    for _ in range(3):
        server.infer("digits", [digits_input()])
    (after,) = server.get_inference_statistics("digits", "1", as_json=True)["model_stats"]
    expected.assert_counted(before, after, requests=3, rows=9)


def stream_of_rows(server: client.InferenceServerClient) -> None:
    """One request with several responses, whose end is told when asked for."""
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    tensor = client.InferInput("text", [3], "BYTES")
    tensor.set_data_from_numpy(np.array([b"a", b"b", b"c"], np.object_))
    server.start_stream(callback=lambda result, error: answers.put((result, error)))
    server.async_stream_infer("rows", [tensor], request_id="1")
    server.async_stream_infer("rows", [tensor], request_id="2", enable_empty_final_response=True)
    told = []
    for _ in range(7):
        result, error = answers.get(timeout=60)
        assert error is None, error
        response = result.get_response()
        values = result.as_numpy("text").tolist() if response.outputs else []
        told.append((response.id, response.parameters["triton_final_response"].bool_param, values))
    server.stop_stream()
    rows = [[b"a"], [b"b"], [b"c"]]
    assert told == [*(("1", False, row) for row in rows), *(("2", False, row) for row in rows), ("2", True, [])]


if __name__ == "__main__":
    main(sys.argv[2], sys.argv[3])
    print("conforms")
