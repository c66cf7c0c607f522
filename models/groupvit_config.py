"""The sizes of a GroupViT, with named presets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from configs.errors import UserError

__all__ = ["STEMS", "GroupViTConfig"]

STEMS = ("linear", "convolution")


@dataclass(frozen=True)
class GroupViTConfig:
    """The architecture of GroupViT (Xu et al. 2022, section 3); the defaults are the paper's.

    One entry of ``depths`` and ``group_tokens`` a stage. A stage with group tokens ends by grouping its
    segments into that many; the last one has none. ``drop_path`` is the chance of skipping the last
    block, rising linearly from 0 at the first. ``gumbel_noise=False`` makes the training-time assignment
    deterministic (still hard and straight-through), for tests and comparisons.

    ``stem``: ``linear``, the paper's patch projection, or ``convolution`` (models.layers.stem). ``assign_gain``: weights
    of the assignment start with deviation gain / sqrt(width); 0 is the paper's 0.02 at any width. With that, first
    logits deviate by 0.16 at the paper's width and by 0.05 at a third of it, beside noise of 1.28: narrow networks
    then assign by chance for long, and a gain of 1.5 mends it. ``assign_centred``: each group's logits have mean 0
    over an image's segments, which keeps a few groups from taking all (both: docs/training.md).
    """

    image_size: int = 224
    patch_size: int = 16
    width: int = 384
    depths: tuple[int, ...] = (6, 3, 3)
    heads: int = 6
    mlp_ratio: float = 4.0
    group_tokens: tuple[int, ...] = (64, 8, 0)
    drop_path: float = 0.1
    gumbel_noise: bool = True
    stem: str = "linear"
    assign_gain: float = 0.0
    assign_centred: bool = False
    text_width: int = 256
    text_layers: int = 12
    text_heads: int = 4
    context_length: int = 77
    vocab_size: int = 49408
    embed_dim: int = 256
    projector_hidden: int = 4096
    init_temperature: float = 0.07

    def __post_init__(self) -> None:
        object.__setattr__(self, "depths", tuple(self.depths))
        object.__setattr__(self, "group_tokens", tuple(self.group_tokens))
        problem = self._problem()
        if problem:
            raise UserError(f"GroupViT configuration: {problem}")

    def _problem(self) -> str:
        """The first contradiction among the values, in words; empty if there is none."""
        if self.image_size <= 0 or self.patch_size <= 0 or self.image_size % self.patch_size:
            return (
                f"image_size={self.image_size} is not a multiple of patch_size={self.patch_size}; make it one"
            )
        if self.width % self.heads:
            return f"width={self.width} does not divide into heads={self.heads}; make it a multiple"
        if self.text_width % self.text_heads:
            return f"text_width={self.text_width} does not divide into text_heads={self.text_heads}; make it a multiple"
        if len(self.depths) != len(self.group_tokens) or not self.depths:
            return f"depths={self.depths} and group_tokens={self.group_tokens} need one entry a stage each"
        if any(n < 1 for n in self.group_tokens[:-1]) or self.group_tokens[-1] != 0:
            return f"group_tokens={self.group_tokens}: every stage but the last needs some, the last 0"
        if self.stem not in STEMS:
            return f"stem={self.stem!r}: write {' or '.join(STEMS)}"
        if self.stem == "convolution" and (self.patch_size < 2 or self.patch_size & (self.patch_size - 1)):
            return f"stem=convolution halves images: patch_size={self.patch_size} must be 2, 4, 8, 16 or 32"
        if not 0.0 <= self.assign_gain < math.inf:
            return f"assign_gain={self.assign_gain} is no gain; write 0 (the paper's) or a number above, e.g. 1.5"
        if not 0.0 <= self.drop_path < 1.0:
            return f"drop_path={self.drop_path} is not in [0, 1)"
        return ""

    @property
    def grid(self) -> int:
        """Patches a side at ``image_size``."""
        return self.image_size // self.patch_size

    @classmethod
    def preset(cls, name: str, **changes: Any) -> GroupViTConfig:
        """A named configuration, with single values changed.

        Raises:
            UserError: there is no preset of that name, or a value does not fit.
        """
        if name not in _PRESETS:
            raise UserError(f"GroupViT preset {name!r} does not exist: write one of {', '.join(_PRESETS)}")
        return replace(cls(**_PRESETS[name]), **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain types only, as stored in weight files."""
        values = asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> GroupViTConfig:
        """The inverse of :meth:`to_dict`.

        Raises:
            UserError: unknown names (the file is of a newer version) or values that do not fit.
        """
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise UserError(
                f"GroupViT configuration has unknown entries {', '.join(map(str, unknown))}: "
                "it was written by another version; load it with that one"
            )
        return cls(**values)


_PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    # Half the paper's width: for one small GPU.
    "small": {
        "width": 192, "heads": 3, "text_width": 192, "text_layers": 6, "text_heads": 3, "projector_hidden": 1024,
    },
    # 64-pixel images of the demo's drawn world on two CPU cores; stored in half precision under 8 MB.
    "demo": {
        "image_size": 64, "patch_size": 8, "width": 128, "depths": (3, 1), "heads": 4, "group_tokens": (16, 0),
        "drop_path": 0.0, "stem": "convolution", "assign_gain": 1.5, "assign_centred": True, "text_width": 40, "text_layers": 2,
        "text_heads": 4, "context_length": 32, "embed_dim": 128, "projector_hidden": 256,
    },
    # For tests: every part present, milliseconds a step.
    "tiny": {
        "image_size": 32, "patch_size": 8, "width": 32, "depths": (1, 1, 1), "heads": 2, "group_tokens": (6, 3, 0),
        "text_width": 24, "text_layers": 2, "text_heads": 2, "context_length": 16, "embed_dim": 16,
        "projector_hidden": 48,
    },
}  # fmt: skip
