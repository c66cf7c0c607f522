"""Cluster-guided sampling: which concepts an image is trained with in this epoch (paper, section 3.3).

Every draw is a function of (seed, epoch, key) alone: fresh each epoch, and the same whatever the batch, the
number of ranks or of workers. Nothing here loops over concepts in Python.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from curation.keys import GOLDEN, scramble

__all__ = ["MODES", "draw_columns", "draw_words", "template_picks", "uniforms", "write_prompts"]

MODES = ("cluster", "top", "caption-nouns", "none")


def uniforms(keys: Sequence[str], seed: int, epoch: int, count: int, stream: int = 0) -> np.ndarray:
    """float64 (len(keys), count) in (0, 1), from a hash of each key and a counter.

    ``stream`` separates uses of the same key. Splitmix64 turns one 64-bit state a key
    into as many numbers as are wanted.
    """
    salt = f"{seed}/{epoch}/{stream}/".encode()
    states = np.frombuffer(
        b"".join(hashlib.blake2b(salt + key.encode(), digest_size=8).digest() for key in keys), dtype="<u8"
    )
    mixed = scramble(states[:, None] + np.arange(count, dtype=np.uint64) * GOLDEN)
    return ((mixed >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def _cluster_logits(
    scores: np.ndarray, clusters: np.ndarray, temperature: float
) -> tuple[np.ndarray, np.ndarray]:
    """Mean score of each cluster over the temperature, -inf for numbers without concepts; and their sizes."""
    batch, length = scores.shape
    present = clusters >= 0
    codes = (np.arange(batch)[:, None] * length + clusters)[present]
    sizes = np.bincount(codes, minlength=batch * length).reshape(batch, length)
    sums = np.bincount(codes, weights=scores[present].astype(np.float64), minlength=batch * length).reshape(
        batch, length
    )
    means = np.divide(sums, sizes, out=np.full((batch, length), -np.inf), where=sizes > 0)
    return means / temperature, sizes


def draw_columns(
    scores: np.ndarray,
    clusters: np.ndarray,
    keys: Sequence[str],
    *,
    seed: int,
    epoch: int,
    k: int,
    mode: str = "cluster",
    temperature: float = 1.0,
) -> np.ndarray:
    """Which archive columns are drawn for each row.

    ``cluster``: K different clusters, one after the other with probability softmax(mean score) among those
    left, and in each one concept with probability softmax(score). Archives with fewer clusters than K give
    what remains of their concepts by softmax(score), then -1. ``top``: always the first K columns.

    Sampling without replacement is by Gumbel keys: the K largest of logit + noise are distributed as K
    draws one after the other.

    Returns:
        int64 (B, k), -1 for slots without a concept.
    """
    batch, length = scores.shape
    present = clusters >= 0
    if mode == "top":
        columns = np.broadcast_to(np.arange(k), (batch, k))
        inside = np.minimum(columns, max(length - 1, 0))
        return (
            np.where((columns < length) & np.take_along_axis(present, inside, 1), columns, -1)
            if length
            else np.full((batch, k), -1)
        )
    if mode != "cluster":
        raise ValueError(f"mode {mode!r} draws no archive columns")
    if length == 0:
        return np.full((batch, k), -1, np.int64)
    noise = -np.log(-np.log(uniforms(keys, seed, epoch, 2 * length)))
    concept_keys = np.where(present, scores.astype(np.float64) / temperature + noise[:, :length], -np.inf)
    logits, sizes = _cluster_logits(scores, clusters, temperature)
    cluster_keys = np.where(sizes > 0, logits + noise[:, length:], -np.inf)
    # The winner of a cluster is its concept with the largest key.
    order = np.argsort(-concept_keys, axis=1, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.broadcast_to(np.arange(length), order.shape).copy(), 1)
    best_rank = np.full((batch, length), length)
    np.minimum.at(
        best_rank, (np.arange(batch)[:, None], np.maximum(clusters, 0)), np.where(present, ranks, length)
    )
    winners = np.take_along_axis(order, np.minimum(best_rank, length - 1), 1)  # by cluster number
    chosen_clusters = np.argsort(-cluster_keys, axis=1, kind="stable")[:, :k]
    valid = np.isfinite(np.take_along_axis(cluster_keys, chosen_clusters, 1))
    drawn = np.where(valid, np.take_along_axis(winners, chosen_clusters, 1), -1)
    if drawn.shape[1] < k:
        drawn = np.concatenate([drawn, np.full((batch, k - drawn.shape[1]), -1)], axis=1)
    return _fill_up(drawn, concept_keys, order)


def _fill_up(drawn: np.ndarray, concept_keys: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Slots that no cluster filled take the concepts not drawn yet, by falling key."""
    short = np.flatnonzero((drawn < 0).any(axis=1))
    if not len(short):
        return drawn
    some, keys, ranked = drawn[short], concept_keys[short], order[short]
    taken = np.zeros(keys.shape, bool)
    rows = np.arange(len(short))[:, None]
    taken[np.broadcast_to(rows, some.shape)[some >= 0], some[some >= 0]] = True
    free = ~np.take_along_axis(taken, ranked, 1) & np.isfinite(np.take_along_axis(keys, ranked, 1))
    # The n-th free slot of a row takes the n-th free concept of that row.
    place = np.where(free, np.cumsum(free, axis=1) - 1, -1)
    slot = np.where(some < 0, np.cumsum(some < 0, axis=1) - 1, -2)
    match = slot[:, :, None] == place[:, None, :]
    filled = np.where(match.any(axis=2), np.take_along_axis(ranked, match.argmax(axis=2), 1), some)
    result = drawn.copy()
    result[short] = filled
    return result


