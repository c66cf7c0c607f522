"""Text-to-vision-guided ranking (paper, section 3.2, "Text-to-Vision-Guided Ranking"), a batch at a time.

Only products that no one has computed yet, anchor x candidate, are computed here; the others come with the index.

Three scores:

paper
    With R = {l in N(i): t in E(y_l)} and Q(t) = [s(t, x_l) for l in R] + [s(t, x_i)]:
    local(t) = s(t, x_i) / mean(Q(t)), global(t) = s(t, x_i) / max over t' of max Q(t'), score = local + global.
    A quotient whose denominator is 0 counts as 0.
calibrated
    Ours, of candidates that neighbours or the probe propose: :mod:`curation.calibrated`.
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
from curation.calibrated import Weights, calibrated_scores
from curation.candidates import Candidates, neighbours_concepts, with_proposals
from curation.csr import Csr, ragged_slots
from curation.index.folder import OpenIndex
from curation.index.lists import best_first
from curation.probe import Probe
from curation.products import products_of_sorted, row_products

__all__ = ["RANKINGS", "Ranked", "rank"]

RANKINGS = ("paper", "calibrated", "compat")


@dataclass(frozen=True)
class Ranked:
    """For each of B anchors its concepts, best first, and why each is there.

    Attributes:
        concepts: concept ids, int32.
        scores: float32, parallel to ``concepts.values``.
        votes: int64, parallel: how many neighbours name it.
        chances: float32, parallel: the probe's r; 0 where the ranking asks no probe.
        first_voters: int64, parallel: where its neighbours begin in ``voters``.
        voters: int64, position of a neighbour in the flattened (B, L) rows, most similar first.
    """

    concepts: Csr
    scores: np.ndarray
    votes: np.ndarray
    chances: np.ndarray
    first_voters: np.ndarray
    voters: np.ndarray

    def top(self, count: int) -> Ranked:
        """The best ``count`` of each anchor."""
        lengths = np.minimum(self.concepts.lengths, count)
        slots = ragged_slots(self.concepts.offsets[:-1], lengths)
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        parallel = (self.scores, self.votes, self.chances, self.first_voters)
        return Ranked(
            Csr(offsets, self.concepts.values[slots]), *(values[slots] for values in parallel), self.voters
        )

    def named_by(self, count: int) -> Csr:
        """For every concept the ``count`` nearest neighbours that name it, as positions in the flattened rows."""
        lengths = np.minimum(self.votes, count)
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        return Csr(offsets, self.voters[ragged_slots(self.first_voters, lengths)])


def rank(
    index: OpenIndex,
    anchor_embeddings: np.ndarray,
    rows: np.ndarray,
    similarities: np.ndarray,
    ranking: str = "paper",
    probe: Probe | None = None,
    weights: Weights | None = None,
    proposals: int = 0,
) -> Ranked:
    """Rank the concepts of each anchor's neighbours, and those that the probe proposes.

    Args:
        index: its captions, cosines, concept embeddings, statistics and (``calibrated``) vectors are used.
        anchor_embeddings: (B, d) float32, rows L2-normalised.
        rows: int64 (B, L), the neighbours' rows in the index, -1 missing.
        similarities: float32 (B, L), of the neighbours; used by ``calibrated``.
        ranking: paper, calibrated or compat.
        probe: of the same vocabulary; ``calibrated`` needs it, the others do not look at it.
        weights: constants of ``calibrated``; None: the defaults.
        proposals: ``calibrated``: concepts of the whole vocabulary that the probe adds to the neighbours'; 0: none.

    Raises:
        UserError: an unknown ranking, no probe, or one of another vocabulary.
    """
    if ranking not in RANKINGS:
        raise UserError(f"archives.ranking is {ranking!r}; write one of {', '.join(RANKINGS)}")
    found = neighbours_concepts(index, rows)
    if ranking == "calibrated":
        probe = _checked(probe, index)
        if proposals:
            found, linear = with_proposals(found, probe, anchor_embeddings, proposals)
        else:
            linear = products_of_sorted(anchor_embeddings, found.anchors, probe.weights, found.concepts)
        chances = probe.chances_of(linear, found.concepts)
        cosines = products_of_sorted(
            anchor_embeddings, found.anchors, index.concept_embeddings, found.concepts
        ).astype(np.float64)
        scores = calibrated_scores(
            index, probe, found, anchor_embeddings, rows, similarities, cosines, chances, weights or Weights()
        )
    else:
        cosines = row_products(anchor_embeddings, found.anchors, index.concept_embeddings, found.concepts)
        scores, chances = _paper(found, cosines.astype(np.float64)), np.zeros(len(cosines))
    return _sorted_by_score(found, scores.astype(np.float32), chances.astype(np.float32), len(rows))


def _checked(probe: Probe | None, index: OpenIndex) -> Probe:
    if probe is None:
        raise UserError("archives.ranking is 'calibrated', which needs the probe; run fit_probe first")
    if probe.weights.shape != index.concept_embeddings.shape:
        concepts, d = probe.weights.shape
        raise UserError(
            f"the probe has {concepts:,} concepts of {d} dimensions and the index {len(index.concepts):,} of "
            f"{index.d}; run fit_probe again with overwrite=true"
        )
    return probe


def _paper(found: Candidates, anchor_cosines: np.ndarray) -> np.ndarray:
    if not len(found.starts):
        return np.zeros(0)
    mean = (np.add.reduceat(found.cosines, found.starts) + anchor_cosines) / (found.counts + 1)
    highest = np.maximum(np.maximum.reduceat(found.cosines, found.starts), anchor_cosines)
    first = np.flatnonzero(np.diff(found.anchors, prepend=-1))
    anchor_highest = np.repeat(np.maximum.reduceat(highest, first), np.diff(first, append=len(found.anchors)))
    return _quotient(anchor_cosines, mean) + _quotient(anchor_cosines, anchor_highest)


def _quotient(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator != 0)


def _sorted_by_score(found: Candidates, scores: np.ndarray, chances: np.ndarray, batch: int) -> Ranked:
    """Within each anchor by descending score; candidates are already in order of concept id."""
    order = best_first(found.anchors, scores, np.arange(len(scores)))
    offsets = np.zeros(batch + 1, np.int64)
    np.cumsum(np.bincount(found.anchors, minlength=batch), out=offsets[1:])
    return Ranked(
        Csr(offsets, found.concepts[order].astype(np.int32)),
        scores[order],
        found.counts[order],
        chances[order],
        found.starts[order],
        found.neighbours,
    )
