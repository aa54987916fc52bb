import asyncio
import sys

import numpy as np
from kserve import InferenceRESTClient, InferInput, InferOutput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

from tests.conformance import expected


async def main(authority: str) -> None:
    url = f"http://{authority}"
    server = InferenceRESTClient(RESTConfig(protocol="v2", retries=0))
    assert await server.is_server_live(url)
    assert await server.is_server_ready(url)
    assert await server.is_model_ready(url, "echo")

    for binary in (True, False):
        names = [*expected.EVERYTHING] if binary else expected.JSON_CAN_CARRY
        answer = await server.infer(
            url,
            InferRequest(
                "echo",
                inputs(binary),
                request_outputs=[RequestedOutput(name, parameters={"binary_data": binary}) for name in names],
            ),
            model_name="echo",
        )
        found: dict[str, InferOutput] = {output.name: output for output in answer.outputs}
        assert list(found) == names
        for name in names:
            expected.assert_echo(name, found[name].as_numpy())

    source, x, _, y = expected.digits()
    tensor = InferInput(source, list(x.shape), "FP32")
    tensor.set_data_from_numpy(x, binary_data=False)
    answer = await server.infer(url, InferRequest("digits", [tensor]), model_name="digits")
    assert np.array_equal(answer.outputs[0].as_numpy(), y)

    rows = InferenceRESTClient(RESTConfig(protocol="v1", retries=0))
    assert await rows.is_model_ready(url, "digits")
    given = await rows.infer(url, {"instances": x.tolist()}, model_name="digits")
    assert np.array_equal(np.array(given["predictions"], np.float32), y)
    await server.close()
    await rows.close()


def inputs(binary: bool) -> list[InferInput]:
    found = []
    for name, array in expected.EVERYTHING.items():
        tensor = InferInput(name, list(array.shape), name)
        tensor.set_data_from_numpy(array, binary_data=binary or name not in expected.JSON_CAN_CARRY)
        found.append(tensor)
    return found


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
    print("conforms")
