"""Fitting the ridge probe from moments, and choosing how strongly it is drawn towards 0.

With N pairs, n_t captions that name t, S_t the sum of their images' embeddings, mu the mean embedding and
C = E[x x'] - mu mu':

    w_t = (C + l I)^-1 (S_t - n_t mu) / N,   b_t = n_t / N - w_t . mu,   l = rho tr(C) / d

which is ridge regression of "the caption names t" on the centred embedding, for all concepts at once. The best
rho falls with N. It is chosen by how well the probe ranks the concepts of captions that were left out of the fit:
their moments are subtracted from the corpus', so that one pass is enough. One decomposition of C serves all rhos.

Captions leave things out: that one names t says that its image shows t, that one does not says little. If the captions
of images that show t name it at a rate c_t, whatever else there is to see, r(x, t) is c_t on those images and 0 on
others, and c_t is what r is, on the average, on images whose captions name t (Elkan and Noto, *Learning classifiers
from only positive and unlabeled data*, KDD 2008). No pass is needed for it: the mean of r over these images is
b_t + w_t . S_t / n_t. Each has pulled its own r up by its leverage h, which is left out by (r - h) / (1 - h), h the
mean leverage of all pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from curation.csr import Csr
from curation.moments import ConceptSums, ImageMoments, concept_sums, image_moments
from curation.probe.left_out import LeftOut
from curation.products import row_products

__all__ = ["DEFAULT_RHO", "RHOS", "Probe", "RhoChoice", "choose_rho", "fit_chosen", "fit_probe"]

RHOS = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0001)
DEFAULT_RHO = 1.0
"""Where no pair can be left out (a corpus of one pair, captions without concepts)."""

_CONCEPTS, _PAIRS = 8192, 256  # worked on at a time
_TYPICAL_WEIGHT = 10.0  # a concept's naming rate is its own as far as it has more captions than this


@dataclass(frozen=True)
class Probe:
    """r(x, t) = max(0, weights[t] . x + biases[t]).

    Attributes:
        mean: float32 (d,), of the corpus' image embeddings.
        weights: float32 (V, d).
        biases: float32 (V,).
        counts: int64 (V,), captions that name each concept.
        naming: float32 (V,), c_t: of the captions of images that show the concept, the share that names it.
        facts: how it was fitted: rows, rho, what rho was chosen by.
    """

    mean: np.ndarray
    weights: np.ndarray
    biases: np.ndarray
    counts: np.ndarray
    naming: np.ndarray
    facts: dict[str, Any] = field(default_factory=dict)

    def chances(self, embeddings: np.ndarray, rows: np.ndarray, concepts: np.ndarray) -> np.ndarray:
        """r(x_rows[i], concepts[i]) for every i, float64 (m,).

        Args:
            embeddings: (B, d) float32, rows L2-normalised. rows, concepts: int (m,).
        """
        return self.chances_of(row_products(embeddings, rows, self.weights, concepts), concepts)

    def chances_of(self, products: np.ndarray, concepts: np.ndarray) -> np.ndarray:
        """The same from w . x of each, float32 (m,)."""
        return np.maximum(products.astype(np.float64) + self.biases[concepts], 0.0)


@dataclass(frozen=True)
class RhoChoice:
    """The chosen rho and what each did.

    Attributes:
        rho: the best; the largest of equally good ones.
        curve: (rho, mean average precision of the left-out captions' own concepts), falling rho; empty where
            nothing could be left out.
        pairs: left-out captions that name a concept.
    """

    rho: float
    curve: tuple[tuple[float, float], ...] = ()
    pairs: int = 0


class _Ridge:
    """The corpus' side of the fit: C decomposed, and each concept's covariance with the embedding in its axes."""

    def __init__(self, moments: ImageMoments, counts: np.ndarray, sums: np.ndarray) -> None:
        self.rows, self.mean = moments.rows, moments.mean
        self.counts, self.shares = counts, counts / moments.rows
        values, self.axes = np.linalg.eigh(moments.covariance)
        self.values = np.maximum(values, 0.0)  # rounding makes small ones negative
        self.projected = np.empty(sums.shape, np.float32)
        for start in range(0, len(sums), _CONCEPTS):
            part = slice(start, start + _CONCEPTS)
            centred = sums[part].astype(np.float64) - counts[part, None] * self.mean
            self.projected[part] = (centred / moments.rows) @ self.axes

    def shrinkage(self, rho: float) -> np.ndarray:
        """1 / (eigenvalue + l), float64 (d,); 0 where images do not vary at all."""
        damped = self.values + rho * self.values.mean()
        return np.divide(1.0, damped, out=np.zeros_like(damped), where=damped > 0)

    def scores(self, vectors: np.ndarray, shrinkage: np.ndarray) -> np.ndarray:
        """w_t . x + b_t of vectors (n, d) and all concepts, float32 (n, V)."""
        centred = ((vectors - self.mean) @ self.axes) * shrinkage
        return centred.astype(np.float32) @ self.projected.T + self.shares.astype(np.float32)

    def probe(self, rho: float) -> Probe:
        """Weights and biases."""
        back = self.shrinkage(rho)[:, None] * self.axes.T
        weights = np.empty(self.projected.shape, np.float32)
        biases = np.empty(len(weights), np.float32)
        for start in range(0, len(weights), _CONCEPTS):
            part = slice(start, start + _CONCEPTS)
            exact = self.projected[part].astype(np.float64) @ back
            weights[part], biases[part] = exact, self.shares[part] - exact @ self.mean
        return Probe(self.mean.astype(np.float32), weights, biases, self.counts, self.naming(rho))

    def naming(self, rho: float) -> np.ndarray:
        """c_t, float32 (V,), each drawn towards the mean over all occurrences as if 10 captions more had that."""
        shrinkage, counts = self.shrinkage(rho), self.counts
        fitted = np.zeros(len(counts))  # mean w_t . x + b_t over the images whose captions name t
        for start in range(0, len(counts), _CONCEPTS):
            part = slice(start, start + _CONCEPTS)
            squares = self.projected[part].astype(np.float64) ** 2
            fitted[part] = squares @ shrinkage * self.rows / np.maximum(counts[part], 1)
        fitted += self.shares
        leverage = (self.values @ shrinkage + 1) / self.rows
        if leverage < 1:
            own = np.clip((fitted - leverage) / (1 - leverage), 0.0, 1.0)
        else:  # as many dimensions as pairs: each decides its own r
            own = np.zeros(len(counts))
        typical = (counts @ own) / max(1, counts.sum())
        found = (counts * own + _TYPICAL_WEIGHT * typical) / (counts + _TYPICAL_WEIGHT)
        return found.astype(np.float32)


def fit_probe(moments: ImageMoments, counts: np.ndarray, sums: np.ndarray, rho: float) -> Probe:
    """The probe of a corpus.

    Args:
        moments: of all image embeddings.
        counts: int64 (V,), captions that name each concept.
        sums: (V, d), sums of those captions' embeddings.
        rho: above 0.

    A concept that no caption names has weights and bias 0 and the typical naming rate; images that do not vary give each concept's share of
    captions for every image.
    """
    return _Ridge(moments, counts, sums).probe(rho)


def choose_rho(
    moments: ImageMoments,
    counts: np.ndarray,
    sums: np.ndarray,
    left_out: LeftOut,
    rhos: Sequence[float] = RHOS,
) -> RhoChoice:
    """Try every rho on pairs that its fit has not seen.

    Each fold is scored by the fit to all pairs but its own. The measure is the average precision of a left-out
    caption's own concepts among all concepts, mean over the captions that name one.

    Args:
        moments, counts, sums: as for :func:`fit_probe`, of the whole corpus, left-out pairs included.
        left_out: some or all of its pairs.
    """
    totals, pairs = np.zeros(len(rhos)), 0
    for fold in np.unique(left_out.folds):
        vectors, captions = left_out.of_fold(int(fold))
        naming = np.flatnonzero(captions.lengths > 0)
        if not len(naming) or len(vectors) >= moments.rows:
            continue
        ridge = _without(moments, counts, sums, vectors, captions)
        wanted = captions.gather(naming)
        exact = vectors[naming].astype(np.float64)
        totals += [_precision_sum(ridge, rho, exact, wanted) for rho in rhos]
        pairs += len(naming)
    if not pairs:
        return RhoChoice(DEFAULT_RHO)
    curve = tuple((rho, float(total / pairs)) for rho, total in zip(rhos, totals, strict=True))
    best = max(value for _, value in curve)
    return RhoChoice(max(rho for rho, value in curve if value == best), curve, pairs)


def fit_chosen(moments: ImageMoments, counts: np.ndarray, sums: np.ndarray, left_out: LeftOut) -> Probe:
    """The probe of the whole corpus at the rho that did best on left-out pairs; its facts say how that went."""
    choice = choose_rho(moments, counts, sums, left_out)
    facts = {
        "rows": moments.rows,
        "rho": choice.rho,
        "measure": "mean average precision of left-out captions' own concepts",
        "left_out_pairs": choice.pairs,
        "curve": [list(point) for point in choice.curve],
    }
    return replace(fit_probe(moments, counts, sums, choice.rho), facts=facts)


def _without(
    moments: ImageMoments, counts: np.ndarray, sums: np.ndarray, vectors: np.ndarray, captions: Csr
) -> _Ridge:
    """The fit's side with some pairs subtracted."""
    own: ConceptSums = concept_sums(vectors, captions, np.float64)
    counts, sums = counts.copy(), sums.copy()
    counts[own.ids] -= own.counts
    sums[own.ids] -= own.sums.astype(sums.dtype)
    return _Ridge(moments - image_moments(vectors), counts, sums)


def _precision_sum(ridge: _Ridge, rho: float, vectors: np.ndarray, captions: Csr) -> float:
    """Sum over pairs of the average precision of their own concepts."""
    shrinkage, total = ridge.shrinkage(rho), 0.0
    for start in range(0, len(vectors), _PAIRS):
        rows = np.arange(start, min(start + _PAIRS, len(vectors)))
        scores = ridge.scores(vectors[rows], shrinkage)
        total += average_precisions(scores, captions.gather(rows)).sum()
    return float(total)


def average_precisions(scores: np.ndarray, wanted: Csr) -> np.ndarray:
    """Of each row's wanted columns ranked by falling score, float64 (n,); equal scores count against them.

    Args:
        scores: (n, V). wanted: n lists of columns, none empty.
    """
    ranks = []
    for row, (start, end) in enumerate(zip(wanted.offsets[:-1], wanted.offsets[1:], strict=True)):
        own = np.sort(scores[row, wanted.values[start:end]])[::-1]
        # How many columns are at least as good as each wanted one: its rank, its equals before it.
        reached = (scores[row] >= own[:, None]).sum(axis=1)
        ranks.append(float(np.mean(np.arange(1, len(own) + 1) / reached)))
    return np.array(ranks)
