"""Which index to build: a pure decision from the number of vectors and a budget of memory."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from configs.errors import UserError

__all__ = ["IndexSpec", "choose_index", "split_rows"]

# Up to here comparing a query with every vector costs a fraction of a millisecond of one core, no more
# than the inverted lists would, and recall is 1 without a measurement.
EXACT_ROWS = 30_000
KINDS = ("auto", "flat", "ivf", "ivfpq")
ID_BYTES = 8


@dataclass(frozen=True)
class IndexSpec:
    """What is built. ``splits`` sub-indexes hold ``rows`` vectors of dimension ``d`` together.

    Attributes:
        kind: flat (exact, fp32), ivf (inverted lists of fp16 vectors) or ivfpq (inverted lists of product
            codes; candidates are ordered again by the exact fp16 vectors, which stay on disk).
        nlist: inverted lists of a sub-index, 0 for flat.
        code_bytes: bytes of one vector in the FAISS file.
        splits: sub-indexes; each of them keeps within the budget of memory.
        reason: the decision in words, for the log and index.json.
    """

    kind: str
    d: int
    rows: int
    nlist: int
    code_bytes: int
    splits: int
    reason: str

    @property
    def factory(self) -> str:
        """FAISS's name for it."""
        return {
            "flat": "Flat",
            "ivf": f"IVF{self.nlist},SQfp16",
            # np: codes are not renumbered for comparison by Hamming distance, which takes most of the training
            "ivfpq": f"IVF{self.nlist},PQ{self.code_bytes}np",
        }[self.kind]

    def to_dict(self) -> dict[str, Any]:
        """For index.json."""
        return asdict(self)


def choose_index(
    rows: int,
    d: int,
    memory_gb: float = 8.0,
    kind: str = "auto",
    nlist: int = 0,
    train_rows: int = 200_000,
) -> IndexSpec:
    """Decide kind, inverted lists and splits.

    ``auto`` is exact search while that is cheap and fits; then inverted lists with fp16 vectors; then
    product codes. A kind that was asked for, or the smallest one, is split where it exceeds the budget.

    Args:
        rows: vectors to index, at least 1.
        d: their dimension.
        memory_gb: what a host may give to one (sub-)index.
        kind: auto, flat, ivf or ivfpq.
        nlist: inverted lists; 0: 4 sqrt(rows), no more than the training sample can place.
        train_rows: size of the training sample.

    Raises:
        UserError: an unknown kind, nothing to index, or a budget that is not positive.
    """
    if kind not in KINDS:
        raise UserError(f"index.kind is {kind!r}; write one of {', '.join(KINDS)}")
    if rows < 1:
        raise UserError("there is nothing to index: image_embeddings has no rows; run embed_images first")
    if not memory_gb > 0:
        raise UserError(f"index.memory_gb is {memory_gb}; write the GB a host may use, for example 8")
    budget = memory_gb * 1e9
    chosen = kind if kind != "auto" else _smallest_sufficient(rows, d, budget)
    bytes_per_row = vector_bytes(chosen, d) + (0 if chosen == "flat" else ID_BYTES)
    splits = max(1, math.ceil(rows * bytes_per_row / budget))
    per_split = math.ceil(rows / splits)
    lists = 0 if chosen == "flat" else min(nlist or _default_lists(per_split, train_rows), per_split)
    how = "asked for" if kind != "auto" else "chosen"
    reason = (
        f"{chosen} {how}: {rows} x {d} needs {rows * bytes_per_row / 1e9:.2f} GB as {chosen}, "
        f"budget {memory_gb:g} GB a host, {splits} split{'s' if splits > 1 else ''}"
    )
    return IndexSpec(chosen, d, rows, lists, vector_bytes(chosen, d), splits, reason)


def split_rows(rows: int, splits: int) -> list[tuple[int, int]]:
    """First and last + 1 row of each split; sizes differ by one at most."""
    edges = [rows * part // splits for part in range(splits + 1)]
    return list(pairwise(edges))


def vector_bytes(kind: str, d: int) -> int:
    """Bytes of one vector in the FAISS file: fp32, fp16, or one byte for 8 (else 4, 2, 1) dimensions."""
    if kind == "ivfpq":
        return d // next(width for width in (8, 4, 2, 1) if d % width == 0)
    return {"flat": 4 * d, "ivf": 2 * d}[kind]


def _smallest_sufficient(rows: int, d: int, budget: float) -> str:
    if rows <= EXACT_ROWS and rows * vector_bytes("flat", d) <= budget:
        return "flat"
    return "ivf" if rows * (vector_bytes("ivf", d) + ID_BYTES) <= budget else "ivfpq"


def _default_lists(rows: int, train_rows: int) -> int:
    """4 sqrt(rows), as long as the sample has the 39 vectors a list that k-means asks for."""
    return max(1, min(round(4 * math.sqrt(rows)), min(rows, train_rows) // 39))
