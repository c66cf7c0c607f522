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
from curation.products import dense_blocks

__all__ = ["Candidates", "neighbours_concepts", "with_proposals"]


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
    # With an occurrence's number below its code plain sorting, which is several times as fast as argsort, keeps a
    # candidate's neighbours in the order of their similarity: sums over them do not depend on the rest of the batch.
    bits = max(1, len(codes)).bit_length()
    ordered = np.sort((codes << bits) | np.arange(len(codes)))
    order, codes = ordered & ((1 << bits) - 1), ordered >> bits
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    anchors, concepts = np.divmod(codes[starts], vocabulary)
    cosines = index.cosines[slots[order]].astype(np.float64)
    counts = np.diff(starts, append=len(codes))
    return Candidates(anchors, concepts, starts, counts, cosines, neighbours[order])


def with_proposals(
    found: Candidates, probe: Probe, anchors: np.ndarray, count: int
) -> tuple[Candidates, np.ndarray]:
    """The same and, for every anchor, the ``count`` concepts of the whole vocabulary that the probe finds likeliest.

    Args:
        anchors: (B, d) float32, rows L2-normalised.

    Returns:
        The candidates, and w . x of each, float32 (m,): all products are computed to find the highest.
    """
    vocabulary = len(probe.weights)
    known = found.anchors * vocabulary + found.concepts
    codes, products = [np.zeros(0, np.int64)], [np.zeros(0, np.float32)]
    for start, block in dense_blocks(anchors, probe.weights):
        first = start * vocabulary
        wanted = _likeliest(block + probe.biases, count)
        inside = slice(*np.searchsorted(known, (first, first + wanted.size)))
        wanted.ravel()[known[inside] - first] = True
        there = np.flatnonzero(wanted)
        codes.append(first + there)
        products.append(block.ravel()[there])
    every = np.concatenate(codes)
    starts, counts = np.zeros(len(every), np.int64), np.zeros(len(every), np.int64)
    places = np.searchsorted(every, known)
    starts[places], counts[places] = found.starts, found.counts
    rows, concepts = np.divmod(every, max(1, vocabulary))
    merged = Candidates(rows, concepts, starts, counts, found.cosines, found.neighbours)
    return merged, np.concatenate(products)


def _likeliest(chances: np.ndarray, count: int) -> np.ndarray:
    """Mask (n, V) of the ``count`` highest of each row (n, V); of those that tie with the last, any."""
    kept = min(count, chances.shape[1])
    if not kept:
        return np.zeros(chances.shape, bool)
    # NumPy sorts faster than it finds the places of the highest.
    least = np.sort(chances, axis=1)[:, -kept, None]
    mask = chances >= least
    for row in np.flatnonzero(np.count_nonzero(mask, axis=1) > kept):
        mask[row] = False
        mask[row, np.argsort(-chances[row], kind="stable")[:kept]] = True
    return mask
