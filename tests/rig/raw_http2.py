"""A client that sends any HTTP/2 frames it is told to, for what no gRPC client would send."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
from collections.abc import Iterator, Sequence

import h2.config
import h2.connection
import h2.events

DEADLINE_S = 30.0

Headers = Sequence[tuple[str, str]]


@dataclasses.dataclass
class Answer:
    """What came on one stream."""

    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    body: bytes = b""
    trailers: dict[str, str] = dataclasses.field(default_factory=dict)
    reset: int | None = None
    """Error code of RST_STREAM."""
    ended: bool = False

    @property
    def status(self) -> tuple[str, str]:
        """Code and message of the call, wherever they stand."""
        found = self.trailers if "grpc-status" in self.trailers else self.headers
        return found.get("grpc-status", ""), found.get("grpc-message", "")


class Client:
    """One connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        config = h2.config.H2Configuration(validate_outbound_headers=False, normalize_outbound_headers=False)
        self.h2 = h2.connection.H2Connection(config)
        self.answers: dict[int, Answer] = {}
        self.goaway: int | None = None
        self.closed = False
        self.h2.initiate_connection()
        self.flush()

    def flush(self) -> None:
        """Sends what was prepared."""
        self.socket.sendall(self.h2.data_to_send())

    def open(self, headers: Headers, end: bool = False) -> int:
        """Begins a stream."""
        stream: int = self.h2.get_next_available_stream_id()
        self.answers[stream] = Answer()
        self.h2.send_headers(stream, headers, end_stream=end)
        self.flush()
        return stream

    def send(self, stream: int, data: bytes, end: bool = False) -> None:
        """Sends data of any length that the windows allow, waiting for them."""
        while data or end:
            room = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
            if not room:
                self.receive()
                continue
            part, data = data[:room], data[room:]
            self.h2.send_data(stream, part, end_stream=end and not data)
            self.flush()
            if end and not data:
                return

    def reset(self, stream: int, code: int = 8) -> None:
        """Ends a stream by RST_STREAM: CANCEL."""
        self.h2.reset_stream(stream, code)
        self.flush()

    def answer(self, stream: int) -> Answer:
        """The whole answer on a stream, or as much of it as came before the connection ended."""
        found = self.answers[stream]
        while not (found.ended or self.closed):
            self.receive()
        return found

    def receive(self) -> None:
        """Takes what comes next."""
        try:
            data = self.socket.recv(65536)
        except ConnectionError:
            data = b""
        if not data:
            self.closed = True
            return
        for event in self.h2.receive_data(data):
            self._take(event)
        with contextlib.suppress(ConnectionError):
            self.flush()

    def _take(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.ConnectionTerminated):
            self.goaway = int(event.error_code or 0)
        if isinstance(event, h2.events.ResponseReceived):
            self.answers[event.stream_id].headers = _text(event.headers)
        elif isinstance(event, h2.events.TrailersReceived):
            self.answers[event.stream_id].trailers = _text(event.headers)
        elif isinstance(event, h2.events.DataReceived):
            self.answers[event.stream_id].body += event.data
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            self.answers[event.stream_id].ended = True
        elif isinstance(event, h2.events.StreamReset):
            self.answers[event.stream_id].reset = int(event.error_code)
            self.answers[event.stream_id].ended = True


def _text(headers: Sequence[tuple[bytes, bytes]] | None) -> dict[str, str]:
    return {bytes(name).decode(): bytes(value).decode() for name, value in headers or ()}


@contextlib.contextmanager
def connected(authority: str) -> Iterator[Client]:
    """A connection to HOST:PORT."""
    host, _, port = authority.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=DEADLINE_S) as connection:
        yield Client(connection)


def call(method: str, /, *extra: tuple[str, str], **replaced: str) -> list[tuple[str, str]]:
    """Headers of a gRPC call; ``replaced`` by name, with _ for -."""
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": f"/inference.GRPCInferenceService/{method}",
        ":authority": "penstock",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    named = {name.replace("_", "-"): value for name, value in replaced.items()}
    headers |= {(f":{name}" if f":{name}" in headers else name): value for name, value in named.items()}
    return [*headers.items(), *extra]


def framed(message: bytes, flag: int = 0, length: int | None = None) -> bytes:
    """A message behind gRPC's prefix; ``length`` says another length than it has."""
    return bytes([flag]) + (len(message) if length is None else length).to_bytes(4, "big") + message
