"""Ports of loopback that nobody listens on."""

from __future__ import annotations

from benchmarks import processes


def free(count: int) -> list[int]:
    """So many different ones, as ``benchmarks.processes`` finds them."""
    return processes.free_ports(count)
