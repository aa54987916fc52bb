import asyncio
import sys

import numpy as np
import tritonclient.http.aio as client

from tests.conformance import expected


async def main(authority: str) -> None:
    async with client.InferenceServerClient(authority) as server:
        assert await server.is_server_live()
        assert await server.is_server_ready()
        assert await server.is_model_ready("echo")
        assert (await server.get_model_metadata("echo"))["platform"] == "penstock_identity"
        assert [entry["name"] for entry in await server.get_model_repository_index()] == ["digits", "echo", "rows"]
        source, x, target, y = expected.digits()
        tensor = client.InferInput(source, x.shape, "FP32")
        tensor.set_data_from_numpy(x)
        answers = await asyncio.gather(*(server.infer("digits", [tensor]) for _ in range(20)))
        assert all(np.array_equal(answer.as_numpy(target), y) for answer in answers)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
    print("conforms")
