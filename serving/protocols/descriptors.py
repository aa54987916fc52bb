"""Protobuf message classes from a compiled descriptor set, in a pool of their own.

The default pool is shared by a whole process: tritonclient and kserve both register the package
``inference`` there, and whoever comes second fails. A private pool meets neither of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, message_factory
from google.protobuf.descriptor_pool import DescriptorPool


class Messages:
    """The message classes and services of one descriptor set."""

    def __init__(self, descriptor_set: Path) -> None:
        files = descriptor_pb2.FileDescriptorSet.FromString(descriptor_set.read_bytes())
        self._pool = DescriptorPool()
        for file in files.file:
            self._pool.AddSerializedFile(file.SerializeToString())

    def message(self, name: str) -> Any:
        """The class of the message with this full name."""
        return message_factory.GetMessageClass(self._pool.FindMessageTypeByName(name))

    def methods(self, service: str) -> dict[str, tuple[Any, Any]]:
        """Request and response class of each method of a service, by the method's name."""
        found = self._pool.FindServiceByName(service)
        return {
            method.name: (
                message_factory.GetMessageClass(method.input_type),
                message_factory.GetMessageClass(method.output_type),
            )
            for method in found.methods
        }
