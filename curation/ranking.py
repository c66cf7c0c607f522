"""Text-to-vision-guided ranking (paper, section 3.2, "Text-to-Vision-Guided Ranking"), a batch at a time.

Candidates of an image i are the concepts T_i of its neighbours' captions. They are found by sorting codes
``anchor * V + concept``; sums and maxima over a candidate's neighbours are reductions of runs of that order.
There is no loop over images. Only products that no one has computed yet, anchor x candidate, are computed
here; the others come with the index.

Three scores:

paper
    With R = {l in N(i): t in E(y_l)} and Q(t) = [s(t, x_l) for l in R] + [s(t, x_i)]:
    local(t) = s(t, x_i) / mean(Q(t)), global(t) = s(t, x_i) / max over t' of max Q(t'), score = local + global.
    A quotient whose denominator is 0 counts as 0.
calibrated
    log share(t) + z_weight * (d(t) z(t) - d(t)^2 / 2). share(t) is the share of the neighbours' votes that t
    has, neighbour l voting with exp(vote_temperature * (s_l - max s)). z(t) is s(t, x_i) standardised by the
    concept's mean and standard deviation over the corpus: some concepts score high on every image, and a raw
    cosine cannot be compared between concepts. d(t) is how much higher z is on images whose captions name t
    (:func:`curation.separation.separations`). If z is normal with deviation 1, around d there and around 0 elsewhere, the bracket
    is the logarithm of the likelihood ratio, as the share is the odds before the image is looked at: a concept
    that CLIP does not recognise changes nothing. One whose cosine does not vary has z = d = 0.
compat
    The released code where it is defined: the paper's formula with the anchor among its own neighbours, which
    counts it twice in the mean (method.md, D7). The caller searches without leaving the anchor out; here it
    is the same as ``paper``. Substring matching (D6) and -1 read as the last row (D16) are not reproduced.

Ties are in order of concept id.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from configs.errors import UserError
from curation.csr import Csr, ragged_slots
from curation.index.folder import OpenIndex
from curation.products import row_products

__all__ = ["RANKINGS", "Ranked", "rank"]

RANKINGS = ("paper", "calibrated", "compat")


@dataclass(frozen=True)
class Ranked:
    """For each of B anchors its concepts, best first.

    Attributes:
        concepts: concept ids, int32.
        scores: float32, parallel to ``concepts.values``.
    """

    concepts: Csr
    scores: np.ndarray

    def top(self, count: int) -> Ranked:
        """The best ``count`` of each anchor."""
        lengths = np.minimum(self.concepts.lengths, count)
        slots = ragged_slots(self.concepts.offsets[:-1], lengths)
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        return Ranked(Csr(offsets, self.concepts.values[slots]), self.scores[slots])


@dataclass(frozen=True)
class Candidates:
    """Distinct (anchor, concept) pairs, sorted by anchor, then concept; m of them.

    Attributes:
        anchors, concepts: int64 (m,).
        starts: int64 (m,), first occurrence of each in the arrays below.
        cosines: float64 (k,), s(t, x_l) of every occurrence.
        neighbours: int64 (k,), position of the occurrence's neighbour in the flattened (B, L) rows.
    """

    anchors: np.ndarray
    concepts: np.ndarray
    starts: np.ndarray
    cosines: np.ndarray
    neighbours: np.ndarray

    @property
    def counts(self) -> np.ndarray:
        """Neighbours that name each candidate, int64 (m,)."""
        return np.diff(self.starts, append=len(self.cosines))


def rank(
    index: OpenIndex,
    anchor_embeddings: np.ndarray,
    rows: np.ndarray,
    similarities: np.ndarray,
    ranking: str = "paper",
    z_weight: float = 0.5,
    vote_temperature: float = 10.0,
) -> Ranked:
    """Rank the concepts of each anchor's neighbours.

    Args:
        index: its captions, cosines, concept embeddings and statistics are used.
        anchor_embeddings: (B, d) float32, rows L2-normalised.
        rows: int64 (B, L), the neighbours' rows in the index, -1 missing.
        similarities: float32 (B, L), of the neighbours; used by ``calibrated``.
        ranking: paper, calibrated or compat.
        z_weight: calibrated.
        vote_temperature: calibrated.

    Raises:
        UserError: an unknown ranking.
    """
    if ranking not in RANKINGS:
        raise UserError(f"archives.ranking is {ranking!r}; write one of {', '.join(RANKINGS)}")
    found = _candidates(index, rows)
    if not len(found.anchors):
        empty = Csr(np.zeros(len(rows) + 1, np.int64), np.zeros(0, np.int32))
        return Ranked(empty, np.zeros(0, np.float32))
    anchor_cosines = row_products(
        anchor_embeddings, found.anchors, index.concept_embeddings, found.concepts
    ).astype(np.float64)
    if ranking == "calibrated":
        scores = _log_share(found, rows, similarities, vote_temperature)
        scores += z_weight * _log_likelihood_ratio(index, found.concepts, anchor_cosines)
    else:
        scores = _paper(found, anchor_cosines)
    return _sorted_by_score(found, scores.astype(np.float32), len(rows))


def _candidates(index: OpenIndex, rows: np.ndarray) -> Candidates:
    flat = rows.ravel()
    safe = np.maximum(flat, 0)
    begins = index.captions.offsets[safe]
    lengths = np.where(flat >= 0, index.captions.offsets[safe + 1] - begins, 0)
    slots = ragged_slots(begins, lengths)
    neighbours = np.repeat(np.arange(len(flat), dtype=np.int64), lengths)
    vocabulary = max(1, len(index.concepts))
    codes = (neighbours // rows.shape[1]) * vocabulary + index.captions.values[slots]
    # A stable order keeps a candidate's neighbours in the order of their similarity, so that sums over
    # them do not depend on what else is in the batch.
    order = np.argsort(codes, kind="stable")
    codes = codes[order]
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    anchors, concepts = np.divmod(codes[starts], vocabulary)
    cosines = index.cosines[slots[order]].astype(np.float64)
    return Candidates(anchors, concepts, starts, cosines, neighbours[order])


def _paper(found: Candidates, anchor_cosines: np.ndarray) -> np.ndarray:
    mean = (np.add.reduceat(found.cosines, found.starts) + anchor_cosines) / (found.counts + 1)
    highest = np.maximum(np.maximum.reduceat(found.cosines, found.starts), anchor_cosines)
    first = np.flatnonzero(np.diff(found.anchors, prepend=-1))
    anchor_highest = np.repeat(np.maximum.reduceat(highest, first), np.diff(first, append=len(found.anchors)))
    return _quotient(anchor_cosines, mean) + _quotient(anchor_cosines, anchor_highest)


def _quotient(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator != 0)


def _log_share(
    found: Candidates, rows: np.ndarray, similarities: np.ndarray, temperature: float
) -> np.ndarray:
    present = rows >= 0
    best = np.where(present, similarities, np.finfo(np.float32).min).max(axis=1, keepdims=True)
    votes = np.where(present, np.exp(temperature * np.where(present, similarities - best, 0.0)), 0.0)
    total = votes.sum(axis=1)
    share = np.add.reduceat(votes.ravel()[found.neighbours], found.starts) / total[found.anchors]
    return np.log(np.maximum(share, np.finfo(np.float32).tiny))


def _log_likelihood_ratio(index: OpenIndex, concepts: np.ndarray, cosines: np.ndarray) -> np.ndarray:
    spread = index.cosine_std[concepts].astype(np.float64)
    z = _quotient(cosines - index.cosine_mean[concepts], spread)
    separation = index.separation[concepts].astype(np.float64)
    return separation * z - separation**2 / 2


def _sorted_by_score(found: Candidates, scores: np.ndarray, batch: int) -> Ranked:
    """Within each anchor by descending score; candidates are already in order of concept id."""
    order = np.lexsort((-scores, found.anchors))
    offsets = np.zeros(batch + 1, np.int64)
    np.cumsum(np.bincount(found.anchors, minlength=batch), out=offsets[1:])
    return Ranked(Csr(offsets, found.concepts[order].astype(np.int32)), scores[order])
