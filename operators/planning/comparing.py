"""By what the answers of one model are compared with those of another."""

from __future__ import annotations

import json

from operators.api.compare import Compare
from operators.api.contract import Contract


def how(contract: Contract | None, asked: Compare) -> str:
    """What servers are told, as JSON (``serving.tap.comparison``): the contract's word on the output, and what
    is ``asked``.
    """
    said: dict[str, object] = {}
    output = contract.output if contract else None
    if output is not None and output.detections is not None:
        said["output"] = {"detections": output.detections.to_dict()}
    elif output is not None and output.labels:
        # Their names would not fit into a header, and say nothing here.
        said["output"] = {"labels": True}
    said |= {key: value for key in ("tolerance", "top") if (value := getattr(asked, key)) is not None}
    return json.dumps(said, sort_keys=True)
