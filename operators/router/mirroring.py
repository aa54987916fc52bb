r"""Requests of which another revision gets a copy, and what came of it: the rules of HAProxy for both.

HAProxy copies nothing itself. To a share of the inference requests that go to the stable revision it adds a header; the
server (``serving.tap``) sends a copy back here once its own answer is on its way, and tells whether the answers agree.

    mirror.map  ns:name:a -> UNITS|AIM|COUNTER|HOW: the share of a's requests in 0.01 %, and what the header says

    penstock-mirror, to a server:    ADDRESS|HOW|TOKEN     HOW is URL-safe base64 of JSON, for the server
    penstock-mirror, from a server:  TOKEN
    TOKEN                            AIM|COUNTER|EXPIRY|MAC
    AIM                              ns:name:b/REVISION: who gets the copy, whatever the weights are; or ns:name: a
                                     Model, by its weights (see ``shadowing``)
    COUNTER                          what the key of the stick table begins with, see ``counting``

A token is a capability: it is good for copies of inference requests to its aim, and for what came of them, until its
time is over (``LIFE_S``). It is signed with a key that only this HAProxy knows, and ADDRESS is its own, so nothing is
shared: not by several routers, not with servers. With another key (HAProxy was started anew) the copies under way are
lost. Whatever carries the header goes to a frontend of its own and nowhere else. There a copy is not counted as a
request and makes no copies; what came of it is counted in a cell of its own, and no server is asked (204).
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Mapping

from operators.api.plan import FULL_WEIGHT
from operators.router import assignment, counting
from operators.router.table import Places
from serving import contract

MAP = "mirror.map"
LIFE_S = 60
"""As long as a copy may wait in a server's line, and no longer than a token that leaked should be good for."""
BACKEND = "copies"
_SOCKET = "unix@copies.sock"
_KEY = "PENSTOCK_TAP_KEY"
_SIGNED = "hmac(sha256,proc.tap_key),hex"

FIRST = (
    f"http-request set-var(txn.tap) req.fhdr({contract.MIRROR_HEADER}) if rare",
    "acl copy var(txn.tap) -m found",
    "http-request allow if copy",
)
"""Before a request is looked at in any other way."""
LED = f"use_backend {BACKEND} if copy"


def copied(which: str) -> tuple[str, ...]:
    """Rules that ask a server to copy its share of the requests that are ``which``, once the place is known."""
    return (
        f"http-request set-var(txn.mirror) var(txn.place),map({MAP}) if {which}",
        *marked("txn.mirror", f"rand({FULL_WEIGHT})"),
    )


def marked(entry: str, draw: str) -> tuple[str, ...]:
    """Rules that mark the requests for which a variable holds an ``entry``, where ``draw`` is in its share."""
    said, found = f"{entry}_said", f"{{ var({entry}) -m found }}"
    header = f"%[var(proc.tap_to)]|%[var({entry}),field(4,|)]|%[var({said})]|%[var({said}),{_SIGNED}]"
    return (
        f"http-request set-var(txn.units) var({entry}),field(1,|),mul(1) if {found}",
        f'http-request set-var-fmt({said}) "%[var({entry}),field(2,|,2)]|%[date({LIFE_S})]"'
        f" if {found} inference {{ {draw},sub(txn.units) lt 0 }}",
        f'http-request add-header {contract.MIRROR_HEADER} "{header}" if {found} {{ var({said}) -m found }}',
    )


