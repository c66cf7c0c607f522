"""Declares the torchvision operators that a CPU-only torch misses.

The torchvision wheel on the package index is linked against CUDA's torch. Beside a CPU build of torch
its extension does not load, and ``import torchvision`` stops at ``torchvision::nms``. Declaring the two
operators (never called here) lets the import succeed. Import this module before torchvision, open_clip,
timm, transformers or mmseg.
"""

from __future__ import annotations

import torch

__all__ = ["declare"]

_LIBRARIES: list[torch.library.Library] = []  # torch drops the declaration with the last reference


def declare() -> None:
    """Declare ``torchvision::nms`` and ``qnms`` once, only where torch has no CUDA."""
    if torch.version.cuda is not None or _LIBRARIES:
        return
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _LIBRARIES.append(library)


declare()
