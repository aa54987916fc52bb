"""``ProcessActuator`` with real servers behind a real HAProxy: what clients see while everything changes."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import grpc.aio
import httpx
import numpy as np
import psutil
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
from tritonclient.grpc import service_pb2, service_pb2_grpc

from operators.actuators.process.actuator import ProcessActuator
from operators.api.endpoint import Assignment
from operators.api.plan import (
    Arm,
    Fetch,
    FetchObserved,
    FetchState,
    Key,
    Observation,
    Plan,
    Route,
    RouteObserved,
    Split,
    Workload,
    WorkloadObserved,
)
from operators.api.resources import Resources
from operators.api.runtime import LocalProcess, ServingRuntimeSpec
from operators.planning import runtimes
from operators.router.agent import haproxy
from operators.router.configuration import Listen
from tests.rig import ports
from tests.rig.waiting import until

UNKNOWN = "Request for unknown model: 'nope' is not served here; GET /v2/models lists what is served"

DEADLINE_S = 60.0
BUILTIN = runtimes.builtin("none", sys.executable)[runtimes.ONNXRUNTIME]
SIZE = 175_000
"""float32 numbers: a tensor of 700 KB."""


def artifact(folder: Path, name: str = "model") -> Path:
    """An identity model of one input; every ``name`` has a digest of its own."""
    path = folder / f"{name}.identity.json"
    path.write_text(json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1]}], "comment": name}))
    return path


@dataclasses.dataclass
class Local:
    """One actuator, and a Model's life made short to write."""

    folder: Path
    listen: Listen
    actuator: ProcessActuator
    notified: list[Key]
    http: httpx.AsyncClient
    routes: dict[Key, Route | Split | None] = dataclasses.field(default_factory=dict)
    """What is in the data plane already, and stays there while something else is made ready."""

    @property
    def grpc_url(self) -> str:
        return f"127.0.0.1:{self.listen.grpc_port}"

    async def fetched(self, path: Path) -> Fetch:
        wish = Fetch(path.as_uri(), None)
        key = Key("Model", "default", f"fetch-{path.name.partition('.')[0]}")
        await self.actuator.act(key, Plan(fetches=frozenset({wish})))

        async def done() -> bool:
            return (await self.actuator.observe(key)).fetches[wish].state is not FetchState.FETCHING

        await until(f"{path} is fetched", done)
        seen = (await self.actuator.observe(key)).fetches[wish]
        assert seen.state is FetchState.FETCHED, seen
        return Fetch(path.as_uri(), seen.digest)

    async def act(self, key: Key, plan: Plan) -> None:
        self.routes[key] = plan.route
        await self.actuator.act(key, plan)

    async def observe(self, key: Key) -> Observation:
        return await self.actuator.observe(key)

    async def ready(self, key: Key, plan: Plan) -> Observation:
        """Act, and wait until every workload of the plan is ready."""
        await self.actuator.act(key, plan)

        async def all_ready() -> bool:
            seen = (await self.observe(key)).workloads
            return all(seen[w.name].ready == w.replicas for w in plan.workloads)

        await until(f"{key} is ready", all_ready)
        return await self.observe(key)

    async def serve(
        self,
        source: Fetch,
        *revisions: str,
        weights: Iterable[int] = (10_000,),
        key: Key | None = None,
        replicas: int = 1,
    ) -> Key:
        """``revisions`` ready, and those that have a weight in the data plane."""
        key = key or Key("Model", "default", "digits")
        ready = plan_for(key, source, revisions, replicas=replicas)
        await self.ready(key, dataclasses.replace(ready, route=self.routes.get(key)))
        await self.act(key, plan_for(key, source, revisions, tuple(weights), replicas))

        async def routed() -> bool:
            route = (await self.observe(key)).route
            wanted = plan_for(key, source, revisions, tuple(weights)).route
            return route is not None and isinstance(wanted, Route) and set(route.arms) == set(wanted.arms)

        await until(f"{key} is routed", routed)
        return key

    def processes(self, text: str) -> list[psutil.Process]:
        """Live processes of this data directory whose command line or environment has ``text``."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                words = [*process.cmdline(), *process.environ().values(), process.cwd()]
                ours = any(str(self.folder) in word for word in words)
                alive = process.status() != psutil.STATUS_ZOMBIE and process.pid != os.getpid()
                if ours and alive and any(text in word for word in words):
                    found.append(process)
        return found


def plan_for(
    key: Key, source: Fetch, revisions: Iterable[str], weights: tuple[int, ...] = (), replicas: int = 1
) -> Plan:
    names = tuple(revisions)
    workloads = tuple(
        Workload(f"{key.name}-{r}-fp32", key.namespace, key.name, r, "fp32", source, BUILTIN, replicas, Resources())
        for r in names
    )
    arms = tuple(
        Arm(w.name, w.revision, w.variant, weight) for w, weight in zip(workloads, weights, strict=False) if weight
    )
    route = Route(key.namespace, key.name, arms) if weights else None
    return Plan(fetches=frozenset({source}), workloads=workloads, route=route)


@contextlib.asynccontextmanager
async def running(folder: Path, listen: Listen | None = None) -> AsyncIterator[Local]:
    listen = listen or Listen("127.0.0.1", *ports.free(2))
    notified: list[Key] = []
    actuator = ProcessActuator(
        folder,
        listen,
        python=sys.executable,
        haproxy=haproxy(),
        environment=os.environ,
        notify=notified.append,
    )
    await actuator.start()
    try:
        limits = httpx.Limits(max_connections=64, max_keepalive_connections=64)
        url = f"http://127.0.0.1:{listen.http_port}"
        async with httpx.AsyncClient(base_url=url, timeout=30, limits=limits) as http:
            yield Local(folder, listen, actuator, notified, http)
    finally:
        await actuator.stop()


@pytest.fixture
async def local(tmp_path: Path) -> AsyncIterator[Local]:
    async with running(tmp_path / "data") as here:
        yield here
        assert [p.cmdline() for p in here.processes("") if p.ppid() == 1] == []


BODY = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2], "data": [1.0, 2.0]}]}
ANSWER = [{"name": "x", "datatype": "FP32", "shape": [2], "data": [1.0, 2.0]}]


async def over_http(local: Local, path: str = "/v2/models/digits/infer", **headers: str) -> str:
    """Revision that answered; an AssertionError for anything but the right answer."""
    answer = await local.http.post(path, json=BODY, headers=headers)
    assert answer.status_code == 200, (answer.status_code, answer.text)
    assert answer.json()["outputs"] == ANSWER
    return answer.headers["penstock-revision"]


def message(model: str = "digits") -> service_pb2.ModelInferRequest:
    request = service_pb2.ModelInferRequest(model_name=model)
    request.inputs.add(name="x", datatype="FP32", shape=[2])
    request.raw_input_contents.append(np.array([1, 2], "<f4").tobytes())
    return request


async def over_grpc(stub: service_pb2_grpc.GRPCInferenceServiceStub, model: str = "digits", **metadata: str) -> str:
    pairs = tuple((name.replace("_", "-"), value) for name, value in metadata.items())
    call = stub.ModelInfer(message(model), timeout=30, metadata=pairs)
    answer = await call
    assert answer.raw_output_contents[0] == np.array([1, 2], "<f4").tobytes()
    headers = dict(await call.initial_metadata())
    return str(headers["penstock-revision"])


async def load(calls: list[Callable[[], Awaitable[str]]], count: int, rate: float) -> list[str | BaseException]:
    """``count`` requests, open loop, in turn over ``calls``; what came of each."""
    loop = asyncio.get_running_loop()
    begin = loop.time()
    tasks = []
    for i in range(count):
        await asyncio.sleep(max(0.0, begin + i / rate - loop.time()))
        tasks.append(asyncio.ensure_future(calls[i % len(calls)]()))
    return await asyncio.gather(*tasks, return_exceptions=True)


async def test_replacing_a_revision_under_load_loses_no_request(local: Local, tmp_path: Path) -> None:
    source = await local.fetched(artifact(tmp_path))
    key = await local.serve(source, "r1")
    async with grpc.aio.insecure_channel(local.grpc_url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        requests = asyncio.create_task(load([lambda: over_http(local), lambda: over_grpc(stub)], count=2000, rate=150))
        for old, new in (("r1", "r2"), ("r2", "r3")):
            await local.serve(source, old, new, weights=(10_000, 0), key=key)
            await local.act(key, plan_for(key, source, (old, new), (0, 10_000)))
            await local.act(key, plan_for(key, source, (new,), (10_000,)))

            async def only_new(new: str = new) -> bool:
                return set((await local.observe(key)).workloads) == {f"digits-{new}-fp32"}

            await until(f"only {new} is left", only_new)
        results = await requests
    assert [result for result in results if isinstance(result, BaseException)] == []
    assert set(results) == {"r1", "r2", "r3"}
    log = (local.folder / "router" / "haproxy.log").read_text()
    assert log.count("Reloading HAProxy") == 1, "only the Model's first appearance changes the structure"


async def test_every_form_of_a_name_reaches_its_model(local: Local, tmp_path: Path) -> None:
    source = await local.fetched(artifact(tmp_path))
    await local.serve(source, "r1")
    await local.serve(source, "t1", key=Key("Model", "team-a", "digits"))
    assert [
        await over_http(local),
        await over_http(local, "/default/digits/v2/models/digits/infer"),
        await over_http(local, "/team-a/digits/v2/models/digits/infer"),
        await over_http(local, host="digits.team-a.example.org"),
        await over_http(local, host="digits.default"),
    ] == ["r1", "r1", "t1", "t1", "r1"]
    async with grpc.aio.insecure_channel(local.grpc_url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        assert [
            await over_grpc(stub),
            await over_grpc(stub, penstock_model="team-a/digits"),
        ] == ["r1", "t1"]
    options = [("grpc.default_authority", "digits.team-a.example.org")]
    async with grpc.aio.insecure_channel(local.grpc_url, options=options) as channel:
        assert await over_grpc(service_pb2_grpc.GRPCInferenceServiceStub(channel)) == "t1"
    seen = await local.observe(Key("Model", "team-a", "digits"))
    assert seen.url == f"http://127.0.0.1:{local.listen.http_port}/team-a/digits/v2/models/digits"
    assert (await local.http.get(seen.url)).json()["name"] == "digits"


async def test_unknown_models_are_named_in_the_error(local: Local) -> None:
    answers = [await local.http.get(f"{path}/v2/models/nope") for path in ("", "/team-a/nope")]
    assert [(answer.status_code, answer.json()["error"]) for answer in answers] == [
        (404, UNKNOWN),
        (404, "Request for unknown model: team-a/nope"),
    ]
    async with tritonclient.grpc.aio.InferenceServerClient(local.grpc_url) as client:
        assert await client.is_server_live()
        with pytest.raises(tritonclient.grpc.InferenceServerException) as found:
            await client.get_model_metadata("nope")
        with pytest.raises(tritonclient.grpc.InferenceServerException) as named:
            await client.get_model_metadata("nope", headers={"penstock-model": "team-a/nope"})
    assert (found.value.status(), found.value.message()) == (
        "StatusCode.NOT_FOUND",
        UNKNOWN,
    )
    assert (named.value.status(), named.value.message()) == (
        "StatusCode.NOT_FOUND",
        "Request for unknown model: team-a/nope",
    )


async def test_large_tensors_and_streams_pass_over_grpc(local: Local, tmp_path: Path) -> None:
    source = await local.fetched(artifact(tmp_path))
    await local.serve(source, "r1")
    array = np.arange(SIZE, dtype=np.float32)
    tensor = tritonclient.grpc.InferInput("x", [SIZE], "FP32")
    tensor.set_data_from_numpy(array)
    small = tritonclient.grpc.InferInput("x", [1], "FP32")
    small.set_data_from_numpy(array[:1])

    async def requests() -> AsyncIterator[dict[str, Any]]:
        yield {"model_name": "digits", "inputs": [small]}
        yield {"model_name": "digits", "inputs": [tensor]}

    async with tritonclient.grpc.aio.InferenceServerClient(local.grpc_url) as client:
        answer = await client.infer("digits", [tensor])
        streamed = [result.as_numpy("x") async for result, _ in client.stream_infer(requests())]
        compressed = await client.infer("digits", [tensor], compression_algorithm="gzip")
        named = await client.infer(
            "digits", [tensor], compression_algorithm="gzip", headers={"penstock-model": "default/digits"}
        )
    np.testing.assert_array_equal(answer.as_numpy("x"), array)
    np.testing.assert_array_equal(named.as_numpy("x"), array)
    np.testing.assert_array_equal(np.concatenate(streamed), np.concatenate([array[:1], array]))
    np.testing.assert_array_equal(compressed.as_numpy("x"), array)


async def test_a_route_without_arms_says_why(local: Local) -> None:
    key = Key("Model", "default", "digits")
    why = 'nothing serves "digits"; 50 % of it, at s3://bucket, is missing'
    await local.actuator.act(key, Plan(route=Route("default", "digits", (), why)))
    answer = await local.http.get("/v2/models/digits")
    assert (answer.status_code, answer.json()) == (503, {"error": why})
    async with tritonclient.grpc.aio.InferenceServerClient(local.grpc_url) as client:
        with pytest.raises(tritonclient.grpc.InferenceServerException) as found:
            await client.is_model_ready("digits")
        assert (found.value.status(), found.value.message()) == ("StatusCode.UNAVAILABLE", why)

        async def listed() -> bool:
            models = (await client.get_model_repository_index(as_json=True)).get("models")
            expected = [{"name": "digits", "version": "1", "state": "UNAVAILABLE", "reason": why}]
            return bool(models == expected)

        await until("the index lists the model", listed)
    assert (await local.observe(key)).route == RouteObserved(arms=())


async def test_weights_share_the_traffic(local: Local, tmp_path: Path) -> None:
    source = await local.fetched(artifact(tmp_path))
    key = await local.serve(source, "r1", "r2", weights=(9_000, 1_000))
    count = 1500
    results = await load([lambda: over_http(local)], count=count, rate=300)
    six_sigma = 6 * (count * 0.9 * 0.1) ** 0.5
    assert sorted({str(result) for result in results}) == ["r1", "r2"]
    assert abs(results.count("r2") - count * 0.1) < six_sigma
    route = (await local.observe(key)).route
    assert route is not None
    assert set(route.arms) == {Arm("digits-r1-fp32", "r1", "fp32", 9_000), Arm("digits-r2-fp32", "r2", "fp32", 1_000)}
    assert set(route.in_flight) == {"digits-r1-fp32", "digits-r2-fp32"}


async def test_an_endpoint_shares_requests_and_keeps_its_users(local: Local, tmp_path: Path) -> None:
    source = await local.fetched(artifact(tmp_path))
    await local.serve(source, "d1")
    await local.serve(source, "w1", key=Key("Model", "default", "wide"))
    key = Key("Endpoint", "default", "reader")
    path = "/v2/models/reader/infer"

    async def share(wide: int) -> list[str]:
        split = Split("default", "reader", (("digits", 10_000 - wide), ("wide", wide)), Assignment(header="X-User-Id"))
        await local.actuator.act(key, Plan(route=split))
        return [await over_http(local, path, **{"x-user-id": f"user-{i}"}) for i in range(60)]

    at_20, again, at_60 = await share(2_000), await share(2_000), await share(6_000)
    assert at_20 == again
    assert {(before, after) for before, after in zip(at_20, at_60, strict=True)} == {
        ("d1", "d1"),
        ("d1", "w1"),
        ("w1", "w1"),
    }
    assert {await over_http(local, path) for _ in range(60)} == {"d1", "w1"}
    named = await local.http.get("/default/reader/v2/models/reader")
    assert named.json()["name"] in ("digits", "wide")
    async with tritonclient.grpc.aio.InferenceServerClient(local.grpc_url) as client:
        assert (await client.get_model_metadata("reader")).name in ("digits", "wide")


async def test_a_killed_server_starts_again_on_its_port(local: Local, tmp_path: Path) -> None:
    source = await local.fetched(artifact(tmp_path))
    key = await local.serve(source, "r1")
    [server] = local.processes("digits-r1-fp32-0.last-words")
    server.kill()
    await asyncio.to_thread(server.wait, DEADLINE_S)
    assert await over_http(local) == "r1", "the client waits for the server instead of getting an error"

    async def back() -> bool:
        return (await local.observe(key)).workloads["digits-r1-fp32"] == WorkloadObserved(1, 1, restarts=1)

    await until("the server is back", back)
    [again] = local.processes("digits-r1-fp32-0.last-words")
    assert again.environ()["PENSTOCK_HTTP_PORT"] == server_port(local)


async def test_a_server_that_hangs_leaves_the_data_plane_and_is_killed_and_started_again(
    local: Local, tmp_path: Path
) -> None:
    source = await local.fetched(artifact(tmp_path))
    key = await local.serve(source, "r1")
    [server] = local.processes("digits-r1-fp32-0.last-words")
    server.suspend()
    under_way = asyncio.create_task(local.http.post("/v2/models/digits/infer", json=BODY))

    async def silent() -> bool:
        return bool((await local.observe(key)).workloads["digits-r1-fp32"].message)

    await until("its silence is noticed", silent)
    why = "default/digits/digits-r1-fp32-0 does not answer GET /v2/health/ready"
    seen = await local.observe(key)
    assert seen.workloads["digits-r1-fp32"] == WorkloadObserved(1, 0, message=why)

    async def left() -> bool:
        with contextlib.suppress(httpx.TimeoutException):
            answer = await local.http.post("/v2/models/digits/infer", json=BODY, timeout=1)
            return (answer.status_code, answer.json()) == (503, {"error": why})
        return False

    await until("clients are told at once", left)

    async def back() -> bool:
        return (await local.observe(key)).workloads["digits-r1-fp32"] == WorkloadObserved(1, 1, restarts=1)

    await until("another server is ready", back)

    async def serves() -> bool:
        return (await local.http.post("/v2/models/digits/infer", json=BODY)).status_code == 200

    await until("the router follows", serves)
    assert (await under_way).status_code == 502
    [log] = local.actuator.logs("default", "digits")
    said = "default/digits/digits-r1-fp32-0 did not answer GET /v2/health/ready for 15 s and was killed"
    assert said in log.read_text().splitlines()


def server_port(local: Local) -> str:
    record = json.loads((local.folder / "children/default/digits/digits-r1-fp32-0.json").read_text())
    return str(record["notes"]["http_port"])


@pytest.mark.parametrize("which", ["master", "worker"])
async def test_a_killed_haproxy_starts_again_with_its_table(local: Local, tmp_path: Path, which: str) -> None:
    source = await local.fetched(artifact(tmp_path))
    await local.serve(source, "r1", "r2", weights=(0, 10_000))
    master = psutil.Process(json.loads((local.folder / "router/haproxy.json").read_text())["pid"])
    victim = master if which == "master" else master.children()[0]
    victim.kill()

    async def answers() -> bool:
        with contextlib.suppress(httpx.TransportError):
            return await over_http(local) == "r2"
        return False

    await until("the router is back", answers)


async def test_a_refused_artifact_is_not_tried_again(local: Local, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"this is no model")
    source = await local.fetched(broken)
    key = Key("Model", "default", "digits")
    await local.actuator.act(key, plan_for(key, source, ("r1",)))

    async def refused() -> bool:
        return (await local.observe(key)).workloads["digits-r1-fp32"].refused

    await until("the server refuses", refused)
    seen = (await local.observe(key)).workloads["digits-r1-fp32"]
    said = (
        "broken.onnx is no whole ONNX model (a field of unknown wire type 4 at byte 0 of 16); fetch or export it again"
    )
    assert seen == WorkloadObserved(1, 0, restarts=0, message=said, refused=True)
    assert local.processes("digits-r1-fp32-0.last-words") == []


async def test_a_port_taken_in_the_meantime_is_replaced(local: Local, tmp_path: Path) -> None:
    source = await local.fetched(artifact(tmp_path))
    key = await local.serve(source, "r1")
    port = int(server_port(local))
    [server] = local.processes("digits-r1-fp32-0.last-words")
    server.kill()
    with socket.socket() as thief:
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

        async def stolen() -> bool:
            with contextlib.suppress(OSError):
                thief.bind(("127.0.0.1", port))
                return True
            return False

        await until("the port is taken", stolen)
        thief.listen()

        async def back() -> bool:
            return (await local.observe(key)).workloads["digits-r1-fp32"].ready == 1 and server_port(local) != str(port)

        await until("the server is back on another port", back)

        async def answers() -> bool:
            return (await local.http.post("/v2/models/digits/infer", json=BODY)).status_code == 200

        await until("the router follows", answers)


async def test_a_runtime_without_a_local_command_says_what_to_do(local: Local, tmp_path: Path) -> None:
    source = await local.fetched(artifact(tmp_path))
    key = Key("Model", "default", "digits")
    runtime = ServingRuntimeSpec(image="registry/triton:1", formats=("onnx",))
    workload = Workload("digits-r1-fp32", "default", "digits", "r1", "fp32", source, runtime, 1, Resources())
    await local.actuator.act(key, Plan(fetches=frozenset({source}), workloads=(workload,)))
    assert (await local.observe(key)).workloads == {
        "digits-r1-fp32": WorkloadObserved(
            1,
            0,
            message="workload digits-r1-fp32: its runtime has no local command; "
            "add spec.local.command to the ServingRuntime, or choose a runtime that has one",
        )
    }


async def test_a_command_that_cannot_start_says_why(local: Local, tmp_path: Path) -> None:
    source = await local.fetched(artifact(tmp_path))
    key = Key("Model", "default", "digits")
    runtime = ServingRuntimeSpec(local=LocalProcess(command=("no-such-engine",)), formats=("onnx",))
    workload = Workload("digits-r1-fp32", "default", "digits", "r1", "fp32", source, runtime, 1, Resources())
    await local.actuator.act(key, Plan(fetches=frozenset({source}), workloads=(workload,)))

    async def told() -> bool:
        return bool((await local.observe(key)).workloads["digits-r1-fp32"].message)

    await until("it says why", told)
    seen = (await local.observe(key)).workloads["digits-r1-fp32"]
    assert seen.message == "no-such-engine could not be started: No such file or directory"


async def test_missing_artifacts_are_refused_and_unwanted_ones_deleted(local: Local, tmp_path: Path) -> None:
    one, other = await local.fetched(artifact(tmp_path, "one")), await local.fetched(artifact(tmp_path, "other"))
    missing = Fetch((tmp_path / "missing.onnx").as_uri(), None)
    key = Key("Model", "default", "digits")
    await local.actuator.act(key, Plan(fetches=frozenset({one, missing})))

    async def told() -> bool:
        return (await local.observe(key)).fetches[missing].state is FetchState.REFUSED

    await until("the missing file is refused", told)
    assert (await local.observe(key)).fetches[one] == FetchObserved(FetchState.FETCHED, one.digest)
    for name in ("one", "other"):
        await local.actuator.act(Key("Model", "default", f"fetch-{name}"), Plan())
    local.actuator.settle([key])
    store = local.folder / "artifacts"

    async def only_one() -> bool:
        return [path.name for path in store.iterdir()] == [str(one.digest).replace(":", "-")]

    assert other.digest != one.digest
    await until("only what is wanted is left", only_one)


@dataclasses.dataclass(frozen=True)
class Elsewhere:
    """A data directory whose actuator runs in another process, which is about to be killed."""

    folder: Path
    listen: Listen
    process: subprocess.Popen[bytes]

    async def served(self) -> None:
        url = f"http://127.0.0.1:{self.listen.http_port}/v2/models"
        async with httpx.AsyncClient() as client:

            async def both() -> bool:
                assert self.process.poll() is None
                with contextlib.suppress(httpx.TransportError):
                    codes = [(await client.get(f"{url}/{name}")).status_code for name in ("digits", "gone")]
                    return codes == [200, 200]
                return False

            await until("both models are served", both)


async def elsewhere(folder: Path, http_port: int, grpc_port: int) -> None:
    """What the other process does: serve two Models until it is killed."""
    async with running(folder, Listen("127.0.0.1", http_port, grpc_port)) as local:
        source = await local.fetched(artifact(folder))
        await local.serve(source, "r1")
        await local.serve(source, "g1", key=Key("Model", "default", "gone"))
        await asyncio.Event().wait()


@pytest.fixture
async def killed(tmp_path: Path) -> AsyncIterator[Elsewhere]:
    folder, (http_port, grpc_port) = tmp_path / "data", ports.free(2)
    folder.mkdir()
    command = [sys.executable, "-m", "tests.local.test_process_actuator", folder, http_port, grpc_port]
    with subprocess.Popen([str(part) for part in command], cwd=Path(__file__).parents[2]) as process:
        try:
            yield Elsewhere(folder, Listen("127.0.0.1", http_port, grpc_port), process)
        finally:
            process.kill()


async def test_what_a_killed_supervisor_left_is_adopted_and_orphans_are_ended(killed: Elsewhere) -> None:
    await killed.served()
    url = f"http://127.0.0.1:{killed.listen.http_port}/v2/models/digits/infer"
    before = {
        record: json.loads(record.read_text())["pid"] for record in killed.folder.rglob("*.json") if is_record(record)
    }
    limits = httpx.Limits(max_keepalive_connections=4)
    async with httpx.AsyncClient(timeout=30, limits=limits) as client:

        async def ask() -> str:
            answer = await client.post(url, json=BODY)
            assert answer.status_code == 200, answer.text
            return answer.headers["penstock-revision"]

        requests = asyncio.create_task(load([ask], count=600, rate=100))
        killed.process.send_signal(signal.SIGKILL)
        await asyncio.to_thread(killed.process.wait)
        async with running(killed.folder, killed.listen) as local:
            key, gone = Key("Model", "default", "digits"), Key("Model", "default", "gone")
            adopted = {record: json.loads(record.read_text())["pid"] for record in before if record.exists()}
            assert adopted == before
            assert (await local.observe(key)).workloads == {"digits-r1-fp32": WorkloadObserved(0, 1)}
            assert (await local.observe(gone)).workloads == {"gone-g1-fp32": WorkloadObserved(0, 1)}
            local.actuator.settle([key])
            [digest] = [path.name for path in (killed.folder / "artifacts").iterdir()]
            source = Fetch((killed.folder / "model.identity.json").as_uri(), digest.replace("-", ":"))
            await local.act(key, plan_for(key, source, ("r1",), (10_000,)))

            async def orphans_gone() -> bool:
                return (await local.observe(gone)).workloads == {} and (await local.observe(gone)).route is None

            await until("the orphan is ended", orphans_gone)
            results = await requests
            assert [result for result in results if result != "r1"] == []
            after = {record: json.loads(record.read_text())["pid"] for record in before if record.exists()}
            assert after == {record: pid for record, pid in before.items() if "gone" not in record.name}
            ended = next(pid for record, pid in before.items() if "gone" in record.name)
            assert not psutil.pid_exists(ended) or psutil.Process(ended).status() == psutil.STATUS_ZOMBIE


def is_record(path: Path) -> bool:
    return path.name == "haproxy.json" or "children" in path.parts


if __name__ == "__main__":
    asyncio.run(elsewhere(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
