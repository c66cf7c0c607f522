"""The prompt templates a concept is put into: CLIP's 80 for ImageNet, as open_clip ships them."""

from __future__ import annotations

import models.torchvision_ops  # noqa: F401  (before open_clip, see there)

__all__ = ["PROMPT_TEMPLATES"]


def _read() -> tuple[str, ...]:
    from open_clip import OPENAI_IMAGENET_TEMPLATES

    # open_clip holds functions; what they do to a mark tells the text around it
    return tuple(template("{}") for template in OPENAI_IMAGENET_TEMPLATES)


PROMPT_TEMPLATES: tuple[str, ...] = _read()
"""Each holds ``{}`` once, for the concept."""
