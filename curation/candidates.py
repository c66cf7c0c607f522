"""Which concepts are ranked for an image, and who proposed each: its neighbours' captions, the probe, or both.

Neighbours' concepts (T_i of the paper) are found by sorting codes ``anchor * V + concept``; what a candidate's
neighbours sum up to are reductions of runs of that order. There is no loop over images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from curation.csr import ragged_slots
from curation.index.folder import OpenIndex
from curation.probe import Probe

__all__ = ["Candidates", "neighbours_concepts", "with_proposals"]

_DENSE_ROWS = 64


@dataclass(frozen=True)
class Candidates:
    """Distinct (anchor, concept) pairs, sorted by anchor, then concept; m of them.

    Attributes:
        anchors, concepts: int64 (m,).
        starts: int64 (m,), first occurrence of each in the arrays below.
        counts: int64 (m,), its occurrences: neighbours that name it (0: the probe alone proposed it).
        cosines: float64 (k,), s(t, x_l) of every occurrence.
        neighbours: int64 (k,), position of the occurrence's neighbour in the flattened (B, L) rows; most similar
            first within a candidate.
    """

    anchors: np.ndarray
    concepts: np.ndarray
    starts: np.ndarray
    counts: np.ndarray
    cosines: np.ndarray
    neighbours: np.ndarray


def neighbours_concepts(index: OpenIndex, rows: np.ndarray) -> Candidates:
    """T_i of every anchor: the concepts of its neighbours' captions; rows int64 (B, L), -1 missing."""
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
    counts = np.diff(starts, append=len(codes))
    return Candidates(anchors, concepts, starts, counts, cosines, neighbours[order])


def with_proposals(found: Candidates, probe: Probe, anchors: np.ndarray, count: int) -> Candidates:
    """The same and, for every anchor, the ``count`` concepts of the whole vocabulary that the probe finds
    likeliest.

    Args:
        anchors: (B, d) float32, rows L2-normalised.
    """
    vocabulary = len(probe.weights)
    known = found.anchors * vocabulary + found.concepts
    codes = np.union1d(known, _proposals(probe, anchors, count))
    starts, counts = np.zeros(len(codes), np.int64), np.zeros(len(codes), np.int64)
    places = np.searchsorted(codes, known)
    starts[places], counts[places] = found.starts, found.counts
    rows, concepts = np.divmod(codes, max(1, vocabulary))
    return Candidates(rows, concepts, starts, counts, found.cosines, found.neighbours)


def _proposals(probe: Probe, anchors: np.ndarray, count: int) -> np.ndarray:
    """Codes anchor * V + concept of each anchor's ``count`` highest w . x + b.

    Matrix products of one shape whatever the batch: what they round to does not depend on its size.
    """
    vocabulary = len(probe.weights)
    kept = min(count, vocabulary)
    codes = []
    for start in range(0, len(anchors), _DENSE_ROWS):
        rows = anchors[start : start + _DENSE_ROWS]
        block = np.zeros((_DENSE_ROWS, anchors.shape[1]), np.float32)
        block[: len(rows)] = rows
        likely = (block @ probe.weights.T)[: len(rows)] + probe.biases
        if kept < vocabulary:
            best = np.argpartition(likely, vocabulary - kept, axis=1)[:, vocabulary - kept :]
        else:
            best = np.broadcast_to(np.arange(vocabulary), likely.shape)
        codes.append((np.arange(start, start + len(rows))[:, None] * vocabulary + best).ravel())
    return np.concatenate(codes) if codes else np.zeros(0, np.int64)
