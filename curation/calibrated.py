"""The calibrated score (ours): what neighbours say, what the probe says, whether CLIP's cosine agrees, and how often
captions leave the concept out.

    score(t) = 0.6 log p(t) - log(c(t) + 0.1) + 0.4 (d(t) z(t) - d(t)^2 / 2) + 18 s(t, x) + 1.2 log(n(t) / (n(t) + 30))

p(t) = 0.4 share(t) + 0.6 r(t) + 0.003
    How likely a caption of this image is to *name* t.

share(t)
    The share of the neighbours' votes that t has. Neighbour l votes with exp(7 (s'_l - max s')), s' the cosine of
    the centred vectors x_i - mu and x_l - mu: all photos share a direction, which says nothing of either.
r(t)
    The probe's estimate of the chance that a caption of this image names t (:mod:`curation.probe`).
c(t)
    Of the captions of images that show t, the share that names it (:mod:`curation.probe.fit`): few say that there is a
    sky. p / c is how likely the image *shows* t. 0.1 is added, as a word that no image shows ("day") has the c of a
    thing that every image shows.
n(t)
    Captions that name t, and half a caption: what a few captions say of a concept is as good as chance.
z(t), d(t)
    z is s(t, x_i) standardised by the concept's mean and standard deviation over the corpus: some concepts score high
    on every image. d is how much higher z is on images whose captions name t (:mod:`curation.separation`). If z is
    normal with deviation 1, around d there and around 0 elsewhere, the bracket is the logarithm of the likelihood
    ratio, as the first term is the odds before the cosine is looked at: a concept that CLIP does not recognise changes
    nothing. One whose cosine does not vary has z = d = 0.
s(t, x)
    The cosine itself. It compares concepts as far as CLIP's training made them comparable: on photos it lies within
    some hundredths and decides little.

docs/method.md says what the constants were chosen by.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from curation.candidates import Candidates
from curation.index.folder import OpenIndex
from curation.probe import Probe

__all__ = ["EXPECTED", "FLOOR", "OFTEN", "SHOWN", "Weights", "calibrated_scores", "centred_similarities"]

FLOOR = 0.003
"""What a concept has that neither neighbours nor probe expect: CLIP's cosine may still lift it."""

EXPECTED = 0.6
"""Exponent of p, which is an estimate from few pairs; that which more pairs wanted came closer to 1."""

SHOWN = 0.1
"""What is added to c: nothing is lifted as if fewer than one caption in ten named it."""

OFTEN, _ENOUGH = 1.2, 30.0
"""Exponent of n / (n + 30)."""


@dataclass(frozen=True)
class Weights:
    """Constants of the score (``archives.probe_weight``, ``z_weight``, ``vote_temperature``, ``cosine_weight``)."""

    probe: float = 0.6
    z: float = 0.4
    vote_temperature: float = 7.0
    cosine: float = 18.0


def calibrated_scores(
    index: OpenIndex,
    probe: Probe,
    found: Candidates,
    anchors: np.ndarray,
    rows: np.ndarray,
    similarities: np.ndarray,
    anchor_cosines: np.ndarray,
    chances: np.ndarray,
    weights: Weights,
) -> np.ndarray:
    """Score of every candidate, float64 (m,).

    Args:
        found: m candidates.
        anchors: (B, d) float32. rows, similarities: (B, L), of the neighbours.
        anchor_cosines: float64 (m,), s(t, x_i) of the candidates.
        chances: float64 (m,), r of the candidates.
    """
    centred = centred_similarities(index, probe.mean, anchors, rows, similarities)
    shares = _shares(found, rows >= 0, centred, weights.vote_temperature)
    named = np.log((1 - weights.probe) * shares + weights.probe * chances + FLOOR)
    seen = weights.z * _log_likelihood_ratio(index, found.concepts, anchor_cosines)
    seen += weights.cosine * anchor_cosines
    return EXPECTED * named + _of_captions(probe, found.concepts) + seen


def _of_captions(probe: Probe, concepts: np.ndarray) -> np.ndarray:
    """What the captions of all images say of each concept, whatever the image: float64 (m,)."""
    counts = probe.counts + 0.5
    often = OFTEN * np.log(counts / (counts + _ENOUGH))
    return (often - np.log(probe.naming.astype(np.float64) + SHOWN))[concepts]


def centred_similarities(
    index: OpenIndex, mean: np.ndarray, anchors: np.ndarray, rows: np.ndarray, similarities: np.ndarray
) -> np.ndarray:
    """cos(x_i - mu, x_l - mu) of every anchor and neighbour, float64 (B, L); 0 where there is none.

    All vectors have length 1, so |x - mu|^2 = 1 - 2 mu.x + mu.mu: beside the similarities only mu . x_l is needed.
    """
    present = rows >= 0
    centre = mean.astype(np.float64)
    own = np.einsum("bd,d->b", anchors.astype(np.float64), centre)[:, None]
    near = np.zeros(rows.shape)
    near[present] = index.products_with(rows[present], mean)
    square = centre @ centre
    lengths = np.maximum(1 - 2 * own + square, 0) * np.maximum(1 - 2 * near + square, 0)
    products = similarities - own - near + square
    usable = present & (lengths > 1e-12)
    return np.divide(products, np.sqrt(lengths), out=np.zeros(rows.shape), where=usable)


def _shares(
    found: Candidates, present: np.ndarray, similarities: np.ndarray, temperature: float
) -> np.ndarray:
    """Of every candidate the share of its anchor's votes, float64 (m,)."""
    best = np.where(present, similarities, -np.inf).max(axis=1, keepdims=True, initial=-2.0)
    votes = np.where(present, np.exp(temperature * (similarities - best)), 0.0)
    shares = np.zeros(len(found.anchors))
    named = np.flatnonzero(found.counts)
    if len(named):
        sums = np.add.reduceat(votes.ravel()[found.neighbours], found.starts[named])
        shares[named] = sums / votes.sum(axis=1)[found.anchors[named]]
    return shares


def _log_likelihood_ratio(index: OpenIndex, concepts: np.ndarray, cosines: np.ndarray) -> np.ndarray:
    """d z - d^2 / 2 as a straight line in the cosine, whose slope and height are the concept's."""
    spread, separation = index.cosine_std.astype(np.float64), index.separation.astype(np.float64)
    slope = np.divide(separation, spread, out=np.zeros_like(spread), where=spread > 0)
    height = -slope * index.cosine_mean - separation**2 / 2
    return slope[concepts] * cosines + height[concepts]