_COPIES = (
    f"http-request set-var(txn.tap) req.fhdr({contract.MIRROR_HEADER})",
    f"http-request del-header {contract.MIRROR_HEADER}",
    "http-request set-var(txn.mac) var(txn.tap),field(4,|)",
    "http-request set-var(txn.tap) var(txn.tap),field(1,|,3)",
    "http-request set-var(txn.now) date",
    "http-request set-var(txn.aim) var(txn.tap),field(1,|)"
    f" if {{ var(txn.tap),{_SIGNED},secure_memcmp(txn.mac) }} {{ var(txn.tap),field(3,|),sub(txn.now) gt 0 }}",
    "acl aimed var(txn.aim) -m found",
    "http-request return status 403 content-type application/json string"
    f""" '{{"error": "{contract.MIRROR_HEADER} is no token of this router, or its time is over"}}' if !aimed""",
    *(
        rule
        for path, cell in ((contract.AGREED_PATH, counting.AGREED), (contract.DISAGREED_PATH, counting.DISAGREED))
        for rule in (
            f"http-request track-sc1 var(txn.tap),field(2,|),concat(/{cell}) table {counting.TABLE}"
            f" if METH_POST {{ path {path} }}",
            f"http-request return status 204 if METH_POST {{ path {path} }}",
        )
    ),
    "http-request return status 403 content-type application/json string"
    """ '{"error": "a copy is an inference request"}'"""
    " unless METH_POST { path_beg /v2/models/ } { path_end /infer }",
    "http-request set-var(txn.place) var(txn.aim),field(1,/)",
    "http-request set-var(txn.wanted) var(txn.aim),field(2,/)",
    "acl exact var(txn.wanted) -m found",
    "http-request return status 404 content-type application/json string"
    """ '{"error": "the Model has no such revision now"}'"""
    " if exact !{ var(txn.place),map(arms.map),field(2,/),strcmp(txn.wanted) eq 0 }",
    "http-request set-var-fmt(txn.key) %[var(txn.aim),field(1,:)]/%[var(txn.aim),field(2,:)] if !exact",
    "http-request set-var(txn.weight) var(txn.key),map_str_int(routes.map) if !exact",
    "http-request return status 404 content-type application/json string"
    """ '{"error": "the Model does not serve now"}' if !exact !{ var(txn.weight),add(0) ge 0 }""",
    "http-request set-var-fmt(txn.place) %[var(txn.aim)]:b if !exact",
    f"http-request set-var-fmt(txn.place) %[var(txn.aim)]:a if !exact {{ rand({FULL_WEIGHT}),sub(txn.weight) lt 0 }}",
    f"http-request track-sc1 var(txn.tap),field(2,|),concat(/{counting.COPIED}) table {counting.TABLE} if !exact",
    "use_backend %[var(txn.place)]:h1",
)


def environment() -> Mapping[str, str]:
    """What HAProxy is started with: the key that it signs with, drawn anew each time."""
    return {_KEY: base64.b64encode(secrets.token_bytes(32)).decode()}


def settings(address: str) -> tuple[str, ...]:
    """What the configuration begins with; ``address`` is where servers reach this router."""
    return "global", f"  set-var proc.tap_key env({_KEY})", f'  set-var proc.tap_to str("{address}")'


SECTIONS = (
    f"frontend {BACKEND}",
    f"  bind {_SOCKET} mode 600",
    *(f"  {rule}" for rule in _COPIES),
    f"backend {BACKEND}",
    f"  server self {_SOCKET}",
)


def entries(key: str, places: Places) -> dict[str, str]:
    """What ``mirror.map`` holds of a Model: of the places of all revisions but the one that gets the copies."""
    found = places.mirror
    if found is None:
        return {}
    others = [assignment.place(key, slot) for slot, arm in places.placed if arm.revision != found.revision]
    for slot, arm in places.placed:
        if arm.revision == found.revision:
            aimed = assignment.place(key, slot)
            said = entry(
                found.weight, f"{aimed}/{arm.revision}", f"{arm.workload}/{aimed}", found.compare, revision=arm.revision
            )
            return dict.fromkeys(others, said)
    return {}


def entry(weight: int, aim: str, counter: str, compare: str, **whom: str) -> str:
    """What a map says of copies; ``whom`` is what the server says of who gets them."""
    said = json.dumps({**whom, "compare": json.loads(compare)}, separators=(",", ":"))
    return f"{weight}|{aim}|{counter}|{base64.urlsafe_b64encode(said.encode()).decode()}"
