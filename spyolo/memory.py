"""Memory that a process gives back is memory it must ask for again, page by page, zeroed each time."""

from __future__ import annotations

import ctypes
import sys

# mallopt's parameters, from glibc's malloc.h
TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> bool:
    """Let glibc keep the memory of freed tensors for the next ones; for a process whose every step allocates the same.

    By default a tensor of more than 32 MiB is mapped when it is made and unmapped when it is freed: a training step then spends up to a
    third of its time in page faults. Kept, the process holds its peak for good. Where the C library is another, nothing happens.

    Returns:
        Whether it took effect.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # musl has no mallopt
        return False
    return all([mallopt(MMAP_MAX, 0), mallopt(TRIM_THRESHOLD, 2**31 - 1), mallopt(TOP_PAD, 64 * 2**20)])
