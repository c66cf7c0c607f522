"""Groups of near-duplicates: the connected components of the pairs above a similarity, and who stands for a group.

A chain a ~ b ~ c is one group, whether or not a is a copy of c. An image with a thousand copies gives a million pairs;
what is kept of some pairs is their strongest spanning forest (at most a pair less than there are images): the same
groups, and for each image its most similar copy.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

from curation.index.above import Pairs, pairs_above
from curation.index.folder import OpenIndex

__all__ = ["Groups", "Links", "group", "joined", "links_of", "strongest"]

_BUFFERED = 1 << 22  # pairs that are collected before what is not needed of them is forgotten


@dataclass(frozen=True)
class Links:
    """Pairs of copies: rows of the index int64 (m,) and (m,), and their similarities float32 (m,)."""

    rows: np.ndarray
    others: np.ndarray
    similarities: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Groups:
    """Images that have copies, by rising row; n of them.

    Attributes:
        rows: int64 (n,), of the index.
        groups: int64 (n,), from 0 in the order of the groups' first rows.
        places: int32 (n,), within the group: 0 stands for it.
        representatives: int64 (n,), the row that stands for the group.
        similarities: float32 (n,), with the most similar copy.
    """

    rows: np.ndarray
    groups: np.ndarray
    places: np.ndarray
    representatives: np.ndarray
    similarities: np.ndarray


def links_of(index: OpenIndex, rows: np.ndarray, vectors: np.ndarray, similarity: float) -> Links:
    """The strongest links of some images of the index with all others, in the splits of it that are open.

    Args:
        index: ``nprobe`` lists are visited for each image.
        rows: int64 (B,), of the images.
        vectors: (B, d) float16 or float32, L2-normalised.
        similarity: cosine above which two images are copies.
    """
    return joined(
        _without_itself(rows, found)
        for found in pairs_above(index, np.ascontiguousarray(vectors, np.float32), similarity)
    )


def joined(parts: Iterable[Links]) -> Links:
    """The strongest links of several, in memory that follows the images and not the pairs."""
    kept, waiting, count = _no_links(), [], 0
    for part in parts:
        waiting.append(part)
        count += len(part)
        if count > max(_BUFFERED, len(kept)):
            kept, waiting, count = strongest(_concatenated([kept, *waiting])), [], 0
    return strongest(_concatenated([kept, *waiting]))


def strongest(links: Links) -> Links:
    """A spanning forest of the links of greatest similarity: it joins the same images, each to its most similar one."""
    nodes, ends = _nodes(links)
    if not len(links):
        return links
    low, high = np.minimum(*ends), np.maximum(*ends)
    _, first = np.unique(low * len(nodes) + high, return_index=True)  # a pair is found from both of its sides
    far = 2 - links.similarities[first].astype(np.float64)  # above 0, and exact
    graph = csr_matrix((far, (low[first], high[first])), shape=(len(nodes), len(nodes)))
    forest = minimum_spanning_tree(graph).tocoo()
    return Links(nodes[forest.row], nodes[forest.col], (2 - forest.data).astype(np.float32))


def group(links: Links, scores: np.ndarray, keys: pa.Array) -> Groups:
    """The groups that links make.

    The highest score stands for a group, and where none is higher the smallest key.

    Args:
        links: of all images, each image of a group in one of them at least.
        scores: float32 (n,), of the images that have links, by rising row; NaN where there is none.
        keys: (n,) of the same images.
    """
    nodes, ends = _nodes(links)
    if not len(nodes):
        none = np.zeros(0, np.int64)
        return Groups(none, none, none.astype(np.int32), none, np.zeros(0, np.float32))
    graph = csr_matrix((np.ones(len(links), np.int8), ends), shape=(len(nodes), len(nodes)))
    labels = connected_components(graph, directed=False)[1]
    _, first, labels = np.unique(labels, return_index=True, return_inverse=True)
    labels = np.argsort(np.argsort(first))[labels]  # by their first rows
    most = np.full(len(nodes), -np.inf, np.float32)
    for end in ends:
        np.maximum.at(most, end, links.similarities)
    known = pa.array(np.where(np.isnan(scores), -np.inf, scores))
    ordering = pa.table({"group": labels, "score": known, "key": keys})
    by = [("group", "ascending"), ("score", "descending"), ("key", "ascending")]
    order = pc.sort_indices(ordering, sort_keys=by).to_numpy()
    begins = np.searchsorted(labels[order], np.arange(labels.max() + 1))
    places = np.empty(len(nodes), np.int32)
    places[order] = np.arange(len(nodes)) - begins[labels[order]]
    return Groups(nodes, labels.astype(np.int64), places, nodes[order[begins]][labels], most)


def _nodes(links: Links) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """The images that have links, by rising row, and where each end of every link is among them."""
    nodes, ends = np.unique(np.concatenate([links.rows, links.others]), return_inverse=True)
    return nodes, (ends[: len(links)].astype(np.int64), ends[len(links) :].astype(np.int64))


def _without_itself(rows: np.ndarray, found: Pairs) -> Links:
    queries, others, similarities = found
    away = rows[queries] != others
    return Links(rows[queries][away], others[away], similarities[away])


def _no_links() -> Links:
    return Links(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))


def _concatenated(parts: list[Links]) -> Links:
    return Links(
        np.concatenate([part.rows for part in parts]),
        np.concatenate([part.others for part in parts]),
        np.concatenate([part.similarities for part in parts]),
    )
