r"""What HAProxy is told: a text that changes with the set of names only, and maps and servers that change at run time.

Rules that few requests need come behind an ``allow`` for all the others, see ``RARE``.

A request's way, in the order of the rules: find the key NAMESPACE/NAME (gRPC metadata, Host, path, or the model name
inside a gRPC message); an Endpoint's key becomes the key of one of its Models; a Model's key becomes one of its two
places; a place is two backends, one for each protocol its servers speak. All numbers and names come from maps, so
weights, revisions, variants and servers change without a reload.

    routes.map   ns/name    -> weight of place a in 0.01 %, -1 where nothing serves, -2 for an Endpoint
    reasons.map  ns/name    -> base64 of why nothing serves it
    arms.map     ns:name:a  -> workload/revision/variant/protocol of unary gRPC
    names.map    hex of the field that holds a gRPC message's model name, its length included -> ns/name
    spent.map    ns:name:a:h1 -> 1 where no request is sent again, see ``budget``
    counted.map  ns/name    -> where requests are counted, see ``counting``
    mirror.map   ns:name:a  -> for whom its requests are copied, see ``mirroring``
    and those of ``assignment`` and ``outcomes``
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import itertools
import pathlib
from collections.abc import Iterator, Mapping

from operators.router import assignment, budget, counting, mirroring, outcomes, shadowing
from operators.router.table import Server, Table
from serving import contract

H1, H2 = PROTOCOLS = "h1", "h2"
MAPS = (
    "routes.map",
    "reasons.map",
    "arms.map",
    "names.map",
    *assignment.MAPS,
    counting.MAP,
    mirroring.MAP,
    outcomes.MAP,
    shadowing.MAP,
    budget.MAP,
)
_STRUCTURE = "STRUCTURE"


@dataclasses.dataclass(frozen=True)
class Listen:
    """Where clients reach the router."""

    host: str
    http_port: int
    grpc_port: int
    https_port: int = 0
    """REST and gRPC with TLS; 0: none."""
    certificate: str = dataclasses.field(default="", kw_only=True)
    """File with chain and key; as long as there is none, nobody listens on ``https_port``. Its name says what is in
    it, so that another certificate is another structure.
    """
    metrics_port: int = dataclasses.field(default=0, kw_only=True)
    """Where ``/metrics`` is, if not with the clients. Then clients may be strangers to each other, and are told of no
    Model that they do not name: neither by metrics nor by the list of Models.
    """
    reached_at: str = dataclasses.field(default="", kw_only=True)
    """Address at which model servers reach this router; empty: ``host``, and loopback where that is every address."""

    @property
    def own_host(self) -> str:
        """Where whoever is near reaches the router."""
        return self.reached_at or ("127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host)


def maps(table: Table) -> dict[str, dict[str, str]]:
    """Content of every map file."""
    of: dict[str, dict[str, str]] = {name: {} for name in MAPS}
    for key, places in table.models.items():
        of["names.map"] |= _message_name(key)
        if places.observe:
            of[counting.MAP][key] = outcomes.NAMED if places.feedback else "1"
        of["routes.map"][key] = str(places.weight_of_a) if places.arms else "-1"
        if not places.arms or (places.message and not table.serves(key)):
            reason = places.message or f"nothing serves {key} yet"
            of["reasons.map"][key] = base64.b64encode(reason.encode()[:2048]).decode()
        for place, arm in places.placed:
            servers = table.servers.get(f"{key.partition('/')[0]}/{arm.workload}", ())
            # Of one without servers nothing is known, and its last ones may still be there: every engine takes HTTP/2.
            protocol = H1 if servers and all(server.grpc_over_http1 for server in servers) else H2
            of["arms.map"][assignment.place(key, place)] = f"{arm.workload}/{arm.revision}/{arm.variant}/{protocol}"
        of[mirroring.MAP] |= mirroring.entries(key, places)
    for key, split in table.endpoints.items():
        of["names.map"] |= _message_name(key)
        of["routes.map"][key] = "-2" if split.shares else "-1"
        if not split.shares:
            of["reasons.map"][key] = base64.b64encode(f"no model of endpoint {key} serves".encode()).decode()
        if split.shadows:
            of[counting.MAP][key] = "1"
    return of | assignment.maps(table) | outcomes.maps(table) | {shadowing.MAP: shadowing.entries(table)}


def map_files(table: Table) -> dict[str, str]:
    """All map files by name, with what no command changes among them."""
    return {name: map_text(entries) for name, entries in (maps(table) | {counting.CELLS_MAP: counting.cells()}).items()}


def servers(table: Table) -> dict[str, dict[str, str]]:
    """Servers by backend: name WORKLOAD:HOST:PORT → what follows it in a ``server`` line."""
    backends: dict[str, dict[str, str]] = {}
    for key, places in table.models.items():
        for place, arm in (("a", places.a), ("b", places.b)):
            for protocol in PROTOCOLS:
                backend = backends.setdefault(f"{assignment.place(key, place)}:{protocol}", {})
                if arm is not None:
                    for server in table.servers.get(f"{key.partition('/')[0]}/{arm.workload}", ()):
                        backend[server_name(arm.workload, server, protocol)] = _address(server, protocol)
    return backends


def server_name(workload: str, server: Server, protocol: str) -> str:
    """What a server is called in the backends of its arm."""
    return f"{workload}:{server.host}:{_port(server, protocol)}"


def pods(table: Table) -> dict[str, str]:
    """HOST:PORT of a server's HTTP port by each name that the server has."""
    return {
        server_name(key.partition("/")[2], server, protocol): _authority(server.host, server.http_port)
        for key, of in table.servers.items()
        for server in of
        for protocol in PROTOCOLS
    }


