"""FastAPI under uvicorn, as fast as a path operation gets: bytes in and out, orjson, no response model."""

from __future__ import annotations

import numpy as np
import orjson
import uvicorn
from fastapi import FastAPI, Request, Response

from benchmarks.peers import engine

asked = engine.asked()
session = engine.session(asked.path)
app = FastAPI()
_LENGTH = "inference-header-content-length"


@app.post("/v2/models/{name}/infer")
async def infer(name: str, request: Request) -> Response:
    """V2 REST, JSON or with binary tensors."""
    body = await request.body()
    length = request.headers.get(_LENGTH)
    if length is None:
        given = orjson.loads(body)["inputs"][0]
        tensor = np.array(given["data"], np.float32).reshape(given["shape"])
        answer = session.run(None, {engine.INPUT: tensor})[0]
        output = {"name": engine.OUTPUT, "datatype": "FP32", "shape": answer.shape, "data": answer.ravel()}
        text = orjson.dumps({"model_name": name, "outputs": [output]}, option=orjson.OPT_SERIALIZE_NUMPY)
        return Response(text, media_type="application/json")
    given = orjson.loads(body[: int(length)])["inputs"][0]
    tensor = np.frombuffer(body, np.float32, offset=int(length)).reshape(given["shape"])
    answer = session.run(None, {engine.INPUT: tensor})[0]
    size = {"binary_data_size": answer.nbytes}
    output = {"name": engine.OUTPUT, "datatype": "FP32", "shape": answer.shape, "parameters": size}
    head = orjson.dumps({"model_name": name, "outputs": [output]})
    return Response(head + answer.tobytes(), media_type="application/octet-stream", headers={_LENGTH: str(len(head))})


if __name__ == "__main__":
    uvicorn.run(app, port=asked.http_port, loop="uvloop", http="httptools", access_log=False, log_level="warning")
