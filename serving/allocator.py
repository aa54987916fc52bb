"""glibc's allocator, told to keep what a request frees for the next one.

Left to itself it gives the end of the heap back to the kernel when more than about 20 MB of it are free, which is what
one megabyte of JSON takes while it is read: each request then had its memory mapped and cleared page by page again,
4 of the 13 ms that it cost.
"""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
KEPT_BYTES = 64 * 2**20
"""Free memory at the end of the heap that stays with the process."""
MAPPED_BYTES = 32 * 2**20
"""Blocks from here on are mapped by themselves, and given back when freed; glibc takes no larger number."""


def keep_freed() -> None:
    """Sets both limits, for this process and its forks; another C library is left as it is."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, MAPPED_BYTES)
