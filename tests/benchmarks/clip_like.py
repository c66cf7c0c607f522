"""Vectors that cluster as real ones do: photos' CLIP embeddings, mixed and perturbed.

With ``COCU_REAL_DATA`` set, from the 986 embeddings of its ``real-clip/``: a vector is the mean of all, plus a
random mixture of three photos' offsets from it, plus noise that varies as these offsets do. Mixture and noise are
set so that 986 made vectors lie as the real ones: cosine to the nearest 0.78 (real 0.79), the 8th 0.69 (0.73), the
32nd 0.65 (0.68), the mean 0.52 (0.52). Without it, from 500 random directions; results then say so.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

__all__ = ["SOURCE", "clip_like", "source_of_vectors"]

D = 512
_MIXED, _EVENNESS, _NOISE = 3, 0.4, 0.55
_BLOCK = 8192
SOURCE = "real-clip, mixed and perturbed"


def source_of_vectors() -> str:
    """What :func:`clip_like` makes its vectors from, in words."""
    return SOURCE if _photos() is not None else "500 random directions, perturbed (COCU_REAL_DATA is not set)"


def clip_like(rows: int, seed: int = 0) -> np.ndarray:
    """So many vectors, float16 (rows, 512), L2-normalised; a block of 8,192 depends on the seed and its number."""
    real = _photos()
    if real is None:
        real = np.random.default_rng(0).standard_normal((500, D), np.float32) + np.float32(1)
        real /= np.linalg.norm(real, axis=1, keepdims=True)
    mean = real.mean(axis=0)
    blocks = [
        _block(real - mean, mean, min(_BLOCK, rows - start), (seed, number))
        for number, start in enumerate(range(0, rows, _BLOCK))
    ]
    return np.concatenate(blocks)


def _block(offsets: np.ndarray, mean: np.ndarray, rows: int, seed: tuple[int, int]) -> np.ndarray:
    random = np.random.default_rng(seed)
    shares = random.dirichlet([_EVENNESS] * _MIXED, rows).astype(np.float32)
    chosen = offsets[random.integers(len(offsets), size=(rows, _MIXED))]
    noise = (
        random.standard_normal((rows, len(offsets)), np.float32) @ offsets / np.float32(len(offsets) ** 0.5)
    )
    vectors = mean + np.einsum("nk,nkd->nd", shares, chosen) + np.float32(_NOISE) * noise
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def _photos() -> np.ndarray | None:
    folder = os.environ.get("COCU_REAL_DATA")
    path = Path(folder or ".") / "real-clip" / "image_embeddings.npy"
    return np.load(path).astype(np.float32) if folder and path.is_file() else None