def structure(table: Table, listen: Listen) -> str:
    """Name of all that only a reload can change; HAProxy gives it back as its description."""
    return hashlib.sha256(_text(table, listen, {}).encode()).hexdigest()[:16]


def text(table: Table, listen: Listen) -> str:
    """The configuration file, with the servers of now, for a worker that starts now."""
    return _text(table, listen, servers(table)).replace(_STRUCTURE, structure(table, listen))


def map_text(entries: Mapping[str, str]) -> str:
    """One map file."""
    return "".join(f"{key} {value}\n" for key, value in sorted(entries.items()))


def _port(server: Server, protocol: str) -> int:
    return server.http_port if protocol == H1 else server.grpc_port


def _address(server: Server, protocol: str) -> str:
    return _authority(server.host, _port(server, protocol)) + (" proto h2" if protocol == H2 else "")


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _message_name(key: str) -> dict[str, str]:
    namespace, _, name = key.partition("/")
    if namespace != "default":
        return {}
    # Field 1, a string: tag 0x0A, then its length, so that no name is taken for the beginning of another.
    return {(b"\x0a" + bytes([len(name)]) + name.encode()).hex().upper(): key}


def _text(table: Table, listen: Listen, servers_of: Mapping[str, Mapping[str, str]]) -> str:
    lines = [*_GLOBAL, *mirroring.settings(_authority(listen.own_host, listen.http_port)), "frontend clients"]
    lines += [f"  bind {_authority(listen.host, listen.http_port)}"]
    lines += [f"  bind {_authority(listen.host, listen.grpc_port)} proto h2"]
    if listen.https_port and listen.certificate:
        address = _authority(listen.host, listen.https_port)
        lines += [f"  bind {address} ssl crt {listen.certificate} alpn h2,http/1.1 ssl-min-ver TLSv1.2"]
    lines += [f"  {rule}" for rule in (*_KEY, *(_METRICS_APART if listen.metrics_port else _METRICS))]
    rules = (*_NAME, *_packed_rules(table), *_ROUTE, *shadowing.rules(table), *assignment.split_rules(table))
    rules = (*rules, *outcomes.rules(table), *assignment.drawn_rules(table), *_REASON)
    rules = (*rules, *assignment.model_rules(table), *_placed(table), *_LED)
    lines += [f"  {rule}" for rule in rules]
    if listen.metrics_port:
        lines += ["frontend metrics", f"  bind {_authority(listen.host, listen.metrics_port)}"]
        lines += [f"  http-request use-service prometheus-exporter if {{ path {contract.METRICS_PATH} }}"]
        lines += ["  http-request return status 404"]
    lines += mirroring.SECTIONS
    lines += [f"backend {counting.TABLE}", f"  {counting.STORE}"]
    lines += [f"  server catalog {_address(table.catalog, H1)}"] if table.catalog is not None else []
    lines += outcomes.SECTION
    for key in sorted(table.models):
        for place, protocol in itertools.product(("a", "b"), PROTOCOLS):
            backend = f"{assignment.place(key, place)}:{protocol}"
            lines += [f"backend {backend}", "  balance leastconn"]
            # Over HTTP/2 a client that does not read stops the connection its answers come on: each has its own.
            lines += ["  http-reuse never"] if protocol == H2 else []
            lines += [f"  {rule}" for rule in _REPLICATED] if table.models[key].replicated else []
            lines += [f"  {rule}" for rule in _limit(key, place, table.models[key].max_concurrent)]
            lines += [f"  server {name} {rest}" for name, rest in servers_of.get(backend, {}).items()]
    return "\n".join(lines) + "\n"


