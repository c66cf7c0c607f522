"""The ``train`` section of the configuration."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["TrainConfig"]


@dataclass
class TrainConfig:
    """GroupViT training (paper, section 4.1; GroupViT, section 4)."""

    sampling: str = "cluster"
