"""Which arm a request gets: the rules by which HAProxy draws one, keeps a client at one, or takes the one it is told.

A draw is a number below ``FULL_WEIGHT``: by chance, or from a hash of what a client always sends. The arms have fixed
parts of that range, so when a weight grows by 15 %, those change sides whose number lies in these 15 %, and nobody
else. The hash is salted: with an Endpoint's name, and with a Model's name and the revisions between which it is
drawn, so that it is not always the same clients who try what is new.

    sticky.map   ns/name            -> HEADER/COOKIE by which the Model's or Endpoint's clients keep their arm
    salts.map    ns/name            -> revisions of a sticky Model's places
    edges.map    ns/name/i          -> cumulated weight up to share i of an Endpoint
    shares.map   ns/name/i          -> ns/model/ARM of share i
    forced.map   ns/name/REV/VAR    -> the place a client may ask for; either may be empty. Where several have the
                                       variant, one of them is drawn: ``any``
                 ns/name/ARM        -> ns/model/ARM of an Endpoint's arm
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

from operators.api.endpoint import Assignment
from operators.api.plan import FULL_WEIGHT
from operators.router import outcomes
from operators.router.table import Places, Table
from serving import contract

MAPS = ("sticky.map", "salts.map", "edges.map", "shares.map", "forced.map")
GRPC_ANSWER = (
    "http-request return status 200 content-type application/grpc lf-string %[var(txn.nothing)] hdr grpc-status"
)
_ANY = "any"


def maps(table: Table) -> dict[str, dict[str, str]]:
    """Content of the maps named above."""
    of: dict[str, dict[str, str]] = {name: {} for name in MAPS}
    for key, places in table.models.items():
        of["forced.map"] |= dict(_forced(key, places))
        if places.assignment is not None:
            of["sticky.map"][key] = _by(places.assignment)
            of["salts.map"][key] = ".".join(arm.revision if arm else "-" for arm in (places.a, places.b))
    for key, split in table.endpoints.items():
        edges = itertools.accumulate(weight for _, weight in split.shares)
        named = itertools.chain(split.share_arms, itertools.repeat(""))
        for i, ((model, _), edge, arm) in enumerate(zip(split.shares, edges, named, strict=False)):
            of["shares.map"][f"{key}/{i}"] = f"{split.namespace}/{model}/{arm}"
            of["edges.map"][f"{key}/{i}"] = str(edge)
        of["forced.map"] |= {f"{key}/{arm}": f"{split.namespace}/{model}/{arm}" for arm, model in split.names.items()}
        if split.assignment is not None:
            of["sticky.map"][key] = _by(split.assignment)
    return of


def place(key: str, slot: str) -> str:
    """What a Model's place is called in maps and backends."""
    return f"{key.replace('/', ':')}:{slot}"


def model_rules(table: Table) -> Iterator[str]:
    """From a known Model's key and the weight of its place a to ``txn.place``."""
    for by in distinct(places.assignment for places in table.models.values()):
        yield from hashed(by, "txn.draw", "known", "%[var(txn.key),map(salts.map)] ")
    yield f"http-request set-var(txn.draw) rand({FULL_WEIGHT}) if known !{{ var(txn.draw) -m found }}"
    name = "%[var(txn.key),field(1,/)]:%[var(txn.key),field(2,/)]"
    yield f"http-request set-var-fmt(txn.place) {name}:a if known {{ var(txn.route),sub(txn.draw) gt 0 }}"
    yield f"http-request set-var-fmt(txn.place) {name}:b if known !{{ var(txn.place) -m found }}"


def split_rules(table: Table) -> Iterator[str]:
    """From an Endpoint's key to the one of its Models that a request is drawn for."""
    if not table.endpoints:
        return
    yield "acl split var(txn.route) -m str -- -2"
    yield f"http-request set-var(txn.arm_asked) req.hdr({contract.ARM_HEADER}) if rare split"
    yield f"http-request set-var(txn.arm_asked) url_param({contract.ARM_HEADER}) if rare split"
    yield "acl arm_asked var(txn.arm_asked) -m found"
    yield "http-request set-var-fmt(txn.arm_wanted) %[var(txn.key)]/%[var(txn.arm_asked)] if arm_asked"
    yield "http-request set-var(txn.model) var(txn.arm_wanted),map(forced.map) if arm_asked"
    what = "NAMESPACE/ENDPOINT/ARM whose model serves"
    yield from _no_such_arm("arm_asked !{ var(txn.model) -m found }", "txn.arm_wanted", what)
    yield f"http-request set-var(txn.bucket) rand({FULL_WEIGHT}) if split"
    for by in distinct(split.assignment for split in table.endpoints.values()):
        yield from hashed(by, "txn.bucket", "split", "")
    for i in range(max(len(split.shares) for split in table.endpoints.values())):
        yield f"http-request set-var-fmt(txn.share) %[var(txn.key)]/{i} if split"
        yield "http-request set-var(txn.edge) var(txn.share),map_str_int(edges.map) if split"
        drawn = "split !{ var(txn.model) -m found } { var(txn.bucket),sub(txn.edge) lt 0 }"
        yield from outcomes.share_rules(table, drawn)
        yield f"http-request set-var(txn.model) var(txn.share),map(shares.map) if {drawn}"


