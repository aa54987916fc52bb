import asyncio
import sys

import numpy as np
from kserve import InferenceGRPCClient, InferInput, InferRequest

from tests.conformance import expected


async def main(authority: str) -> None:
    server = InferenceGRPCClient(authority, retries=0)
    assert await server.is_server_live()
    assert await server.is_server_ready()
    assert await server.is_model_ready("echo")

    inputs = []
    for name, array in expected.EVERYTHING.items():
        tensor = InferInput(name, list(array.shape), name)
        tensor.set_data_from_numpy(array, binary_data=True)
        inputs.append(tensor)
    answer = await server.infer(InferRequest("echo", inputs))
    assert [output.name for output in answer.outputs] == list(expected.EVERYTHING)
    for output in answer.outputs:
        expected.assert_echo(output.name, output.as_numpy())

    source, x, _, y = expected.digits()
    for binary in (True, False):
        tensor = InferInput(source, list(x.shape), "FP32")
        tensor.set_data_from_numpy(x, binary_data=binary)
        answer = await server.infer(InferRequest("digits", [tensor]))
        assert np.array_equal(answer.outputs[0].as_numpy(), y)
    await server.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[2]))
    print("conforms")
