"""Precision, recall and average precision of archives against the truth, all pictures at once.

A concept is right if it names a visible label; two words for one label are both right, and the label counts as
found once. Means are over pictures, each picture the same weight, unless a name says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from evaluation.semantic_gap.labels import LabelMatcher
from evaluation.semantic_gap.truth import Truth

__all__ = ["NOT_FOUND", "Measures", "Ranking", "area_table", "label_ranking", "measure", "without_named"]

NOT_FOUND = np.iinfo(np.int64).max
"""The rank of a visible label that an archive does not name."""


@dataclass(frozen=True)
class Ranking:
    """P concepts of the archives of n pictures, in order of picture and rank.

    rows int64 (P,): the concept's picture. places int64 (T,), label_ids int64 (T,): concept number places[t] names
    label label_ids[t]; one concept may name several labels or none. measured bool (n,): the picture has an
    archive, be it empty.
    """

    rows: np.ndarray
    places: np.ndarray
    label_ids: np.ndarray
    measured: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """int64 (n,): concepts of each archive."""
        return np.bincount(self.rows, minlength=len(self.measured))

    @property
    def ranks(self) -> np.ndarray:
        """int64 (P,): 0 for the best concept of an archive."""
        ends = np.cumsum(self.lengths)
        return np.arange(len(self.rows)) - (ends - self.lengths)[self.rows]

    def keep(self, wanted: np.ndarray) -> Ranking:
        """Without some concepts, the later ones move up; ``wanted`` bool (P,)."""
        moved = np.cumsum(wanted) - 1
        kept = wanted[self.places]
        return Ranking(self.rows[wanted], moved[self.places[kept]], self.label_ids[kept], self.measured)


@dataclass(frozen=True)
class Measures:
    """What an archive is worth. Curves have one value for each k = 1..K.

    ranks int64 (V,): where each visible label is first named, from 0, or NOT_FOUND. recall: share of the visible
    labels that the first k concepts name. capped_recall: found labels by min(k, visible labels). precision: share of
    the first k concepts that are right (a shorter archive by its own length; empty ones left out). average_precision:
    mean over a picture's visible labels of the precision at the place where the label is first named, 0 for those
    never named. pool_recall: recall of the whole archive. errors: standard errors of the mean over pictures.
    """

    pictures: int
    empty: int
    ranks: np.ndarray
    recall: np.ndarray
    capped_recall: np.ndarray
    precision: np.ndarray
    average_precision: float
    pool_recall: float
    errors: dict[str, float]


def label_ranking(
    truth: Truth, archives: Mapping[str, Sequence[str]], matcher: LabelMatcher, skip_others: bool = False
) -> Ranking:
    """Archives with their concepts looked up as labels.

    Args:
        truth: whose keys are looked for. archives: key -> concepts, best first.
        matcher: of the truth's labels.
        skip_others: leave out concepts that name no label at all, whose truth nobody knows; else they are wrong.
    """
    rows: list[int] = []
    places: list[int] = []
    labels: list[int] = []
    for row, key in enumerate(truth.keys):
        for concept in archives.get(key, ()):
            found = matcher.of_concept(concept)
            if found or not skip_others:
                labels.extend(found)
                places.extend([len(rows)] * len(found))
                rows.append(row)
    measured = np.array([key in archives for key in truth.keys], bool)
    return Ranking(np.array(rows, np.int64), np.array(places, np.int64), np.array(labels, np.int64), measured)


def without_named(truth: Truth, ranking: Ranking) -> tuple[Truth, Ranking]:
    """What is visible and the caption does not name, and the archives without what the caption names."""
    assert truth.named is not None
    named = np.isin(_codes(truth, ranking), truth.said)
    counts = np.bincount(ranking.places, minlength=len(ranking.rows))
    all_named = (counts > 0) & (np.bincount(ranking.places[named], minlength=len(ranking.rows)) == counts)
    return truth.visible(~truth.named), ranking.keep(~all_named)


def measure(truth: Truth, ranking: Ranking, depth: int = 20) -> Measures:
    """Measures for k = 1..``depth`` over the pictures that have an archive and show something."""
    codes, order = _codes(truth, ranking), truth.codes
    ranks = _first_ranks(order, codes, ranking.ranks[ranking.places])
    visible = np.bincount(truth.rows, minlength=len(truth.keys))
    chosen = ranking.measured & (visible > 0)
    shares = _right_shares(ranking, np.isin(codes, order), depth)
    found = ranks < NOT_FOUND
    found_at = np.stack(
        [np.bincount(truth.rows[ranks < k], minlength=len(truth.keys)) for k in range(1, depth + 1)], axis=1
    )[chosen]
    amounts = visible[chosen, None]
    each_ap = np.zeros(len(order))
    each_ap[found] = shares[truth.rows[found], ranks[found]]
    ap = (np.bincount(truth.rows, each_ap, minlength=len(truth.keys)) / np.maximum(visible, 1))[chosen]
    pool = np.bincount(truth.rows[found], minlength=len(truth.keys))[chosen] / amounts[:, 0]
    filled = shares[chosen & (ranking.lengths > 0), :depth]
    return Measures(
        pictures=int(chosen.sum()),
        empty=int((chosen & (ranking.lengths == 0)).sum()),
        ranks=ranks,
        recall=_mean(found_at / amounts),
        capped_recall=_mean(found_at / np.minimum(amounts, np.arange(1, depth + 1))),
        precision=_mean(filled),
        average_precision=float(_mean(ap)),
        pool_recall=float(_mean(pool)),
        errors={"average_precision": _error(ap), "pool_recall": _error(pool)},
    )


def area_table(
    truth: Truth, found: Mapping[str, np.ndarray], edges: Sequence[float]
) -> list[dict[str, float | int | None]]:
    """Shares of the visible labels (each the same weight) that are found, by their area in the picture.

    Args:
        truth: with or without areas.
        found: name -> bool (V,). edges: inner limits of the bins, shares of the picture, rising.

    Returns:
        One row for all labels, then one for each bin from small to large: low, high, visible, and the share for each
        name (None where the bin is empty).
    """
    everything = np.ones(len(truth.rows), bool)
    bins: list[tuple[float, float, np.ndarray]] = [(0.0, 1.0, everything)]
    if truth.areas is not None:
        limits = [0.0, *edges, np.inf]
        for low, high in pairwise(limits):
            bins.append((low, min(high, 1.0), (truth.areas >= low) & (truth.areas < high)))
    return [
        {"low": low, "high": high, "visible": int(inside.sum())}
        | {name: float(hits[inside].mean()) if inside.any() else None for name, hits in found.items()}
        for low, high, inside in bins
    ]


def _codes(truth: Truth, ranking: Ranking) -> np.ndarray:
    return ranking.rows[ranking.places] * len(truth.labels) + ranking.label_ids


def _first_ranks(visible: np.ndarray, codes: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """The lowest rank at which each code of ``visible`` (rising) occurs among ``codes``."""
    first = np.full(len(visible), NOT_FOUND)
    if len(visible):
        slots = np.minimum(np.searchsorted(visible, codes), len(visible) - 1)
        hit = visible[slots] == codes
        np.minimum.at(first, slots[hit], ranks[hit])
    return first


def _right_shares(ranking: Ranking, hits: np.ndarray, depth: int) -> np.ndarray:
    """float64 (n, >= depth): share of the first k + 1 concepts that are right, by the archive's length at most."""
    lengths = ranking.lengths
    right = np.bincount(ranking.places[hits], minlength=len(ranking.rows)) > 0
    table = np.zeros((len(lengths), max(depth, int(lengths.max(initial=0)))))
    table[ranking.rows, ranking.ranks] = right
    divisors = np.minimum(np.arange(1, table.shape[1] + 1), np.maximum(lengths, 1)[:, None])
    return np.cumsum(table, axis=1) / divisors


def _mean(values: np.ndarray) -> np.ndarray:
    return values.mean(axis=0) if len(values) else np.zeros(values.shape[1:])


def _error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0
