"""Exact search on a GPU by faiss-gpu: the fp16 vectors of an index, as they are, on the card."""

from __future__ import annotations

import faiss
import numpy as np

from configs.errors import UserError
from curation.index.folder import OpenIndex, Split
from curation.index.lists import MAX_TIES, Candidates

__all__ = ["gpu_candidates", "place_on_device"]

_SPARE = 4
_TIE = 1e-4  # wider than the rounding of products on the card


def place_on_device(index: OpenIndex, device: str) -> str:
    """Move exact search to the GPU where that is asked for and possible, whatever kind the index has.

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


def gpu_candidates(split: Split, anchors: np.ndarray, wanted: int) -> Candidates:
    """Candidates for the ``wanted`` nearest of (B, d) anchors, deeper where others may tie with the last."""
    size = len(split.lists)
    asking, depth = np.arange(len(anchors)), min(size, wanted + _SPARE)
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    while len(asking):
        similarities, places = split.gpu.search(anchors[asking], depth)
        more = similarities[:, min(wanted, depth) - 1] - similarities[:, -1] <= _TIE
        more &= depth < min(size, MAX_TIES)
        found.append((np.repeat(asking[~more], depth), places[~more].ravel(), similarities[~more].ravel()))
        asking, depth = asking[more], min(size, MAX_TIES, depth * 8)
    queries, places, similarities = (np.concatenate([part[column] for part in found]) for column in range(3))
    present = places >= 0
    return Candidates(queries[present], places[present], similarities[present])


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
            split.gpu.reserveMemory(len(split.lists)) if hasattr(split.gpu, "reserveMemory") else None
            for segment in split.lists.segments:
                for start in range(0, len(segment.vectors), 1 << 18):
                    split.gpu.add(np.asarray(segment.vectors[start : start + (1 << 18)], dtype=np.float32))
    except RuntimeError as error:
        for split in index.splits:
            split.gpu = None
        return f"{index.rows * index.d * 2 / 1e9:.1f} GB do not fit the card ({str(error).splitlines()[-1]})"
    return None
