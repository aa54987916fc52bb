"""Objects as people read them: one line each for ``get``, a page for ``describe``.

Objects come as JSON and are only shown, so that a command line of one version can show those of another.
"""

from __future__ import annotations

import contextlib
import datetime
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from operators.api.commands import ONGOING, PAUSED
from operators.cli import arms
from operators.cli.client import Object

if TYPE_CHECKING:
    from operators.cli.artifacts import Upload

Row = Sequence[str]
_FULL_WEIGHT = 10_000
_LARGE_BYTES = 8_000_000
"""From here on sending takes long enough for a bar."""


def table(rows: Iterable[Row]) -> str:
    """Rows as aligned columns, three spaces apart; the first row is the head."""
    cells = [[cell or "-" for cell in row] for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(*cells, strict=True)]
    lines = ("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)
    return "".join(f"{line.rstrip()}\n" for line in lines)


def rows(kind: str, objects: Sequence[Object], now: datetime.datetime, wide: bool) -> list[Row]:
    """Head and lines of ``get``; namespaces are shown when there is more than one."""
    head, line = _KINDS[kind]
    columns = [name for name, only_wide in head if wide or not only_wide]
    several = len({_meta(o).get("namespace", "") for o in objects}) > 1
    result: list[Row] = [(["NAMESPACE"] if several else []) + columns]
    for object_ in objects:
        cells = line(object_, now)
        shown = [cell for cell, (_, only_wide) in zip(cells, head, strict=True) if wide or not only_wide]
        result.append(([_meta(object_).get("namespace", "")] if several else []) + shown)
    return _filled(result)


_MEASURED = (
    *("ROLLOUT", "EXPERIMENT", "SHADOWS", "OUTCOMES", "MEAN", "BESIDE THE FIRST"),
    *("GAIN", "SIZE", "QUALITY", "DROP", "AT MOST", "CPU MS"),
)
"""Columns that are there only where somebody has something in them."""


def _filled(rows: Sequence[Row]) -> list[Row]:
    head, *lines = rows
    kept = [place for place, name in enumerate(head) if name not in _MEASURED or any(line[place] for line in lines)]
    return [[row[place] for place in kept] for row in rows]


_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
"""A copy of the whole object, which kubectl does not show either."""


def describe(object_: Object, now: datetime.datetime) -> str:
    """Everything a person asks of one object, with the reasons."""
    meta, spec, status = _meta(object_), object_.get("spec", {}), object_.get("status", {})
    facts = [
        ("Name", meta["name"]),
        ("Namespace", meta.get("namespace", "")),
        ("Kind", object_["kind"]),
        ("Labels", _pairs(meta.get("labels", {}))),
        ("Annotations", _pairs({k: v for k, v in meta.get("annotations", {}).items() if k != _LAST_APPLIED})),
        ("Created", f"{meta.get('creationTimestamp', '')} ({age(meta.get('creationTimestamp'), now)} ago)"),
        ("Generation", _generation(meta, status)),
        ("URL", status.get("url", "")),
        ("Rollout", _rollout_told(object_)),
        ("Experiment", arms.verdict(object_)),
        *_spec_facts(object_["kind"], spec),
    ]
    width = max(len(name) for name, _ in facts) + 3
    text = "".join(f"{name + ':':<{width}}{value}\n" for name, value in facts if value)
    sections: list[tuple[str, Row, Iterable[Row]]] = [
        (
            "Arms",
            ("NAME", "MODEL", "WEIGHT", "OUTCOMES", "MEAN", "BESIDE THE FIRST"),
            arms.rows(object_),
        ),
        (
            "Shadows",
            ("MODEL", "PERCENT", "COPIED", "COMPARED", "AGREED", "MESSAGE"),
            arms.shadows(object_),
        ),
        (
            "Conditions",
            ("TYPE", "STATUS", "SINCE", "REASON", "MESSAGE"),
            (
                (c["type"], c["status"], age(c["lastTransitionTime"], now), c["reason"], c["message"])
                for c in status.get("conditions", ())
            ),
        ),
        (
            "Variants",
            ("NAME", "STATE", "SIZE", "QUALITY", "DROP", "AT MOST", "CPU MS", "GAIN", "DIGEST", "WHY"),
            (_variant(v) for v in status.get("variants", ())),
        ),
        (
            "Revisions",
            ("NAME", "VARIANT", "STATE", "WEIGHT", "READY", "RESTARTS", "SINCE", "DIGEST", "MESSAGE"),
            (
                (
                    r["name"],
                    r["variant"],
                    r["state"],
                    percent(r.get("weight", 0)),
                    str(r.get("readyReplicas", 0)),
                    str(r.get("restarts", "")),
                    age(r["since"], now),
                    short(r.get("recipe", {}).get("digest")),
                    r.get("message", ""),
                )
                for r in status.get("revisions", ())
            ),
        ),
    ]
    for title, head, lines in sections:
        if body := list(lines):
            text += f"{title}:\n" + "".join(f"  {line}\n" for line in table(_filled([head, *body])).splitlines())
    return text + arms.differences(object_)


def _variant(told: Object) -> Row:
    """A variant's line: what it is worth and what it takes, where that was measured."""
    quality, cpu_ms, gain = told.get("quality") or {}, told.get("cpuMs") or {}, told.get("gain")
    return (
        told["name"],
        told["state"],
        f"{told['bytes'] / 1024:.0f} KiB" if told.get("bytes") else "",
        *(f"{quality[key]:.4f}" if key in quality else "" for key in ("value", "drop", "dropUpperBound")),
        f"{next(iter(cpu_ms.values())):.3g}" if cpu_ms else "",
        f"{gain:.1f}x" if gain else "",
        short(told.get("digest")),
        told.get("reason", ""),
    )


def condition(object_: Object, type_: str) -> Object:
    """The condition of this type, empty if there is none yet."""
    found: Iterable[Object] = object_.get("status", {}).get("conditions", ())
    return next((c for c in found if c["type"] == type_), {})


def age(since: str | None, now: datetime.datetime) -> str:
    """How long ago, in the one or two units that matter: ``42s``, ``5m``, ``3h``, ``12d``."""
    if not since:
        return ""
    seconds = max(0, int((now - datetime.datetime.fromisoformat(since.replace("Z", "+00:00"))).total_seconds()))
    for unit, size, upto in (("s", 1, 120), ("m", 60, 7200), ("h", 3600, 172800)):
        if seconds < upto:
            return f"{seconds // size}{unit}"
    return f"{seconds // 86400}d"


def short(digest: str | None) -> str:
    """A digest as people compare it."""
    return digest.removeprefix("sha256:")[:12] if digest else ""


def _meta(object_: Object) -> Object:
    meta: Object = object_["metadata"]
    return meta


def _generation(meta: Object, status: Object) -> str:
    if "generation" not in meta:
        return ""
    return f"{meta['generation']} (status speaks of {status.get('observedGeneration', 'none')})"


def _pairs(values: Object) -> str:
    return ", ".join(f"{key}={value}" for key, value in sorted(values.items()))


def _spec_facts(kind: str, spec: Object) -> list[tuple[str, str]]:
    if kind == "Model":
        source = spec["source"]
        return [
            ("Source", source["uri"]),
            ("Digest", source.get("digest", "")),
            ("Runtime", spec.get("runtime", "")),
        ]
    if kind == "ServingRuntime":
        local = (spec.get("local") or {}).get("command", ())
        return [
            ("Formats", ", ".join(spec["formats"])),
            ("Protocols", ", ".join(spec.get("protocols", ()))),
            ("Image", spec.get("image", "")),
            ("Local", " ".join(local)),
        ]
    assignment = spec.get("assignment") or {}
    by = " and ".join(f"{what} {assignment[what]}" for what in ("header", "cookie") if what in assignment)
    return [("Assignment", f"by {by}" if by else "per request")]


def percent(weight: int) -> str:
    """A weight in 0.01 % as people say it: 12.5 %."""
    return f"{100 * weight / _FULL_WEIGHT:g} %"


def held_since(model: Object) -> str:
    """Since when rollouts are held by hand, RFC 3339; empty: they are not."""
    return str(_meta(model).get("annotations", {}).get(PAUSED, ""))


def is_held(model: Object) -> bool:
    """Whether the next rollout will wait, while none goes on."""
    spec: Object = model["spec"].get("rollout") or {}
    goes_on = (model.get("status", {}).get("rollout") or {}).get("state") in ONGOING
    return bool(spec) and not goes_on and bool(held_since(model) or spec.get("paused"))


def _rollout(object_: Object) -> str:
    """A rollout that is not over, or came to nothing, or is held before it begins, in a few words."""
    status: Object = object_.get("status", {})
    rollout: Object = status.get("rollout") or {}
    if rollout.get("state") in ONGOING:
        word = "" if rollout["state"] == "Progressing" else f", {rollout['state'].lower()}"
        step = min(rollout.get("step", 0) + 1, rollout.get("steps", 0))
        return f"{percent(rollout.get('observed', 0))} ({step}/{rollout.get('steps', 0)}{word})"
    is_refused = any(r["state"] == "RolledBack" for r in status.get("revisions", ()))
    told = ("rolled back" if is_refused else "", "paused" if is_held(object_) else "")
    return ", ".join(filter(None, told))


def _rollout_told(object_: Object) -> str:
    """The same as a sentence."""
    rollout: Object = object_.get("status", {}).get("rollout") or {}
    told = _rollout(object_)
    if not told:
        return ""
    if told == "paused":
        return f"paused; a new revision waits for `penstock rollout resume {_meta(object_)['name']}`"
    following = f"; next: {rollout['next']}" if rollout.get("next") else ""
    at = f" at {rollout['nextAt']}" if rollout.get("nextAt") else ""
    return f"{rollout.get('message', '')}{following}{at}"


def _age(object_: Object, now: datetime.datetime) -> str:
    return age(_meta(object_).get("creationTimestamp"), now)


def _model(object_: Object, now: datetime.datetime) -> Row:
    status, ready = object_.get("status", {}), condition(object_, "Ready")
    serving: Object = next((r for r in status.get("revisions", ()) if r["state"] == "Serving"), {})
    wanted = object_["spec"].get("replicas", 1)
    return [
        _meta(object_)["name"],
        ready.get("status", "Unknown"),
        status.get("variant", ""),
        status.get("gain", ""),
        status.get("revision", ""),
        _rollout(object_),
        f"{status.get('readyReplicas', 0)}/{wanted}",
        status.get("url", ""),
        _age(object_, now),
        short(serving.get("recipe", {}).get("digest") or object_["spec"]["source"].get("digest")),
        ready.get("message", "not looked at yet"),
    ]


def _endpoint(object_: Object, now: datetime.datetime) -> Row:
    ready = condition(object_, "Ready")
    shadows = object_.get("status", {}).get("shadows", ())
    return [
        _meta(object_)["name"],
        ready.get("status", "Unknown"),
        ",".join(f"{name}={weight:g}" for name, weight in arms.weights(object_).items()),
        arms.experiment(object_).get("state", "").lower(),
        object_.get("status", {}).get("url", ""),
        _age(object_, now),
        ",".join(f"{s['model']}={s.get('agreed', 0)}/{s.get('compared', 0)}" for s in shadows),
        ready.get("message", "not looked at yet"),
    ]


def _runtime(object_: Object, now: datetime.datetime) -> Row:
    spec: dict[str, Any] = object_["spec"]
    return [
        _meta(object_)["name"],
        ",".join(spec["formats"]),
        ",".join(spec.get("protocols", ())),
        "yes" if spec.get("local") else "no",
        _age(object_, now),
        spec.get("image", ""),
    ]


_Columns = Sequence[tuple[str, bool]]
_KINDS: dict[str, tuple[_Columns, Callable[[Object, datetime.datetime], Row]]] = {
    "Model": (
        (
            ("NAME", False),
            ("READY", False),
            ("VARIANT", False),
            ("GAIN", False),
            ("REVISION", False),
            ("ROLLOUT", False),
            ("REPLICAS", False),
            ("URL", False),
            ("AGE", False),
            ("DIGEST", True),
            ("MESSAGE", True),
        ),
        _model,
    ),
    "Endpoint": (
        (
            ("NAME", False),
            ("READY", False),
            ("ARMS", False),
            ("EXPERIMENT", False),
            ("URL", False),
            ("AGE", False),
            ("SHADOWS", True),
            ("MESSAGE", True),
        ),
        _endpoint,
    ),
    "ServingRuntime": (
        (
            ("NAME", False),
            ("FORMATS", False),
            ("PROTOCOLS", False),
            ("LOCAL", False),
            ("AGE", False),
            ("IMAGE", True),
        ),
        _runtime,
    ),
}


def as_json(data: Any) -> str:
    """JSON for programs, its keys in their order."""
    return json.dumps(data, indent=2)


def amount(number_of_bytes: int) -> str:
    """A number of bytes as people say it: 2.2 MB."""
    size = float(number_of_bytes)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


@contextlib.contextmanager
def sending(upload: Upload, number_of_bytes: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal's standard error while something large is sent; nothing is left of it."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    console = Console(stderr=True)
    columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    hidden = not console.is_terminal or number_of_bytes < _LARGE_BYTES
    with Progress(*columns, console=console, transient=True, disable=hidden) as progress:
        task = progress.add_task(upload.path.name, total=number_of_bytes)
        yield lambda sent: progress.advance(task, sent)
