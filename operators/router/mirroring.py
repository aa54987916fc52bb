r"""Requests of which another revision gets a copy, and what came of it: the rules of HAProxy for both.

HAProxy copies nothing itself. To a share of the inference requests that go to the stable revision it adds a header that
says for whom a copy is; the server (``serving.tap``) sends that copy here once its own answer is on its way, and tells
whether the answers agree.

    mirror.map  ns:name:a -> UNITS/WHAT: the share of a's requests in 0.01 %, and the header as URL-safe base64 of JSON

A copy names its revision and gets it whatever the weights are, a revision without any traffic included. Copies are not
counted among a revision's requests, and make no copies. What came of them comes as
``POST /v2/models/NAME/feedback {"revision": …, "agrees": true}`` and is counted in a cell of its own: no server is
asked, the answer is 204.

Both are believed only from who knows the secret in ``tap.secret``, which this machine's servers are started with. It
is drawn by each router for itself, so where no server was told, nobody is believed. A client's own headers of these
names never get past here.
"""

from __future__ import annotations

import base64
import json

from operators.api.plan import FULL_WEIGHT, Mirror
from operators.router import counting
from serving import contract

MAP = "mirror.map"
SECRET = "tap.secret"
"""File in the router's folder; the agent draws it when there is none."""

BEFORE = (
    f"acl from_tap req.hdr({contract.TAP_HEADER}) -m str -f {SECRET}",
    f"http-request set-var(txn.shadow) req.hdr({contract.SHADOW_HEADER}) if from_tap",
    f"http-request set-var(txn.feedback) bool(true) if from_tap METH_POST"
    f" {{ path_beg /v2/models/ }} {{ path_end {contract.FEEDBACK_SUFFIX} }}",
    f"http-request del-header {contract.TAP_HEADER}",
    f"http-request del-header {contract.SHADOW_HEADER}",
    f"http-request del-header {contract.MIRROR_HEADER}",
    "acl shadow var(txn.shadow) -m found",
    "acl feedback var(txn.feedback) -m found",
)
"""Before who sends one of these names goes anywhere."""

_NAME = "%[var(txn.key),field(1,/)]:%[var(txn.key),field(2,/)]"

PLACE = (
    "http-request set-var(txn.shadow) req.body,json_query('$.revision') if feedback",
    "acl aimed var(txn.aimed) -m found",
    *(
        rule
        for slot in "ab"
        for rule in (
            f"http-request set-var-fmt(txn.at) {_NAME}:{slot} if known shadow",
            "http-request set-var(txn.there) var(txn.at),map(arms.map),field(2,/) if known shadow",
            "http-request set-var(txn.aimed) var(txn.at) if known shadow { var(txn.there),strcmp(txn.shadow) eq 0 }",
        )
    ),
    "http-request return status 404 content-type application/json string"
    """ '{"error": "the Model has no such revision now"}' if known shadow !aimed""",
    "http-request set-var(txn.place) var(txn.aimed) if aimed",
)
"""Where a copy goes instead of where chance had it, and whom feedback is about."""

FEEDBACK = (
    "http-request set-var(txn.agrees) req.body,json_query('$.agrees') if feedback",
    f"http-request set-var(txn.said) str({counting.DISAGREED}) if feedback {{ var(txn.agrees) -m found }}",
    f"http-request set-var(txn.said) str({counting.AGREED}) if feedback {{ var(txn.agrees) -m bool }}",
    "acl said var(txn.said) -m found",
    "http-request return status 400 content-type application/json string"
    """ '{"error": "feedback is {\\"revision\\": NAME, \\"agrees\\": true or false}"}' """
    " if feedback !said || feedback !shadow",
    f'http-request track-sc1 var(txn.arm),field(1,/),concat(/,txn.place,/),concat("",txn.said)'
    f" table {counting.TABLE} if feedback aimed",
    "http-request return status 204 if feedback aimed",
)
"""Once the arm is known."""


def copied(which: str) -> tuple[str, ...]:
    """Rules that ask a server to copy its share of the requests that are ``which``, once the place is known."""
    return (
        f"http-request set-var(txn.mirror) var(txn.place),map({MAP}) if {which}",
        "acl mirrored var(txn.mirror) -m found",
        "http-request set-var(txn.units) var(txn.mirror),field(1,/),mul(1) if mirrored",
        f"http-request set-header {contract.MIRROR_HEADER} %[var(txn.mirror),field(2,/)]"
        f" if mirrored inference {{ rand({FULL_WEIGHT}),sub(txn.units) lt 0 }}",
    )


def entry(mirror: Mirror) -> str:
    """What ``mirror.map`` holds of the place whose requests are copied."""
    said = json.dumps({"revision": mirror.revision, "compare": json.loads(mirror.compare)}, separators=(",", ":"))
    return f"{mirror.weight}/{base64.urlsafe_b64encode(said.encode()).decode()}"