def drawn_rules(table: Table) -> Iterator[str]:
    """From an Endpoint's key to the key of that Model."""
    if not table.endpoints:
        return
    # The server knows its Model's name and not the Endpoint's.
    yield (
        f"http-request set-header {contract.ALIAS_METADATA_KEY} %[var(txn.key),field(2,/)]/%[var(txn.model),field(2,/)]"
        " if split grpc"
    )
    yield "http-request set-var-fmt(txn.asked) %[var(txn.key),field(1,/)]/%[path,field(4,/),field(1,:)] if split"
    yield (
        r"http-request replace-path ^(/v[12]/models/)[^/:]+(.*) \1%[var(txn.model),field(2,/)]\2"
        " if split { var(txn.asked),strcmp(txn.key) eq 0 }"
    )
    yield "http-request set-var(txn.key) var(txn.model),field(1,/,2) if split"
    yield "http-request set-var(txn.route) var(txn.key),map(routes.map) if split"
    # A report has no route.
    yield (
        f"http-after-response set-header {contract.ARM_HEADER} %[var(txn.model),field(3,/)]"
        " if { var(txn.model) -m found } { var(txn.route) -m found }"
    )


def _by(assignment: Assignment) -> str:
    return f"{(assignment.header or '').lower()}/{assignment.cookie or ''}"


def distinct(assignments: Iterable[Assignment | None]) -> list[Assignment]:
    """All there are, each once."""
    distinct = {_by(each): each for each in assignments if each is not None}
    return [distinct[by] for by in sorted(distinct)]


def hashed(by: Assignment, variable: str, condition: str, salt: str) -> Iterator[str]:
    """The draw of clients that send all that ``by`` names; who does not is left to chance."""
    fetched = [f"req.hdr({by.header.lower()})"] if by.header else []
    fetched += [f"req.cook({by.cookie})"] if by.cookie else []
    sticky = f"{{ var(txn.key),map(sticky.map) -m str {_by(by)} }}"
    whole = " ".join([condition, sticky, *(f"{{ {each} -m found }}" for each in fetched)])
    unit = " ".join(f"%[{each}]" for each in fetched)
    yield f'http-request set-var-fmt(txn.unit) "%[var(txn.key)] {salt}{unit}" if {whole}'
    yield f"http-request set-var({variable}) var(txn.unit),xxh32(0),mod({FULL_WEIGHT}) if {whole}"


def _forced(key: str, places: Places) -> Iterator[tuple[str, str]]:
    """What a client may ask for: arms that have traffic, for one without is about to end."""
    taken = [(arm, slot) for arm, slot in ((places.a, "a"), (places.b, "b")) if arm is not None and arm.weight]
    for arm, slot in taken:
        yield f"{key}/{arm.revision}/{arm.variant}", place(key, slot)
        yield f"{key}/{arm.revision}/", place(key, slot)
        alone = [other.variant for other, _ in taken].count(arm.variant) == 1
        yield f"{key}//{arm.variant}", place(key, slot) if alone else _ANY


def _no_such_arm(condition: str, wanted: str, what: str) -> Iterator[str]:
    yield f'{GRPC_ANSWER} 5 hdr grpc-message "%[var({wanted}),url_enc] is no {what}" if grpc {condition}'
    yield (
        "http-request return status 404 content-type application/json lf-string"
        f""" '{{"error": "%[var({wanted}),json(utf8s)] is no {what}"}}' if {condition}"""
    )


def _forced_rules() -> Iterator[str]:
    for name, variable in ((contract.REVISION_HEADER, "txn.revision"), (contract.VARIANT_HEADER, "txn.variant")):
        yield f"http-request set-var({variable}) req.hdr({name})"
        yield f"http-request set-var({variable}) url_param({name})"
        yield f"acl asked var({variable}) -m found"
    wanted = "%[var(txn.key)]/%[var(txn.revision)]/%[var(txn.variant)]"
    yield f"http-request set-var-fmt(txn.wanted) {wanted} if asked known"
    yield "acl forced var(txn.wanted) -m found"
    yield "http-request set-var(txn.forced) var(txn.wanted),map(forced.map) if forced"
    what = "NAMESPACE/MODEL/REVISION/VARIANT with traffic"
    yield from _no_such_arm("forced !{ var(txn.forced) -m found }", "txn.wanted", what)
    yield f"http-request set-var(txn.place) var(txn.forced) if forced !{{ var(txn.forced) -m str {_ANY} }}"


FORCED = tuple(_forced_rules())
"""From a place that was drawn to the one that a client asks for."""
