"""Errors meant for the person at the keyboard, and how entry points show them."""

from __future__ import annotations

import sys
from collections.abc import Callable

__all__ = ["UserError", "run_entry"]


class UserError(Exception):
    """A mistake the user can mend: one sentence with what was found, where, and what to do."""


def run_entry(main: Callable[[list[str]], int | None], argv: list[str] | None = None) -> None:
    """Run ``main(argv)`` as a process entry point and exit.

    A :class:`UserError` becomes one line on stderr and exit code 2, Ctrl-C exit code 130; any other
    exception is a bug and keeps its traceback.
    """
    arguments = sys.argv[1:] if argv is None else argv
    try:
        code = main(arguments) or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    sys.stdout.flush()
    sys.stderr.flush()
    raise SystemExit(code)
