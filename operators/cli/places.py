"""Where in a YAML file something stands, so that an error names the line to look at."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import yaml

from operators.api.errors import Path


@dataclasses.dataclass(frozen=True)
class Place:
    """A document of a file."""

    file: str
    number: int
    """Of the document, from 1."""
    node: yaml.Node

    def __str__(self) -> str:
        return self.of(())

    def of(self, paths: Sequence[Path]) -> str:
        """File, document and the lines of ``paths``; of what is not there, the line of what it would stand in."""
        lines = list(dict.fromkeys(self._line(path) for path in paths)) or [self.node.start_mark.line + 1]
        return f"{self.file}, document {self.number}, line{'s' * (len(lines) > 1)} {', '.join(map(str, lines))}"

    def _line(self, path: Path) -> int:
        line = self.node.start_mark.line
        for mark in _marks(self.node, path):
            line = mark.line
        return int(line) + 1


def _marks(node: yaml.Node, path: Path) -> Iterator[yaml.Mark]:
    for step in path:
        if isinstance(node, yaml.MappingNode):
            found = next(((key, value) for key, value in node.value if getattr(key, "value", None) == step), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            found = (node.value[step], node.value[step])
        else:
            return
        if found is None:
            return
        yield found[0].start_mark
        node = found[1]
