"""What ``serving.http.protocol`` leans on inside uvicorn: a new version that moves it fails here, by name."""

import asyncio
import inspect
import re

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState


async def application(scope: object, receive: object, send: object) -> None:
    """Never called."""


async def test_a_protocol_has_the_attributes_that_ours_uses() -> None:
    config = uvicorn.Config(application, ws="none", lifespan="off", log_config=None)
    config.load()

    protocol = HttpToolsProtocol(config, ServerState(), {}, asyncio.get_running_loop())

    assert {"app", "client", "cycle", "flow", "loop", "parser", "pipeline", "tasks", "transport"} <= set(vars(protocol))
    protocol.on_message_begin()
    assert protocol.scope["headers"] is protocol.headers
    assert (protocol.url, protocol.headers, protocol.expect_100_continue) == (b"", [], False)


def test_the_methods_that_ours_overrides_take_what_they_took() -> None:
    taken = {
        name: list(inspect.signature(getattr(HttpToolsProtocol, name)).parameters)[1:]
        for name in (
            "__init__", "connection_made", "connection_lost", "on_message_begin", "on_headers_complete", "on_body",
            "on_message_complete", "on_response_complete", "_start_asgi_task", "resume_writing", "shutdown",
        )
    }  # fmt: skip

    assert taken == {
        "__init__": ["config", "server_state", "app_state", "_loop"],
        "connection_made": ["transport"],
        "connection_lost": ["exc"],
        "on_message_begin": [],
        "on_headers_complete": [],
        "on_body": ["body"],
        "on_message_complete": [],
        "on_response_complete": [],
        "_start_asgi_task": ["cycle", "app"],
        "resume_writing": [],
        "shutdown": [],
    }


def test_uvicorn_asks_of_a_cycle_what_an_exchange_has() -> None:
    source = inspect.getsource(HttpToolsProtocol)

    assert set(re.findall(r"\bcycle\.(\w+)", source)) == {
        "body",
        "disconnected",
        "keep_alive",
        "message_event",
        "more_body",
        "response_complete",
        "run_asgi",
    }
