"""The ``evaluate`` section of the configuration."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["EvaluateConfig"]


@dataclass
class EvaluateConfig:
    """Zero-shot segmentation (GroupViT, section 4; mmsegmentation)."""

    data_root: str = "data"