_GLOBAL = (
    "global",
    f"  description {_STRUCTURE}",
    # A port that is taken must be an error, not a share of somebody else's traffic.
    "  noreuseport",
    "  hard-stop-after 300s",
    # A container may be allowed a billion, and HAProxy makes room for as many as it may have.
    "  fd-hard-limit 65536",
    # Tensors are large: fewer wake-ups a megabyte, and windows that do not stop a sender in the middle of one.
    "  tune.bufsize 65536",
    "  tune.h2.initial-window-size 1048576",
    "  .if feature(LUA)",
    f"  lua-load-per-thread {pathlib.Path(__file__).with_name('unpack.lua')}",
    "  .endif",
    "  httpclient.retries 0",
    "  httpclient.resolvers.disabled on",
    "defaults",
    "  mode http",
    "  timeout connect 1s",
    "  timeout client 60s",
    "  timeout server 300s",
    "  timeout queue 30s",
    "  timeout http-request 30s",
    # Shorter than the servers keep theirs, so that no request meets a connection that is being closed, and shorter than
    # a server's drain timeout, for a worker that makes room sends what its idle connections bring to servers of before.
    "  timeout http-keep-alive 20s",
    # Only what the server cannot have seen is sent again, but see _REPLICATED.
    # With a second between attempts on one server, a server that restarts at once costs its clients a delay.
    "  retries 3",
    "  retry-on conn-failure",
    "  option redispatch 1",
    "  option abortonclose",
    # A worker that makes room for its successor answers once more on each connection instead of closing it under a
    # request that is already on its way.
    "  option idle-close-on-response",
    "  http-reuse always",
    """  http-error status 502 content-type application/json string '{"error": "the server ended before it answered; send the request again"}'""",  # noqa: E501
    """  http-error status 503 content-type application/json string '{"error": "no server of the model answers; it may be starting again, send the request again"}'""",  # noqa: E501
    """  http-error status 504 content-type application/json string '{"error": "the server did not answer in time"}'""",
)

_STREAM = f"/{contract.GRPC_SERVICE}/{contract.STREAM_METHOD}"
# A tensor that is not computed says nothing: streams, metadata and readiness have their own times.
_INFERENCE = f"/infer :predict /{contract.GRPC_SERVICE}/ModelInfer"
_HEX_OF_NAME = "req.body,bytes(5,70),hex"
"""Behind five bytes of gRPC framing: tag, length and at most 63 characters."""

_GRPC_ANSWER = assignment.GRPC_ANSWER

RARE = "penstock-"
"""Part of a header's or parameter's name. It is looked for once, so that who sends none of those that few send does not
pay for the rules about each of them.
"""

_REPLICATED = (
    # One more server and no third: a request that kills servers kills two.
    "retries 1",
    "retry-on conn-failure empty-response",
    f"http-request disable-l7-retry if {{ nbsrv lt 2 }} || {{ be_name,map({budget.MAP}) -m found }}",
)
"""Where there is another server, it gets the request of one that ended before the first byte of an answer."""


