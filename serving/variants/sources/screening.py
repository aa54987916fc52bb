"""Files of ``torch.export.save`` without anything that loading them would run.

``torch.export.load`` runs what a file tells it to: it unpickles example inputs, weights and constants that say they are
pickles, loads compiled libraries, evaluates the texts of sizes as Python, calls whatever of ``torch`` a node names, and
writes names into source text that it executes (seen in the source of 2.15). So a program is not loaded as it came.
``screened`` writes it anew from the members that are plain numbers and JSON, without examples, guards and traces; every
text of that JSON must be a name, every node an operator of ATen or arithmetic of sizes, and every size made of symbols
and numbers.
"""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path
from typing import Any

from serving.errors import ArtifactRefused

_MODEL = "models/model.json"
_CONFIGS = re.compile(r"data/(weights|constants)/model_(weights|constants)_config\.json")
_NUMBERS = re.compile(r"data/weights/weight_\d+|data/constants/tensor_\d+")
_STATED = re.compile(r"archive_format|archive_version|byteorder|\.data/(version|serialization_id)")
_EXAMPLES = "data/sample_inputs/model.pt"
_NAME = re.compile(r"[\w.+\- ]*")
_TARGET = re.compile(
    r"torch\.ops\.aten\.\w+\.\w+|torch\.sym_(max|min|sum|not|ite)"
    r"|_operator\.(add|sub|mul|floordiv|truediv|mod|neg|pow|getitem|eq|ne|lt|le|gt|ge)"
)
_SIZE = re.compile(
    r"(Symbol\('[su]\d+'(, (positive|nonnegative|integer)=True)*\)|Integer\(-?\d+\)"
    r"|Add|Mul|Pow|Max|Min|Mod|FloorDiv|CleanDiv|PythonMod|[su]\d+|\d+|[-+*/(), ])*"
)
_SPEC = re.compile(r'([\[\]{},:\d ]|"(type|context|children_spec|builtins\.(tuple|list|dict)|null|\[\])"|null)*')
_LEFT_OUT: dict[str, Any] = {"guards_code": [], "metadata": {}}
"""What says where a program came from, and code that checks inputs."""


def screened(path: Path, written: Path) -> None:
    """The program of ``path`` with nothing in it that loading could run; ArtifactRefused names what else it holds."""
    with zipfile.ZipFile(path) as given, zipfile.ZipFile(written, "w") as kept:
        for member in given.namelist():
            _, _, name = member.partition("/")
            if name == _EXAMPLES:
                kept.writestr(member, b"")
            elif name == _MODEL or _CONFIGS.fullmatch(name):
                kept.writestr(member, json.dumps(_checked(json.loads(given.read(member)), path.name)))
            elif _NUMBERS.fullmatch(name) or _STATED.fullmatch(name):
                kept.writestr(member, given.read(member))
            else:
                raise ArtifactRefused(
                    f"{path.name} holds {member}, which is neither numbers nor a graph and is never loaded; save the "
                    "program with torch.export.save, without constants that are no tensors"
                )


def _checked(told: Any, name: str, key: str = "") -> Any:
    if isinstance(told, dict):
        if told.get("use_pickle") or told.get("as_custom_obj"):
            raise ArtifactRefused(f"{name} holds a pickle, and loading one runs any code it holds, so it never is")
        for one in told:
            _check_text(one, "", name)
        return {one: _LEFT_OUT[one] if one in _LEFT_OUT else _checked(value, name, one) for one, value in told.items()}
    if isinstance(told, list):
        return [_checked(value, name, key) for value in told]
    if isinstance(told, str):
        _check_text(told, key, name)
    return told


def _check_text(text: str, key: str, name: str) -> None:
    allowed = {"target": _TARGET, "expr_str": _SIZE, "in_spec": _SPEC, "out_spec": _SPEC}.get(key, _NAME)
    if not allowed.fullmatch(text):
        raise ArtifactRefused(
            f"{name} has {text[:80]!r} as {key or 'a name'}, and only ATen's operators on tensors, and sizes made of "
            "numbers, are taken; write ONNX with torch.onnx.export"
        )
