"""Vision-driven expansion: the L most similar images of the index (paper, section 3.2).

FAISS proposes a few more candidates than are wanted; their similarities are then computed anew from the
stored fp16 vectors, each on its own, and ordered by (-similarity, row). So results do not carry the
rounding of whatever matrix product FAISS happened to use for a batch of that size, and equal images come
in the order of their rows. Where candidates tie with the last wanted place and FAISS may have left equal
ones out, that query is searched again, deeper. What remains approximate: which inverted lists a query
visits, and ties among more than ``MAX_DEPTH`` images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from configs.errors import UserError
from curation.index.folder import OpenIndex, Split
from curation.keys import hash_keys
from curation.products import row_products

__all__ = ["SearchQuality", "exact_search", "place_on_device", "recall", "search", "tune"]

SPARE_CANDIDATES = 4
MAX_DEPTH = 1024
_TIE = 1e-5  # similarities closer than this may be in another order in FAISS's fp32 or fp16 arithmetic
_REFINEMENTS = (4, 8, 16, 32, 64)
_NO_ROW = np.iinfo(np.int64).max

Finder = Callable[[Split, np.ndarray, int], np.ndarray]


@dataclass(frozen=True)
class SearchQuality:
    """How an index is searched, and the recall that was measured so.

    Attributes:
        nprobe: inverted lists a query visits (0: exact search).
        refine: candidates taken per wanted neighbour before they are ordered exactly.
        recall: share of the true ``neighbours`` nearest images that were found, mean over ``queries``.
        reached: whether that is the recall that was asked for.
    """

    nprobe: int = 0
    refine: int = 1
    recall: float = 1.0
    neighbours: int = 0
    queries: int = 0
    reached: bool = True


def search(
    index: OpenIndex,
    queries: np.ndarray,
    neighbours: int,
    exclude_keys: pa.Array | None = None,
    threads: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest images of each query.

    Args:
        index: from ``open_index``.
        queries: (B, d) float32, rows L2-normalised.
        neighbours: L, at least 1.
        exclude_keys: (B,) the keys of the queries' own images, which are not their neighbours; None: none.
        threads: OpenMP threads of FAISS; None: as they are set.

    Returns:
        rows int64 (B, L), -1 where there are fewer, and similarities float32 (B, L), 0 there; best first,
        equal ones by row.

    Raises:
        UserError: the queries have another dimension than the index.
    """
    if threads:
        faiss.omp_set_num_threads(threads)
    refine = index.refine if index.device == "cpu" else 1  # the GPU compares the vectors themselves
    return _search(index, queries, neighbours, exclude_keys, _finder(index), refine)


