"""How good a CLIP is on unseen drawn scenes: ranking by label, retrieval of captions, likeness of neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from configs.schema import ClipConfig
from demo.clip_data import SceneSet, draw_set, label_prompts
from demo.world.captions import phrase
from demo.world.scenes import LABELS

__all__ = ["Quality", "average_precision", "measure_quality"]

_RETRIEVAL = 500


@dataclass(frozen=True)
class Quality:
    """Figures of one model; every share is between 0 and 1."""

    scenes: int
    retrieval_scenes: int
    average_precision: dict[str, float]
    chance: float
    recall_at_1: float
    recall_at_5: float
    neighbour_overlap: float
    random_overlap: float

    @property
    def mean_average_precision(self) -> float:
        """Mean over labels."""
        return float(np.mean(list(self.average_precision.values())))

    def summary(self) -> str:
        """The figures in a few lines."""
        ranked = sorted(self.average_precision.items(), key=lambda item: item[1])
        return (
            f"label mAP {self.mean_average_precision:.3f} (chance {self.chance:.3f}) on {self.scenes} unseen scenes\n"
            f"  lowest: {', '.join(f'{label} {value:.2f}' for label, value in ranked[:6])}\n"
            f"picture -> caption among {self.retrieval_scenes}: R@1 {self.recall_at_1:.3f}, R@5 {self.recall_at_5:.3f}\n"
            f"labels in common with the nearest scene {self.neighbour_overlap:.3f} (a random one {self.random_overlap:.3f})"
        )


def average_precision(scores: np.ndarray, relevant: np.ndarray) -> float:
    """Area under precision over recall of the ranking by falling ``scores``: mean precision at every hit.

    ``scores`` (n,) float, ``relevant`` (n,) bool with at least one True.
    """
    hits = relevant[np.argsort(-scores, kind="stable")]
    ranks = np.flatnonzero(hits) + 1
    return float(np.mean(np.arange(1, len(ranks) + 1) / ranks))


def _full_texts(rng: np.random.Generator, scenes: SceneSet, number: int) -> list[str]:
    """A caption of everything visible for each of the first ``number`` scenes."""
    texts = []
    for visible, counts in zip(scenes.visible[:number], scenes.counts[:number], strict=True):
        order = rng.permutation(np.flatnonzero(visible))
        texts.append(", ".join(phrase(rng, LABELS[i], int(counts[i]), 0.0) for i in order))
    return texts


def _overlap(visible: np.ndarray, others: np.ndarray) -> float:
    """Mean intersection over union of the label sets of paired rows."""
    both, either = (visible & others).sum(1), (visible | others).sum(1)
    return float(np.mean(both / np.maximum(either, 1)))


def measure_quality(
    config: Path, weights: Path, seed: int, stream: int, scenes: int, processes: int
) -> Quality:
    """Load the model as the pipeline does and judge it on ``scenes`` scenes of ``stream``."""
    import torch

    from models.clip import load_clip

    clip = load_clip(ClipConfig(name=str(config), pretrained=str(weights)), torch.device("cpu"))
    drawn = draw_set(seed, stream, scenes, clip.image_size[0], processes)
    images = np.concatenate([clip.encode_images(drawn.pictures[s : s + 250]) for s in range(0, scenes, 250)])
    images = images.astype(np.float32)
    prompts = clip.encode_texts(label_prompts())
    scores = images @ prompts.T
    shown = np.flatnonzero(drawn.visible.any(0))
    precision = {LABELS[i]: average_precision(scores[:, i], drawn.visible[:, i]) for i in shown}

    number = min(_RETRIEVAL, scenes)
    captions = clip.encode_texts(_full_texts(np.random.default_rng((seed, stream, 1 << 30)), drawn, number))
    match = images[:number] @ captions.T
    rank = (match > np.diag(match)[:, None]).sum(1)

    likeness = images @ images.T
    np.fill_diagonal(likeness, -np.inf)
    nearest = likeness.argmax(1)
    return Quality(
        scenes=scenes,
        retrieval_scenes=number,
        average_precision=precision,
        chance=float(drawn.visible[:, shown].mean()),
        recall_at_1=float((rank < 1).mean()),
        recall_at_5=float((rank < 5).mean()),
        neighbour_overlap=_overlap(drawn.visible, drawn.visible[nearest]),
        random_overlap=_overlap(drawn.visible, np.roll(drawn.visible, 1, 0)),
    )
