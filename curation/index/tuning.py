"""How many inverted lists a query must visit to find its L neighbours: chosen and measured on the index itself."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from configs.errors import UserError
from curation.index.folder import OpenIndex
from curation.index.search import exact_search, recall, search

__all__ = ["SearchQuality", "SearchTarget", "tune"]


@dataclass(frozen=True)
class SearchTarget:
    """How an index is to be searched.

    Attributes:
        neighbours: L.
        nprobe: lists to visit; 0: the fewest that reach ``recall``.
        recall: in (0, 1].
        queries: how many images of the index are tried.
    """

    neighbours: int = 8
    nprobe: int = 0
    recall: float = 0.99
    queries: int = 500

    @property
    def name(self) -> str:
        """For a file."""
        return f"search-L{self.neighbours}-nprobe{self.nprobe}-recall{self.recall:g}-queries{self.queries}"


@dataclass(frozen=True)
class SearchQuality:
    """How an index is searched, and the recall that was measured so.

    Attributes:
        nprobe: inverted lists a query visits (0: exact search).
        recall: share of the true ``neighbours`` nearest images that were found, mean over ``queries``.
        reached: whether that is the recall that was asked for.
    """

    nprobe: int = 0
    recall: float = 1.0
    neighbours: int = 0
    queries: int = 0
    reached: bool = True


def tune(index: OpenIndex, target: SearchTarget) -> SearchQuality:
    """Choose the fewest lists that reach the recall, measured on images of the index itself.

    Each query leaves its own image out, as the archives do. At which visit a true neighbour's list comes up is
    counted; the number that follows is tried out by a real search.

    Args:
        index: from ``open_index``, all splits; the attributes that say how it is searched are not changed.
        target: what is asked for.

    Raises:
        UserError: more lists are asked for than there are.
    """
    rows = np.sort(np.random.default_rng(0).permutation(index.rows)[: target.queries])
    anchors = _vectors_of(index, rows)
    keys = index.keys.take(pa.array(rows))
    true, _ = exact_search(index, anchors, target.neighbours, keys)

    def measure(lists: int) -> SearchQuality:
        found, _ = search(replace(index, nprobe=lists), anchors, target.neighbours, keys)
        value = recall(found, true)
        return SearchQuality(lists, value, target.neighbours, len(rows), value >= target.recall)

    if index.kind == "flat":
        return measure(0)
    nlist = len(index.centroids)
    if target.nprobe > nlist:
        raise UserError(
            f"index.nprobe is {target.nprobe} and the index has {nlist} lists; write {nlist} or less"
        )
    quality = measure(target.nprobe or _fewest_lists(index, anchors, true, target.recall))
    while not quality.reached and not target.nprobe and quality.nprobe < nlist:
        quality = measure(quality.nprobe + 1)  # a tie between lists that rounding has broken otherwise
    return quality


def _fewest_lists(index: OpenIndex, anchors: np.ndarray, true: np.ndarray, target_recall: float) -> int:
    """Visits after which the share ``target_recall`` of all true neighbours (B, L) has been met."""
    nearness = anchors @ index.centroids.T
    order = np.argsort(-nearness, axis=1)
    visit_of = np.empty_like(order)
    np.put_along_axis(visit_of, order, np.arange(order.shape[1])[None], 1)
    queries, places = np.nonzero(true >= 0)
    visits = visit_of[queries, _list_of(index, true[queries, places])]
    met = np.cumsum(np.bincount(visits, minlength=1)) / max(1, len(visits))
    return int(np.searchsorted(met, target_recall)) + 1


def _vectors_of(index: OpenIndex, rows: np.ndarray) -> np.ndarray:
    """Vectors of ``rows`` (rising), float32; the rows' splits must be open."""
    vectors = np.zeros((len(rows), index.d), np.float32)
    for split in index.splits:
        places = split.lists.places_of(rows)
        vectors[np.searchsorted(rows, split.lists.rows_at(places))] = split.lists.vectors_at(places)
    return vectors


def _list_of(index: OpenIndex, rows: np.ndarray) -> np.ndarray:
    """The list that each row lies in, int64."""
    asked, where = np.unique(rows, return_inverse=True)
    numbers = np.zeros(len(asked), np.int64)
    for split in index.splits:
        places = split.lists.places_of(asked)
        numbers[np.searchsorted(asked, split.lists.rows_at(places))] = (
            split.lists.lists_at(places) + split.first_list
        )
    return numbers[where]
