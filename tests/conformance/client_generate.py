import json
import sys
from typing import Any

import httpx

from tests.conformance import expected


def main(authority: str) -> None:
    with httpx.Client(base_url=f"http://{authority}", timeout=60) as server:
        assert events(server, "rows", {"text": ["a", "b", "c"], "id": "7"}) == told("rows", "a", "b", "c")
        assert events(server, "rows", {"text": []}) == []
        assert (
            generated(server, "rows", {"text": "a", "id": "7", "parameters": {"temperature": 0}})
            == told("rows", "a")[0]
        )
        refused = server.post("/v2/models/rows/generate", json={"text": ["a", "b"]})
        assert (refused.status_code, list(refused.json())) == (400, ["error"])
        refused = server.post("/v2/models/rows/generate_stream", json={"text": 1})
        assert (refused.status_code, list(refused.json())) == (400, ["error"])

        source, x, target, y = expected.digits()
        (answer,) = events(server, "digits", {source: x.tolist()})
        assert answer[target] == [float(str(score)) for score in y.ravel()]
        assert generated(server, "digits", {source: x.tolist()}) == answer


def told(model: str, *texts: str) -> list[dict[str, Any]]:
    return [{"model_name": model, "model_version": "1", "id": "7", "text": text} for text in texts]


def generated(server: httpx.Client, model: str, body: dict[str, Any]) -> Any:
    answer = server.post(f"/v2/models/{model}/generate", json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    return answer.json()


def events(server: httpx.Client, model: str, body: dict[str, Any]) -> list[Any]:
    """What a stream tells, read line by line as it comes."""
    with server.stream("POST", f"/v2/models/{model}/versions/1/generate_stream", json=body) as answer:
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        return [json.loads(line.removeprefix("data: ")) for line in answer.iter_lines() if line]


if __name__ == "__main__":
    main(sys.argv[1])
    print("conforms")
