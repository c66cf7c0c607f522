"""Imports mmsegmentation beside mmcv-lite, which lacks the compiled operators that mmseg imports and we never call.

Import this module before anything of ``mmseg``.
"""

from __future__ import annotations

import importlib.util
import sys
import types
import warnings

import models  # noqa: F401  (declares torchvision's operators, which timm inside mmseg needs)

__all__ = ["import_mmseg"]

_EXTENSION = "mmcv._ext"


class _MissingOperators(types.ModuleType):
    """Stands in for mmcv's extension while mmseg is imported: every operator exists and refuses to run."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)

        def refuse(*_: object, **__: object) -> None:
            raise NotImplementedError(f"mmcv operator {name}: install the full mmcv instead of mmcv-lite")

        return refuse


def import_mmseg() -> None:
    """Import mmseg's models, data sets, metrics and transforms, which registers them."""
    if "mmseg.models" in sys.modules:
        return
    stub_needed = importlib.util.find_spec(_EXTENSION) is None
    if stub_needed:
        sys.modules[_EXTENSION] = _MissingOperators(_EXTENSION)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import mmseg.datasets
            import mmseg.evaluation
            import mmseg.models  # noqa: F401
    finally:
        # mmengine looks at this module to tell whether mmcv is complete, so it must not stay
        if stub_needed:
            del sys.modules[_EXTENSION]


import_mmseg()