def _limit(key: str, place: str, most: int | None) -> Iterator[str]:
    """Refuse at once what is more than an arm may have, by whatever protocol. Only who is limited pays for the look."""
    if most is None:
        return
    full = f"{{ var(txn.h1),add(txn.h2) gt {most} }}"
    what = f"{key} already has the {most} requests that spec.traffic.maxConcurrent lets under way; try again"
    for protocol in PROTOCOLS:
        yield f"http-request set-var(txn.{protocol}) be_conn({assignment.place(key, place)}:{protocol})"
    yield f'{_GRPC_ANSWER} 14 hdr grpc-message "{what}" if {{ var(txn.grpc) -m found }} {full}'
    yield (
        "http-request return status 503 content-type application/json string"
        f""" '{{"error": "{what}"}}' hdr retry-after 1 if {full}"""
    )


_KEY = (
    "http-request set-var(txn.grpc) bool(true) if { req.hdr(content-type) -m beg application/grpc }",
    "acl grpc var(txn.grpc) -m found",
    f"http-request set-var(txn.stream) bool(true) if grpc {{ path {_STREAM} }}",
    "acl stream var(txn.stream) -m found",
    f"http-request set-var(txn.rare) bool(true) if {{ req.hdr_names -m sub {RARE} }} || {{ query -m sub {RARE} }}",
    "acl rare var(txn.rare) -m found",
    f"acl inference path_end {_INFERENCE}",
    *mirroring.FIRST,
    "acl named var(txn.key) -m found",
    "acl known var(txn.route) -m found",
    "http-request return status 415 content-type application/json string"
    """ '{"error": "a gRPC call has the content type application/grpc"}'"""
    f" if !grpc {{ path_beg /{contract.GRPC_SERVICE}/ }}",
    f"http-request set-var(txn.key) req.hdr({contract.MODEL_METADATA_KEY}) if grpc",
    "http-request set-var(txn.explicit) bool(true) if named",
    "http-request set-var(txn.host) req.hdr(host),host_only",
    "http-request set-var-fmt(txn.by_host) %[var(txn.host),field(2,.)]/%[var(txn.host),field(1,.)] if !named",
    "http-request set-var(txn.key) var(txn.by_host) if !named { var(txn.by_host),map(routes.map) -m found }",
)
# With a Model's host it is the Model's server that is asked.
_METRICS = (f"http-request use-service prometheus-exporter if !named {{ path {contract.METRICS_PATH} }}",)
_METRICS_APART = (
    f"http-request return status 404 if {{ path,url_dec -m str {contract.METRICS_PATH} }}",
    # A server shows whoever reaches it what others asked it.
    f"http-request return status 404 if {{ path,url_dec -m beg {contract.DEBUG_PATH} }}",
)

_NAME = (
    "http-request set-var-fmt(txn.key) default/%[path,field(4,/),field(1,:)]"
    " if !named !grpc { path_beg /v2/models/ /v1/models/ }",
    "http-request set-var(txn.explicit) bool(true) if !named !grpc { path,field(4,/) -m str v1 v2 }",
    "http-request set-var-fmt(txn.key) %[path,field(2,/)]/%[path,field(3,/)]"
    " if !named !grpc { var(txn.explicit) -m bool }",
    r"http-request replace-path ^/[^/]+/[^/]+(/.*) \1 if !grpc { var(txn.explicit) -m bool }",
    # A stream's first message may be short and need not be its last.
    "http-request wait-for-body time 10s at-least 75 if grpc !named !stream",
    "http-request wait-for-body time 10s at-least 8 if grpc !named stream",
    f"http-request set-var(txn.key) {_HEX_OF_NAME},map_beg(names.map) if grpc !named",
)

