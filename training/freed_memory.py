"""What becomes of a step's memory on a CPU once torch has freed it.

The C library (glibc) maps every tensor above 32 MB anew and gives it back when it is freed, as it does with what lies
free at the end of its heap. The kernel hands each of these pages out as zeros, one fault for 4 KB: a step of the
paper's model with 64 images had a million and a half faults, a fifth of its time (docs/training.md).
"""

from __future__ import annotations

import ctypes
import os

__all__ = ["keep_freed_memory"]

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""``M_TRIM_THRESHOLD`` and ``M_MMAP_MAX`` of glibc's malloc.h."""
_SET_BY_USER = ("MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Let this process keep what it frees, for the next step; whether that could be had.

    The process stays as large as its largest step was, a tenth more where free pieces do not fit. Nothing is changed
    where the user has set one of glibc's own variables, or where the C library is another one.
    """
    if any(name in os.environ for name in _SET_BY_USER):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # musl, macOS, Windows
        return False
    never = -1
    return bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, never))
