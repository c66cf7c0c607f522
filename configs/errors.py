"""Errors meant for the person at the keyboard, and how entry points show them."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable

__all__ = ["UserError", "is_full_disk", "run_entry"]

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class UserError(Exception):
    """A mistake the user can mend: one sentence with what was found, where, and what to do."""


def is_full_disk(error: OSError) -> bool:
    """Whether a file could not be written because disk, quota or the limit of a file's size is reached."""
    return error.errno in _FULL


def run_entry(main: Callable[[list[str]], int | None], argv: list[str] | None = None) -> None:
    """Run ``main(argv)`` as a process entry point and exit.

    A :class:`UserError` and a full disk become one line on stderr and exit code 2, Ctrl-C exit code 130; any other
    exception is a bug and keeps its traceback.
    """
    arguments = sys.argv[1:] if argv is None else argv
    try:
        code = main(arguments) or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except OSError as error:
        if not is_full_disk(error):
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(
            f"error: {where}the disk takes no more ({error.strerror}); free space and run again",
            file=sys.stderr,
        )
        code = 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    sys.stdout.flush()
    sys.stderr.flush()
    raise SystemExit(code)
