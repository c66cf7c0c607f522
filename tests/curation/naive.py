"""The rankings written from their formulas in plain Python, one image and one concept at a time.

The reference that ``curation.ranking`` is compared with: floats, lists and sets, nothing shared with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

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


def centred_cosine(left: Vector, right: Vector, mean: Vector) -> float:
    """cos(left - mean, right - mean), 0 where one of them is the mean."""
    a = [x - m for x, m in zip(left, mean, strict=True)]
    b = [x - m for x, m in zip(right, mean, strict=True)]
    size = math.sqrt(dot(a, a) * dot(b, b))
    return dot(a, b) / size if size > 1e-6 else 0.0


def probe(
    images: Sequence[Vector], captions: Sequence[Sequence[int]], concepts: int, rho: float
) -> np.ndarray:
    """(V, d + 1) float64: weights and bias of every concept, by solving ridge regression's normal equations for it.

    Minimises mean over images of (w . (x - mu) + share - named)^2 + l |w|^2, l = rho x mean variance.
    """
    x = np.array(images, np.float64)
    named = np.zeros((len(x), concepts))
    for row, caption in enumerate(captions):
        named[row, list(caption)] = 1.0
    mean = x.mean(axis=0)
    centred = x - mean
    ridge = rho * np.mean(centred**2)
    # As a least-squares problem: sqrt(N l) I below the images. No covariance matrix, no inverse.
    stacked = np.vstack([centred, math.sqrt(len(x) * ridge) * np.eye(x.shape[1])])
    result = np.zeros((concepts, x.shape[1] + 1))
    for concept in range(concepts):
        target = np.concatenate([named[:, concept] - named[:, concept].mean(), np.zeros(x.shape[1])])
        weights = np.linalg.lstsq(stacked, target, rcond=None)[0]
        result[concept] = [*weights, named[:, concept].mean() - weights @ mean]
    return result


def naming(
    images: Sequence[Vector], captions: Sequence[Sequence[int]], fitted: np.ndarray, rho: float
) -> list[float]:
    """c(t): mean of (r - h) / (1 - h) over the images whose captions name t, and 10 more of the mean over all names.

    ``fitted`` is what :func:`probe` gave; h is the mean leverage of an image: by how much its own caption moves its r.
    """
    x = np.array(images, np.float64)
    centred = x - x.mean(axis=0)
    ridge = len(x) * rho * np.mean(centred**2)
    stacked = np.vstack([centred, math.sqrt(ridge) * np.eye(x.shape[1])])
    inner = centred @ np.linalg.pinv(stacked)[:, : len(x)]  # how much each image's r follows each caption
    leverage = float(np.mean(np.diag(inner))) + 1 / len(x)
    named: list[list[float]] = [[] for _ in fitted]
    for image, caption in zip(x, captions, strict=True):
        for concept in caption:
            named[concept].append(float(image @ fitted[concept][:-1] + fitted[concept][-1]))
    own = [
        min(1.0, max(0.0, (float(np.mean(values)) - leverage) / (1 - leverage)))
        if values and leverage < 1 - 1e-9
        else 0.0
        for values in named
    ]
    typical = math.fsum(c * len(values) for c, values in zip(own, named, strict=True)) / max(
        1, sum(map(len, named))
    )
    return [
        (c * len(values) + 10 * typical) / (len(values) + 10) for c, values in zip(own, named, strict=True)
    ]


def calibrated(
    captions: Sequence[Sequence[int]],
    neighbours: Sequence[int],
    images: Sequence[Vector],
    anchor: Vector,
    concepts: Sequence[int],
    cosine: Callable[[int, int | None], float],
    statistics: tuple[Vector, Vector, Vector],
    probe: np.ndarray,
    told: Vector,
    mean: Vector,
    weights: tuple[float, float, float, float],
) -> list[tuple[int, float]]:
    """0.6 log((1 - p) share + p r + 0.003) - log(c + 0.1) + z_weight x (d z - d^2 / 2) + cosine_weight x s
    + 1.2 log((n + 1/2) / (n + 30 1/2)) of some concepts, n the captions that name it.

    Args:
        statistics: mean, deviation and separation of every concept's cosine. told: c of every concept.
        weights: p, z_weight, temperature, cosine_weight.
    """
    share_of_probe, z_weight, temperature, cosine_weight = weights
    average, std, separation = statistics
    votes = {row: centred_cosine(anchor, images[row], mean) for row in neighbours if row >= 0}
    best = max(votes.values(), default=0.0)
    votes = {row: math.exp(temperature * (s - best)) for row, s in votes.items()}
    total = math.fsum(votes.values())
    scores = {}
    for concept in concepts:
        share = math.fsum(vote for row, vote in votes.items() if concept in captions[row]) / (total or 1.0)
        chance = max(0.0, dot(anchor, probe[concept][:-1].tolist()) + float(probe[concept][-1]))
        s = cosine(concept, None)
        z = (s - average[concept]) / std[concept] if std[concept] else 0.0
        d = separation[concept]
        expected = math.log((1 - share_of_probe) * share + share_of_probe * chance + 0.003)
        n = sum(concept in caption for caption in captions)
        scores[concept] = (
            0.6 * expected
            - math.log(told[concept] + 0.1)
            + z_weight * (d * z - d * d / 2)
            + cosine_weight * s
            + 1.2 * math.log((n + 0.5) / (n + 30.5))
        )
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