_ROUTE = (
    f"{_GRPC_ANSWER} 12 hdr grpc-message"
    f' "the router cannot read the name in this compressed message; send metadata {contract.MODEL_METADATA_KEY}:'
    ' NAMESPACE/NAME, or no compression"'
    " if grpc !named { req.body,bytes(0,1),hex -m str 01 } !{ var(txn.unpacked) -m found }",
    # Only what is here as a whole can be sent again. What is larger than a buffer goes on as soon as that is full.
    "http-request wait-for-body time 30s if !stream",
    "http-request set-var(txn.route) var(txn.key),map(routes.map)",
    f"{_GRPC_ANSWER} 5 hdr grpc-message"
    ' "Request for unknown model: %[var(txn.key),url_enc]" if !known grpc { var(txn.explicit) -m bool }',
    # On a client's old connection a worker that makes room may be asked for what came after it.
    "http-request return status 503 content-type application/json string"
    """ '{"error": "routes have just changed; send the request again"}' hdr retry-after 0"""
    " if !known { stopping } { var(txn.key) -m found }",
    "http-request return status 404 content-type application/json lf-string"
    """ '{"error": "Request for unknown model: %[var(txn.key),json(utf8s)]"}'"""
    " if !known { var(txn.explicit) -m bool }",
)

_REASON = (
    f"{_GRPC_ANSWER} 14 hdr grpc-message"
    ' "%[var(txn.key),map(reasons.map),b64dec,url_enc]" if grpc { var(txn.key),map(reasons.map) -m found }',
    "http-request return status 503 content-type application/json lf-string"
    """ '{"error": "%[var(txn.key),map(reasons.map),b64dec,json(utf8s)]"}'"""
    " if !grpc { var(txn.key),map(reasons.map) -m found }",
)


def _arm(table: Table, which: str, counted: str = "") -> tuple[str, ...]:
    """The arm at the place of requests that are ``which``, and whether they are ``counted``."""
    return (
        f"http-request set-var(txn.arm) var(txn.place),map(arms.map) if known {which}",
        *counting.request(f"known {which} {counted}"),
        *outcomes.named(table),
        *mirroring.copied(f"known {which}"),
    )


def _placed(table: Table) -> tuple[str, ...]:
    """From a Model's place to the arm there."""
    return (
        *_arm(table, "!rare"),
        "http-request allow if !rare",
        *assignment.FORCED,
        # Who asks for an arm is no random sample.
        *_arm(table, "rare", "!forced"),
    )


_LED = (
    f"http-after-response set-header {contract.REVISION_HEADER} %[var(txn.arm),field(2,/)]"
    " if { var(txn.arm) -m found }",
    # A server that took another variant, for what its processor lacks, says so itself.
    f"http-after-response set-header {contract.VARIANT_HEADER} %[var(txn.arm),field(3,/)]"
    f" if {{ var(txn.arm) -m found }} !{{ res.hdr({contract.VARIANT_HEADER}) -m found }}",
    *counting.RESPONSE,
    mirroring.LED,
    # Loading and unloading is for whoever declares the Model, not for whoever asks it: the catalog says so.
    f"use_backend catalog if {{ path,url_dec -m beg /v2/repository/models/ /{contract.GRPC_SERVICE}/RepositoryModel }}",
    "use_backend %[var(txn.place)]:h1 if known !grpc",
    "use_backend %[var(txn.place)]:h2 if known stream",
    # Under load an arm was now and then not found in its map for a moment (HAProxy 2.8): every engine takes HTTP/2.
    "use_backend %[var(txn.place)]:h2 if known grpc !{ var(txn.arm),field(4,/) -m str h1 }",
    "use_backend %[var(txn.place)]:h1 if known",
    outcomes.WAY,
    "default_backend catalog",
)


def _packed_rules(table: Table) -> Iterator[str]:
    if table.catalog is None:
        return
    packed = "grpc !named { req.body,bytes(0,1),hex -m str 01 }"
    url = f"http://{_address(table.catalog, H1)}{contract.GRPC_HEAD_PATH}"
    yield ".if feature(LUA)"
    yield f"http-request wait-for-body time 10s at-least 1029 if {packed} !stream"
    yield f"http-request lua.unpack {url} if {packed}"
    yield "http-request set-var(txn.key) var(txn.unpacked),map_beg(names.map) if grpc !named"
    yield ".endif"
