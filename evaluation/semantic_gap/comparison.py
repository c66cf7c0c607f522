"""The semantic gap: what captions name of what is visible, and what archives add (paper, section 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from evaluation.semantic_gap.labels import LabelMatcher
from evaluation.semantic_gap.measures import (
    Measures,
    Ranking,
    area_table,
    label_ranking,
    measure,
    without_named,
)
from evaluation.semantic_gap.truth import Truth

__all__ = ["ArchiveResult", "Gap", "measure_gap"]


@dataclass
class ArchiveResult:
    """One table of archives: against all that is visible, and against what the captions leave out."""

    name: str
    ranking: Ranking
    visible: Measures
    missing: Measures | None
    joint_recall: np.ndarray | None
    """Curve over k: share of what is visible that the caption or the first k concepts name."""


@dataclass
class Gap:
    """Everything that was measured; shares between 0 and 1."""

    truth: Truth
    caption_recall: float | None
    """Mean over pictures of the share of what is visible that the caption names."""
    archives: list[ArchiveResult]
    areas: list[dict[str, float | int | None]]
    notes: list[str] = field(default_factory=list)


def measure_gap(
    truth: Truth,
    matcher: LabelMatcher,
    archives: Mapping[str, Mapping[str, Sequence[str]]],
    *,
    edges: Sequence[float] = (0.01, 0.05),
    skip_others: bool = False,
    depth: int = 20,
) -> Gap:
    """Measure captions and archives against the truth.

    Args:
        truth: of evaluation.semantic_gap.truth.build_truth. matcher: the one it was built with.
        archives: name -> (key -> concepts, best first).
        edges: limits of the area bins. skip_others: see gap_measures.label_ranking. depth: the largest k.
    """
    results = []
    found = {}
    if truth.named is not None:
        found["caption"] = truth.named
    if truth.named_by_any is not None:
        found["any caption"] = truth.named_by_any
    for name, lists in archives.items():
        ranking = label_ranking(truth, lists, matcher, skip_others)
        visible = measure(truth, ranking, depth)
        missing = joint = None
        if truth.named is not None:
            missing = measure(*without_named(truth, ranking), depth)
            joint = np.array(
                [_recall(truth, ranking, truth.named | (visible.ranks < k)) for k in range(1, depth + 1)]
            )
        results.append(ArchiveResult(name, ranking, visible, missing, joint))
        # Pictures without an archive count as not found here: their share is stated beside the table.
        found |= {f"{name} @{k}": visible.ranks < k for k in (3, 5, 10)}
    return Gap(
        truth=truth,
        caption_recall=None if truth.named is None else _recall(truth, None, truth.named),
        archives=results,
        areas=area_table(truth, found, edges),
    )


def _recall(truth: Truth, ranking: Ranking | None, hits: np.ndarray) -> float:
    """Mean over pictures (those with an archive) of the share of visible labels that are hit."""
    visible = np.bincount(truth.rows, minlength=len(truth.keys))
    chosen = visible > 0 if ranking is None else (visible > 0) & ranking.measured
    shares = np.bincount(truth.rows, hits, minlength=len(truth.keys))[chosen] / visible[chosen]
    return float(shares.mean()) if len(shares) else 0.0