def exact_search(
    index: OpenIndex, queries: np.ndarray, neighbours: int, exclude_keys: pa.Array | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Like :func:`search`, comparing with every vector whatever the kind of the index."""
    return _search(index, queries, neighbours, exclude_keys, _compare_with_all, refine=1)


def recall(found: np.ndarray, true: np.ndarray) -> float:
    """Mean share of the true rows (B, L) that were found (B, L); -1 counts in neither."""
    hits = ((found[:, :, None] == true[:, None, :]) & (true[:, None, :] >= 0)).sum()
    return float(hits / max(1, (true >= 0).sum()))


def tune(
    index: OpenIndex, neighbours: int, nprobe: int = 0, target_recall: float = 0.99, queries: int = 500
) -> SearchQuality:
    """Choose the fewest lists that reach the recall, measured on images of the index itself.

    Each query leaves its own image out, as the archives do. Product codes also need enough candidates: the
    smallest refinement that reaches the recall at any number of lists is taken.

    Args:
        index: from ``open_index``; the attributes that say how it is searched are not changed.
        neighbours: L.
        nprobe: lists to visit; 0: choose.
        target_recall: in (0, 1].
        queries: how many images of the index are tried.
    """
    rows = np.sort(np.random.default_rng(0).permutation(index.rows)[:queries])
    anchors = _gather(index, rows)
    keys = index.keys.take(pa.array(rows))
    true, _ = exact_search(index, anchors, neighbours, keys)
    base = SearchQuality(nprobe, 1, 1.0, neighbours, len(rows))

    def measure(lists: int, refine: int) -> SearchQuality:
        trial = replace(index, nprobe=lists, refine=refine)
        value = recall(search(trial, anchors, neighbours, keys)[0], true)
        return replace(base, nprobe=lists, refine=refine, recall=value, reached=value >= target_recall)

    if index.kind == "flat":
        return replace(measure(0, 1), nprobe=0)
    nlist = faiss.extract_index_ivf(index.splits[0].faiss).nlist
    if nprobe > nlist:
        raise UserError(f"index.nprobe is {nprobe} and the index has {nlist} lists; write {nlist} or less")
    quality = base
    for refine in _REFINEMENTS if index.kind == "ivfpq" else (1,):
        quality = measure(nprobe, refine) if nprobe else _fewest_lists(measure, nlist, refine)
        if quality.reached:
            break
    return quality


def place_on_device(index: OpenIndex, device: str) -> str:
    """Move exact search to the GPU where that is asked for and possible.

    The fp16 vectors go to the card as they are; whatever kind the index has, search there is exact.

    Args:
        index: from ``open_index``; changed in place.
        device: auto, cpu or gpu.

    Returns:
        What was done and why, in words.

    Raises:
        UserError: ``gpu`` without a GPU, without faiss-gpu, or with too little memory on the card.
    """
    if device not in ("auto", "cpu", "gpu"):
        raise UserError(f"archives.device is {device!r}; write auto, cpu or gpu")
    if device == "cpu":
        return "search on the CPU, as asked for"
    problem = _gpu_problem() or _copy_to_gpu(index)
    if problem is None:
        return "exact search on the GPU"
    if device == "gpu":
        raise UserError(f"archives.device is gpu, but {problem}; write archives.device=cpu or auto")
    return f"search on the CPU: {problem}"


def _gpu_problem() -> str | None:
    if not hasattr(faiss, "StandardGpuResources"):
        return "this FAISS was built for CPUs (install the extra gpu: faiss-gpu)"
    return None if faiss.get_num_gpus() else "FAISS sees no GPU"


def _copy_to_gpu(index: OpenIndex) -> str | None:
    """All splits on the card, or none and the reason."""
    config = faiss.GpuIndexFlatConfig()
    config.useFloat16 = True
    try:
        for split in index.splits:
            resources = faiss.StandardGpuResources()
            resources.setTempMemory(256 << 20)
            split.gpu = faiss.GpuIndexFlatIP(resources, index.d, config)
            split.gpu.reserveMemory(len(split.vectors)) if hasattr(split.gpu, "reserveMemory") else None
            for start in range(0, len(split.vectors), 1 << 18):
                split.gpu.add(np.asarray(split.vectors[start : start + (1 << 18)], dtype=np.float32))
    except RuntimeError as error:
        for split in index.splits:
            split.gpu = None
        return f"{index.rows * index.d * 2 / 1e9:.1f} GB do not fit the card ({str(error).splitlines()[-1]})"
    return None


def _search(
    index: OpenIndex,
    queries: np.ndarray,
    neighbours: int,
    exclude_keys: pa.Array | None,
    find: Finder,
    refine: int,
) -> tuple[np.ndarray, np.ndarray]:
    if neighbours < 1:
        raise UserError(f"archives.neighbours is {neighbours}; write 1 or more")
    anchors = np.ascontiguousarray(queries, dtype=np.float32)
    if anchors.ndim != 2 or anchors.shape[1] != index.d:
        raise UserError(
            f"the queries have dimension {anchors.shape[-1]} and the index in {index.folder} has {index.d}; "
            "embed both with the same CLIP model"
        )
    wanted = neighbours + (exclude_keys is not None)
    found = [_split_candidates(split, anchors, wanted, find, refine) for split in index.splits]
    rows = np.concatenate([part[0] for part in found], axis=1)
    similarities = np.concatenate([part[1] for part in found], axis=1)
    if exclude_keys is not None:
        own = _own_images(index, rows, exclude_keys)
        rows[own], similarities[own] = _NO_ROW, -np.inf
    rows, similarities = _best_first(rows, similarities)
    return _cut(rows, similarities, neighbours)


def _split_candidates(
    split: Split, anchors: np.ndarray, wanted: int, find: Finder, refine: int
) -> tuple[np.ndarray, np.ndarray]:
    """At least ``wanted`` rows of a split, best first, with exact similarities; depth grows where they tie."""
    size = len(split.vectors)
    depth = min(size, max(wanted + SPARE_CANDIDATES, wanted * refine))
    rows, similarities = _score(split, anchors, find(split, anchors, depth))
    while depth < min(size, MAX_DEPTH) and len(open_ends := _may_miss_ties(similarities, wanted)):
        depth = min(size, MAX_DEPTH, depth * 8)
        deeper = _score(split, anchors[open_ends], find(split, anchors[open_ends], depth))
        rows[open_ends, :wanted], similarities[open_ends, :wanted] = (part[:, :wanted] for part in deeper)
        similarities[open_ends, wanted:] = deeper[1][:, -1:]
        rows[open_ends, wanted:] = _NO_ROW
    return rows[:, :wanted], similarities[:, :wanted]


def _may_miss_ties(similarities: np.ndarray, wanted: int) -> np.ndarray:
    """Queries whose last candidate is as good as the last wanted one: others as good may be missing."""
    last = similarities[:, -1]
    full = np.flatnonzero(np.isfinite(last))
    return full[similarities[full, wanted - 1] - last[full] <= _TIE]


def _score(split: Split, anchors: np.ndarray, local: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Exact similarities of local candidates (B, k), -1 missing; best first, rows of the whole index."""
    queries, places = np.nonzero(local >= 0)
    chosen = local[queries, places]
    similarities = np.full(local.shape, -np.inf, np.float32)
    similarities[queries, places] = row_products(anchors, queries, split.vectors, chosen)
    return _best_first(np.where(local >= 0, local + split.start, _NO_ROW), similarities)


def _best_first(rows: np.ndarray, similarities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.lexsort((rows, -similarities), axis=-1)
    return np.take_along_axis(rows, order, 1), np.take_along_axis(similarities, order, 1)


def _cut(rows: np.ndarray, similarities: np.ndarray, neighbours: int) -> tuple[np.ndarray, np.ndarray]:
    """Exactly L columns, missing ones -1 and 0."""
    missing = max(0, neighbours - rows.shape[1])
    rows = np.pad(rows[:, :neighbours], ((0, 0), (0, missing)), constant_values=_NO_ROW)
    similarities = np.pad(similarities[:, :neighbours], ((0, 0), (0, missing)))
    absent = rows == _NO_ROW
    return np.where(absent, -1, rows), np.where(absent, np.float32(0), similarities)


def _own_images(index: OpenIndex, rows: np.ndarray, keys: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Mask of candidates that carry the query's own key: equal hashes, then equal strings."""
    safe = np.where(rows == _NO_ROW, 0, rows)
    mask = (index.key_hashes[safe] == hash_keys(keys)[:, None]) & (rows != _NO_ROW)
    queries, places = np.nonzero(mask)
    stored = index.keys.take(pa.array(rows[queries, places]))
    same = pc.equal(stored, keys.take(pa.array(queries)).cast(pa.large_string()))
    mask[queries, places] = same.to_numpy(zero_copy_only=False)
    return mask


def _finder(index: OpenIndex) -> Finder:
    def find(split: Split, anchors: np.ndarray, depth: int) -> np.ndarray:
        if split.gpu is not None:
            return split.gpu.search(anchors, depth)[1]
        if index.kind == "flat":
            return split.faiss.search(anchors, depth)[1]
        parameters = faiss.SearchParametersIVF(nprobe=max(1, index.nprobe))
        return split.faiss.search(anchors, depth, params=parameters)[1]

    return find


def _compare_with_all(split: Split, anchors: np.ndarray, depth: int) -> np.ndarray:
    """The ``depth`` nearest by brute force over blocks of the fp16 vectors."""
    block = 1 << 16
    similarities = np.full((len(anchors), 0), -np.inf, np.float32)
    rows = np.full((len(anchors), 0), -1, np.int64)
    for start in range(0, len(split.vectors), block):
        vectors = np.asarray(split.vectors[start : start + block], dtype=np.float32)
        near = faiss.knn(anchors, vectors, min(depth, len(vectors)), faiss.METRIC_INNER_PRODUCT)
        similarities = np.concatenate([similarities, near[0]], axis=1)
        rows = np.concatenate([rows, near[1] + start], axis=1)
        order = np.argsort(-similarities, axis=1, kind="stable")[:, :depth]
        similarities = np.take_along_axis(similarities, order, 1)
        rows = np.take_along_axis(rows, order, 1)
    return rows


def _gather(index: OpenIndex, rows: np.ndarray) -> np.ndarray:
    """Vectors of rows, float32; the rows' splits must be open."""
    vectors = np.zeros((len(rows), index.d), np.float32)
    for split in index.splits:
        inside = (rows >= split.start) & (rows < split.start + len(split.vectors))
        vectors[inside] = split.vectors[rows[inside] - split.start]
    return vectors


def _fewest_lists(measure: Callable[[int, int], SearchQuality], nlist: int, refine: int) -> SearchQuality:
    """Double until the recall is reached, then halve the interval."""
    low, high = 0, 1
    quality = measure(high, refine)
    while not quality.reached and high < nlist:
        low, high = high, min(nlist, 2 * high)
        quality = measure(high, refine)
    while quality.reached and high - low > 1:
        middle = (low + high) // 2
        trial = measure(middle, refine)
        low, high, quality = (low, middle, trial) if trial.reached else (middle, high, quality)
    return quality
