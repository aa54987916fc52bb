"""LitServe with one worker and one API server, asked in the JSON of V2."""

from typing import Any

import litserve
import numpy as np
from fastapi import Request

from benchmarks.peers import engine

asked = engine.asked()


class Onnx(litserve.LitAPI):
    """One ONNX model."""

    def setup(self, device: str) -> None:
        self.session = engine.session(asked.path)

    def decode_request(self, request: Request) -> Any:
        # LitServe reads the annotation and hands over the parsed body.
        given: Any = request["inputs"][0]
        return np.array(given["data"], np.float32).reshape(given["shape"])

    def batch(self, inputs: Any) -> Any:
        return np.concatenate(inputs)

    def predict(self, x: Any) -> Any:
        return self.session.run(None, {engine.INPUT: x})[0]

    def unbatch(self, output: Any) -> Any:
        return [output[i : i + 1] for i in range(len(output))]

    def encode_response(self, output: Any) -> Any:
        described = {"name": engine.OUTPUT, "datatype": "FP32", "shape": list(output.shape)}
        return {"model_name": asked.name, "outputs": [{**described, "data": output.ravel().tolist()}]}


if __name__ == "__main__":
    api = Onnx(max_batch_size=asked.batch, batch_timeout=0.002, api_path=f"/v2/models/{asked.name}/infer")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=asked.http_port, num_api_servers=1, log_level="warning",
               generate_client_file=False)  # fmt: skip
