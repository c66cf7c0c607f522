"""The version of this software, as setup.cfg has it (what is installed may be another checkout's)."""

from __future__ import annotations

__all__ = ["VERSION"]

VERSION = "0.1.0"