def draw_words(
    concepts: np.ndarray,
    scores: np.ndarray,
    clusters: np.ndarray,
    caption_nouns: Sequence[str],
    keys: Sequence[str],
    *,
    seed: int,
    epoch: int,
    k: int,
    mode: str,
    temperature: float,
) -> list[list[str]]:
    """K concepts for each row to be trained with in this epoch, "" for slots without one.

    ``caption-nouns`` draws K different nouns of the caption (GroupViT's own training), ``none`` gives none at all.

    Args:
        concepts: object (B, A) of strings, "" where there is none.
        scores: float (B, A). clusters: int (B, A), -1 where there is none.
        caption_nouns: for each row its nouns, joined by newlines.
    """
    if mode not in MODES:
        raise ValueError(f"mode {mode!r}: write one of {', '.join(MODES)}")
    if mode == "none" or k == 0:
        return [[] for _ in keys]
    if mode == "caption-nouns":
        return _draw_nouns(caption_nouns, keys, seed, epoch, k)
    columns = draw_columns(
        scores, clusters, keys, seed=seed, epoch=epoch, k=k, mode=mode, temperature=temperature
    )
    return [
        [concepts[row, column] if column >= 0 else "" for column in chosen]
        for row, chosen in enumerate(columns.tolist())
    ]


def write_prompts(
    words: Sequence[Sequence[str]],
    captions: Sequence[str],
    keys: Sequence[str],
    *,
    seed: int,
    epoch: int,
    templates: Sequence[str],
) -> list[list[str]]:
    """The texts of drawn words (method, section 1.4): each in a template drawn at random, captions in empty slots."""
    k = max((len(row) for row in words), default=0)
    picks = template_picks(keys, k, seed=seed, epoch=epoch, count=len(templates))
    return [
        [
            templates[pick].replace("{}", word) if word else caption
            for word, pick in zip(row, chosen[: len(row)], strict=True)
        ]
        for row, chosen, caption in zip(words, picks.tolist(), captions, strict=True)
    ]


def template_picks(keys: Sequence[str], k: int, *, seed: int, epoch: int, count: int) -> np.ndarray:
    """int64 (len(keys), k) below ``count``: which template each drawn word of a row is put into."""
    return (uniforms(keys, seed, epoch, k, stream=1) * count).astype(np.int64)


def _draw_nouns(
    caption_nouns: Sequence[str], keys: Sequence[str], seed: int, epoch: int, k: int
) -> list[list[str]]:
    lists = [text.split("\n") if text else [] for text in caption_nouns]
    longest = max((len(words) for words in lists), default=0)
    order = uniforms(keys, seed, epoch, max(longest, 1), stream=2)
    result = []
    for row, words in enumerate(lists):
        chosen = np.argsort(order[row, : len(words)], kind="stable")[:k]
        result.append([words[place] for place in chosen] + [""] * (k - len(chosen)))
    return result
