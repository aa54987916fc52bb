"""Asks an Endpoint or a Model what the held-out digits are, and reports whether each answer was right.

Every answer is reported, also with 0: what is not reported is not known, and a side of which reports are missing makes
the sample ratio wrong.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

SAMPLES = Path(__file__).parent.parent / "eval.npz"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--host", default="127.0.0.1:8080", help="the router (default: %(default)s)")
    parser.add_argument("--endpoint", default="reader", help="or a Model (default: %(default)s)")
    parser.add_argument("--metric", default="right", help="the metric of its experiment (default: %(default)s)")
    parser.add_argument("--feedback", action="store_true", help="tell a Model whether its answers are right instead")
    parser.add_argument("--requests", type=int, default=20_000, help="(default: %(default)s)")
    parser.add_argument("--rate", type=float, help="requests a second (default: one after the other)")
    options = parser.parse_args()
    if options.rate is not None and options.rate <= 0:
        parser.error(f"--rate {options.rate:g}: give more than 0 requests a second")
    path, connection = f"/v2/models/{options.endpoint}", http.client.HTTPConnection(options.host, timeout=60)

    def post(suffix: str, body: dict[str, Any]) -> tuple[dict[str, Any], str]:
        connection.request("POST", f"{path}/{suffix}", json.dumps(body), {"content-type": "application/json"})
        answer = connection.getresponse()
        said = json.loads(answer.read())
        # A revision that answered may be gone when feedback on it comes.
        if answer.status != 200 and (suffix, answer.status) != ("feedback", 404):
            raise SystemExit(f"{path}/{suffix}: {answer.status}: {said.get('error', said)}")
        return said, answer.headers.get("penstock-request-id", "")

    with np.load(SAMPLES, allow_pickle=False) as held_out:
        x, y = held_out["x"], held_out["y"]
    began, pause = time.monotonic(), threading.Event()
    for number in range(1, options.requests + 1):
        if options.rate:
            pause.wait(max(0.0, began + (number - 1) / options.rate - time.monotonic()))
        at = random.randrange(len(y))
        image = {"name": "image", "shape": [1, 1, 32, 32], "datatype": "FP32", "data": x[at].ravel().tolist()}
        answer, unit = post("infer", {"inputs": [image]})
        right = int(np.argmax(answer["outputs"][0]["data"])) == y[at]
        if options.feedback and unit:
            post("feedback", {"id": unit, "correct": bool(right)})
        elif not options.feedback:
            post("reward", {"id": unit, "metric": options.metric, "value": float(right)})
        if number % 1_000 == 0:
            print(f"{number:,} of {options.requests:,} asked and reported", flush=True)


if __name__ == "__main__":
    main()
