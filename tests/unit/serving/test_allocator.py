from pathlib import Path

import orjson

from tests.rig import onnx_models
from tests.rig.model_server import running


def faults(pid: int) -> int:
    """How often the kernel had to find a page of memory for this process."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[7])


def test_a_large_request_is_read_into_the_memory_that_the_last_one_left(tmp_path: Path) -> None:
    model = onnx_models.linear(tmp_path / "digits.onnx")
    values = [0.123456] * 160_000
    body = orjson.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [40_000, 4], "data": values}]})

    with running("serve", str(model)) as server:
        for _ in range(10):
            assert server.request("POST", "/v2/models/digits/infer", body)[0] == 200
        before = faults(server.process.pid)
        for _ in range(10):
            assert server.request("POST", "/v2/models/digits/infer", body)[0] == 200
        pages_a_request = (faults(server.process.pid) - before) / 10

    assert pages_a_request * 4096 < len(body)
