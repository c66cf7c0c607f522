"""The rankings written from their formulas in plain Python, one image and one concept at a time.

The reference that ``curation.ranking`` is compared with: floats, lists and sets, nothing shared with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

Vector = Sequence[float]


def dot(left: Vector, right: Vector) -> float:
    return math.fsum(a * b for a, b in zip(left, right, strict=True))


def candidates(captions: Sequence[Sequence[int]], neighbours: Sequence[int]) -> list[int]:
    """T_i: the concepts of the captions of the neighbours that exist."""
    return sorted({concept for row in neighbours if row >= 0 for concept in captions[row]})


def by_score(scores: dict[int, float]) -> list[tuple[int, float]]:
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))


def paper(
    captions: Sequence[Sequence[int]],
    neighbours: Sequence[int],
    cosine: Callable[[int, int | None], float],
) -> list[tuple[int, float]]:
    """score = global + local. ``cosine(concept, row)`` is s(t, x_row); row None is the anchor."""
    values: dict[int, list[float]] = {}
    for concept in candidates(captions, neighbours):
        named_by = [row for row in neighbours if row >= 0 and concept in captions[row]]
        values[concept] = [cosine(concept, row) for row in named_by] + [cosine(concept, None)]
    if not values:
        return []
    highest = max(max(q) for q in values.values())
    scores = {}
    for concept, q in values.items():
        own, mean = cosine(concept, None), math.fsum(q) / len(q)
        local = own / mean if mean else 0.0
        scores[concept] = local + (own / highest if highest else 0.0)
    return by_score(scores)


def calibrated(
    captions: Sequence[Sequence[int]],
    neighbours: Sequence[int],
    similarities: Sequence[float],
    cosine: Callable[[int, int | None], float],
    mean: Vector,
    std: Vector,
    separation: Vector,
    z_weight: float,
    temperature: float,
) -> list[tuple[int, float]]:
    """log share of the weighted votes + z_weight x (d z - d^2 / 2)."""
    present = [(row, s) for row, s in zip(neighbours, similarities, strict=True) if row >= 0]
    if not present:
        return []
    best = max(s for _, s in present)
    votes = {row: math.exp(temperature * (s - best)) for row, s in present}
    total = math.fsum(votes.values())
    scores = {}
    for concept in candidates(captions, neighbours):
        share = math.fsum(vote for row, vote in votes.items() if concept in captions[row]) / total
        z = (cosine(concept, None) - mean[concept]) / std[concept] if std[concept] else 0.0
        d = separation[concept]
        scores[concept] = math.log(share) + z_weight * (d * z - d * d / 2)
    return by_score(scores)


def separations(
    captions: Sequence[Sequence[int]],
    cosine: Callable[[int, int | None], float],
    mean: Vector,
    std: Vector,
) -> list[float]:
    """d(t): mean z over the images whose captions name t and 30 imagined ones of the mean z of all names."""
    named: list[list[float]] = [[] for _ in mean]
    for row, caption in enumerate(captions):
        for concept in caption:
            if std[concept]:
                named[concept].append((cosine(concept, row) - mean[concept]) / std[concept])
    every = [z for values in named for z in values]
    typical = math.fsum(every) / max(1, len(every))
    return [
        (math.fsum(values) + 30 * typical) / (len(values) + 30) if spread else 0.0
        for values, spread in zip(named, std, strict=True)
    ]
