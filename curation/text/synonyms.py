"""Concepts that are words for the same thing ("jacket" and "coat"), and which of them stands for all.

Two concepts are merged when all of this holds: their text embeddings are close, the images whose captions name
the one look like those whose captions name the other, and captions seldom name both, as who says the one does not
say the other. "man" and "woman" are close in text and in images, but captions name both; "skateboard" and
"snowboard" are seldom named together, but are farther in text.

Embeddings of one modality share a direction (any two texts have a high cosine), so the mean is taken off before
comparing: of the concepts' texts, and of the corpus' images. A text encoder that knows few words still puts many of them
close together; close is therefore also what stands out among all cosines of the vocabulary.

Of three and more words ("grass", "lawn", "meadow") every two must hold up: no chain leads from one sense to another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from curation.csr import Csr
from curation.text.words import match_words

__all__ = ["Merge", "PairSums", "choose_merges", "close_pairs", "least_cosine", "pair_sums"]

TEXT = 0.65  # least cosine of two centred text embeddings,
UNUSUAL, _MANY = (
    7.0,
    50,
)  # and, among 50 concepts and more, its least atanh in standard deviations of all cosines
IMAGES = 0.3  # least cosine of the concepts' centred mean images
TOGETHER = 0.25  # most captions that name both, as a share of what chance would give
_BLOCK = 1024  # concepts compared with all others at a time


@dataclass(frozen=True)
class Merge:
    """``concept`` is found as ``into``, both ids; with the figures that speak for it."""

    concept: int
    into: int
    text_cosine: float
    image_cosine: float
    captions_with_both: int
    by_chance: float


def close_pairs(concepts: Sequence[str], texts: np.ndarray) -> np.ndarray:
    """Pairs of concepts whose text embeddings are close, int64 (P, 2), the lower id first, in rising order.

    Concepts that share a word ("ball", "soccer ball") are kinds of each other and no pair.

    Args:
        concepts: V names.
        texts: (V, d), any float type, rows L2-normalised.
    """
    centred, least = _centred(texts), least_cosine(texts)
    found = [np.zeros((0, 2), np.int64)]
    for start in range(0, len(centred), _BLOCK):
        rows, columns = np.nonzero(centred[start : start + _BLOCK] @ centred.T >= least)
        pairs = np.stack([rows + start, columns], axis=1)
        found.append(pairs[pairs[:, 0] < pairs[:, 1]])
    pairs = np.concatenate(found)
    words = {int(number): set(match_words(concepts[number])) for number in np.unique(pairs)}
    apart = [words[int(left)].isdisjoint(words[int(right)]) for left, right in pairs]
    return pairs[np.array(apart, bool)]


def least_cosine(texts: np.ndarray) -> float:
    """From which cosine on two of these texts are close; texts (V, d), rows L2-normalised.

    Mean and standard deviation of all V (V - 1) cosines follow from sums over the texts: no matrix of V x V.
    """
    if len(texts) < _MANY:
        return TEXT
    centred = _centred(texts).astype(np.float64)
    pairs = len(texts) * (len(texts) - 1)
    lengths = np.einsum("vd,vd->v", centred, centred)
    total = centred.sum(axis=0)
    mean = (total @ total - lengths.sum()) / pairs
    square = (((centred.T @ centred) ** 2).sum() - (lengths**2).sum()) / pairs
    return max(TEXT, float(np.tanh(UNUSUAL * np.sqrt(max(square - mean**2, 0.0)))))


@dataclass(frozen=True)
class PairSums:
    """What a corpus says of pairs of concepts; those of its parts add up.

    Attributes:
        rows: images. total: float64 (d,), the sum of their embeddings.
        ids: int64 (k,), the concepts of the pairs, rising.
        counts: int64 (k,), captions that name each. sums: float64 (k, d), the sum of their images' embeddings.
        together: int64 (P,), captions that name both concepts of a pair.
    """

    rows: int
    total: np.ndarray
    ids: np.ndarray
    counts: np.ndarray
    sums: np.ndarray
    together: np.ndarray

    def __add__(self, other: PairSums) -> PairSums:
        return PairSums(
            self.rows + other.rows,
            self.total + other.total,
            self.ids,
            self.counts + other.counts,
            self.sums + other.sums,
            self.together + other.together,
        )


def pair_sums(vectors: np.ndarray, captions: Csr, pairs: np.ndarray) -> PairSums:
    """Of some captions and their images.

    Args:
        vectors: (n, d), any float type.
        captions: concept ids of the n captions.
        pairs: int (P, 2).
    """
    ids, places = np.unique(pairs, return_inverse=True)
    known = np.isin(captions.values, ids)
    named = np.zeros((len(captions), len(ids)), bool)
    named[captions.row_ids()[known], np.searchsorted(ids, captions.values[known])] = True
    left, right = places.reshape(-1, 2).T
    images = vectors.astype(np.float32)
    return PairSums(
        rows=len(images),
        total=images.sum(axis=0, dtype=np.float64),
        ids=ids.astype(np.int64),
        counts=named.sum(axis=0, dtype=np.int64),
        sums=(named.T.astype(np.float32) @ images).astype(np.float64),
        together=(named[:, left] & named[:, right]).sum(axis=0, dtype=np.int64),
    )


def choose_merges(pairs: np.ndarray, texts: np.ndarray, found: PairSums) -> list[Merge]:
    """The merges, closest texts first; each group of words goes into its most frequent one.

    Groups grow from the closest pair on, and two become one where every word of the one fits every word of the other.

    Args:
        pairs: int (P, 2), from :func:`close_pairs`.
        texts: (V, d), rows L2-normalised.
        found: the sums of these pairs over the whole corpus.
    """
    places = np.searchsorted(found.ids, pairs)
    centred = _centred(texts)[found.ids]
    looks = _directions(found.sums - found.counts[:, None] * (found.total / max(found.rows, 1)))
    text, image = (np.einsum("pd,pd->p", rows[places[:, 0]], rows[places[:, 1]]) for rows in (centred, looks))
    chance = found.counts[places].prod(axis=1) / max(found.rows, 1)
    fit = (image >= IMAGES) & (found.together <= TOGETHER * chance)
    fitting = {(left, right): place for place, (left, right) in enumerate(pairs.tolist()) if fit[place]}
    group = {concept: [concept] for concept in found.ids.tolist()}
    for place in np.argsort(-text, kind="stable"):
        one, other = (group[concept] for concept in pairs[place].tolist())
        if one is not other and all((min(a, b), max(a, b)) in fitting for a in one for b in other):
            joined = one + other
            group.update(dict.fromkeys(joined, joined))
    counts = dict(zip(found.ids.tolist(), found.counts.tolist(), strict=True))
    merges = []
    for concept, words in group.items():
        into = max(words, key=lambda word: (counts[word], -word))
        if concept != into:
            place = fitting[min(concept, into), max(concept, into)]
            figures = (
                float(text[place]),
                float(image[place]),
                int(found.together[place]),
                float(chance[place]),
            )
            merges.append(Merge(concept, into, *figures))
    return sorted(merges, key=lambda merge: (-merge.text_cosine, merge.concept))


def _centred(texts: np.ndarray) -> np.ndarray:
    """Directions from the mean text, float32."""
    return _directions(texts.astype(np.float32) - texts.mean(axis=0, dtype=np.float32))


def _directions(vectors: np.ndarray) -> np.ndarray:
    """Rows of length 1; zero rows stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)
