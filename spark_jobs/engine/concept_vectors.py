"""Text embeddings of concepts: computed by CLIP, or the user's own."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from configs.errors import UserError
from configs.schema import ClipConfig
from models.clip import load_clip

__all__ = ["check_given", "embed_texts", "given_vectors"]


def embed_texts(concepts: Sequence[str], clip: ClipConfig) -> np.ndarray:
    """float32 (n, d), L2-normalised: of each concept in the prompt."""
    return load_clip(clip).encode_texts([clip.prompt.replace("{}", concept) for concept in concepts])


def given_vectors(path: str, rows: Sequence[int]) -> np.ndarray:
    """Some rows of the user's vectors, float32 (n, d), L2-normalised.

    Raises:
        UserError: the file cannot be used, or one of the rows is zero or not finite.
    """
    vectors = np.asarray(_open(path)[list(rows)], dtype=np.float32)
    lengths = np.linalg.norm(vectors, axis=1)
    wrong = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
    if len(wrong):
        raise UserError(f"concepts.embeddings={path}: row {rows[wrong[0]]} is zero or not finite")
    return vectors / lengths[:, None]


def check_given(path: str, vocabulary: str, concepts: int) -> None:
    """What can be wrong with the user's vectors at start-up.

    Raises:
        UserError: no vocabulary, a file that is no array of numbers, or not one row for each concept.
    """
    if not vocabulary:
        raise UserError("concepts.embeddings needs concepts.vocabulary, the text file its rows belong to")
    rows = len(_open(path))
    if rows != concepts:
        raise UserError(
            f"concepts.embeddings={path} has {rows:,} rows and concepts.vocabulary={vocabulary} {concepts:,} concepts; "
            f"row i belongs to the i-th concept"
        )


@lru_cache(maxsize=1)
def _open(path: str) -> np.ndarray:
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"concepts.embeddings={path}: not a readable .npy of numbers: {error}") from None
    if values.ndim != 2 or values.dtype.kind != "f":
        raise UserError(
            f"concepts.embeddings={path}: expected floats of shape (n, d), found {values.dtype} {values.shape}"
        )
    return values
