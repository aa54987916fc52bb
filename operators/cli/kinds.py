"""The kinds as people name them on a command line.

The table repeats what the API types say, because parsing them takes longer than all of ``penstock get``.
"""

from __future__ import annotations

import dataclasses

PREFIX = "/apis/penstock.dev/v1alpha1"
APPLY, MERGE = "application/apply-patch+yaml", "application/merge-patch+json"
"""Media types of the two kinds of PATCH."""


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of the API and its names."""

    kind: str
    plural: str
    names: tuple[str, ...]
    """Everything else it may be called, in lower case."""
    namespaced: bool = True
    prefix: str = PREFIX
    """URL path of group and version."""

    def path(self, namespace: str | None, name: str | None = None) -> str:
        """URL path of one object, or of all of one namespace or (None) of all namespaces."""
        place = f"/namespaces/{namespace}" if self.namespaced and namespace is not None else ""
        return f"{self.prefix}{place}/{self.plural}" + (f"/{name}" if name else "")


KINDS = (
    Kind("Model", "models", ("model", "mdl")),
    Kind("Endpoint", "endpoints", ("endpoint", "pep")),
    Kind(
        "ServingRuntime",
        "servingruntimes",
        ("servingruntime", "srt", "runtimes", "runtime"),
        namespaced=False,
    ),
)


def find(word: str) -> Kind | None:
    """The kind called ``word``: plural, singular or short, in any case."""
    word = word.lower()
    return next((kind for kind in KINDS if word in (kind.plural, *kind.names)), None)


def of(kind: str) -> Kind:
    """The kind with exactly this name."""
    return next(known for known in KINDS if known.kind == kind)
