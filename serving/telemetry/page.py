"""``/debug/requests``: what is in work, and the slowest requests of the last minutes with where their time went."""

from __future__ import annotations

import html
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from serving.telemetry import records
from serving.telemetry.observing import Call
from serving.telemetry.records import Record

if TYPE_CHECKING:
    from serving.service import Worker

MAX_IN_WORK = 200
"""Requests in work that are shown, the oldest ones."""


def document(
    in_work: Iterable[tuple[Call, float]], slowest: Iterable[Sequence[Record]], worker: Worker | None
) -> dict[str, Any]:
    """What the page says; ``in_work`` are requests and when they were received (``time.perf_counter``).

    Where there are several workers it is one's view, so it says whose.
    """
    now = time.perf_counter()
    oldest = sorted(in_work, key=lambda pair: pair[1])
    whose = {} if worker is None else {"worker": worker._asdict()}
    return whose | {
        "in_work": {
            "count": len(oldest),
            "oldest": [_in_work(call, now - received) for call, received in oldest[:MAX_IN_WORK]],
        },
        "slowest": [
            {"model": table[0].model, "version": table[0].version, "requests": [record.document() for record in table]}
            for table in slowest
        ],
    }


def _in_work(call: Call, age_s: float) -> dict[str, Any]:
    facts = call.facts()
    shown = {
        "protocol": facts.protocol,
        "model": facts.model[: records.MAX_TEXT],
        "version": facts.version[: records.MAX_TEXT],
        "id": facts.id[: records.MAX_TEXT],
        "bytes_in": facts.bytes_in,
        "age_ms": round(age_s * 1000, 3),
        "trace_id": records.trace_id(call.header("traceparent")),
    }
    return {name: value for name, value in shown.items() if value != ""}


def as_json(page: dict[str, Any]) -> bytes:
    """The page for programs."""
    return orjson.dumps(page, option=orjson.OPT_INDENT_2)


def as_html(page: dict[str, Any]) -> bytes:
    """The page for people."""
    work = page["in_work"]
    whose = "<p>Worker {number} of {of} alone, counted from 0; each shows its own.</p>"
    said = whose.format(**page["worker"]) if "worker" in page else ""
    parts = [_HEAD, f"<h1>Requests</h1>{said}<h2>In work: {work['count']}</h2>", _table(work["oldest"])]
    for table in page["slowest"]:
        parts.append(f"<h2>Slowest of {html.escape(table['model'])}, version {html.escape(table['version'])}</h2>")
        parts.append(_table(table["requests"]))
    return "".join(parts).encode()


def _table(rows: Sequence[dict[str, Any]]) -> str:
    if not rows:
        return "<p>none</p>"
    columns = [name for name in _COLUMNS if any(name in row for row in rows)]
    lines = [_row("th", columns)]
    lines += [_row("td", [str(row.get(name, "")) for name in columns]) for row in rows]
    return f"<table>{''.join(lines)}</table>"


def _row(cell: str, texts: Iterable[str]) -> str:
    return "<tr>" + "".join(f"<{cell}>{html.escape(text)}</{cell}>" for text in texts) + "</tr>"


_COLUMNS = (
    "age_ms", "time", "total_ms", "queue_ms", "compute_ms", "decode_ms", "encode_ms", "batch", "cached", "status",
    "reason", "error", "protocol", "model", "version", "id", "bytes_in", "bytes_out", "trace_id",
)  # fmt: skip
_HEAD = (
    "<!doctype html><meta charset=utf-8><title>Requests</title><style>body{font-family:sans-serif}"
    "table{border-collapse:collapse}td,th{border:1px solid #ccc;padding:.2em .6em;text-align:left}"
    "td{font-family:monospace}</style>"
)
