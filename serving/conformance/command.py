"""``penstock conformance``: every check, told as it ends."""

from __future__ import annotations

import logging
import sys

from serving.conformance import checks, report
from serving.conformance.target import Place, Target
from serving.contract import Exit

_TITLES = {
    "rest": "REST",
    "rpc": "gRPC",
    "mistakes": "mistakes",
    "together": "many requests at once",
    "watched": "metrics",
    "closed": "closed to clients",
}


def run(place: Place, *, as_json: bool) -> Exit:
    """Asks the server at ``place``; FAILED where Penstock cannot use it."""
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it tells of every request
    target = Target(place)
    found, area = [], ""
    try:
        for finding in checks.findings(target):
            found.append(finding)
            if as_json:
                continue
            if finding.check.area != area:
                area = finding.check.area
                print(f"{_TITLES[area]}: it")
            print(report.line(finding), flush=True)
    finally:
        target.close()
    print(report.document(found) if as_json else report.summary(found))
    sys.stdout.flush()
    return Exit.FAILED if report.lacking(found) else Exit.OK
