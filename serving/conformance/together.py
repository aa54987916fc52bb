"""Requests at the same time: each gets its own answer, and they may share calls of the model."""

from __future__ import annotations

import concurrent.futures

from serving.conformance.checks import check, not_asked, require
from serving.conformance.target import Target, differ, outputs_of

_CLIENTS = 16
_REQUESTS = 96


@check("gives each of many requests at once its own answer, over REST and gRPC", needed=True)
def own_answers(target: Target) -> None:
    rows = 3 if target.takes_rows else 1
    samples = [target.sample(seed, 1 + seed % rows) for seed in range(12)]
    alone = [target.infer(one) for one in samples]

    def ask(number: int) -> str:
        at = number % len(samples)
        if target.channel is None or number % 2:
            return differ(target.infer(samples[at]), alone[at])
        return differ(outputs_of(target.call("ModelInfer", target.message(samples[at]))), alone[at])

    with concurrent.futures.ThreadPoolExecutor(_CLIENTS) as clients:
        problems = [one for one in clients.map(ask, range(_REQUESTS)) if one]
    require(not problems, f"{len(problems)} of {_REQUESTS} answers differ from those alone: {next(iter(problems), '')}")


@check("fails a bad request among good ones alone")
def one_fails(target: Target) -> None:
    sample = target.sample()
    expected = target.infer(sample)
    if not target.takes_json:
        not_asked("the model takes or gives what JSON cannot carry")
    bad = target.document(sample)
    bad["inputs"][0] |= {"shape": [*bad["inputs"][0]["shape"], 2]}

    def ask(number: int) -> str:
        if number % 4:
            return differ(target.infer(sample), expected)
        status = target.post(bad).status_code
        return "" if 400 <= status < 500 else f"the bad one got {status}"

    with concurrent.futures.ThreadPoolExecutor(_CLIENTS) as clients:
        problems = [one for one in clients.map(ask, range(_REQUESTS)) if one]
    require(not problems, next(iter(problems), ""))


@check("computes requests together that come at once, as its statistics say")
def shared_calls(target: Target) -> None:
    if not target.takes_rows:
        not_asked("the model's first dimension is fixed")
    said = target.http.get(target.path("/config"))
    if said.status_code == 200 and int(said.json().get("max_batch_size", 0)) <= 1:
        not_asked("its configuration says that requests share no calls (max_batch_size)")
    before = _counts(target)
    sample = target.sample()
    with concurrent.futures.ThreadPoolExecutor(_CLIENTS) as clients:
        list(clients.map(lambda _: target.infer(sample), range(4 * _REQUESTS)))
    rows, calls = (after - then for after, then in zip(_counts(target), before, strict=True))
    require(rows >= 4 * _REQUESTS, f"it counted {rows} rows of {4 * _REQUESTS}")
    require(calls < rows, f"it computed {rows} rows by {calls} calls")


def _counts(target: Target) -> tuple[int, int]:
    """Rows and calls of the model so far."""
    answer = target.http.get(target.path("/stats"))
    require(answer.status_code == 200, f"it has no statistics: {answer.status_code} at …/stats")
    said = answer.json()["model_stats"][0]
    return int(said.get("inference_count", 0)), int(said.get("execution_count", 0))
