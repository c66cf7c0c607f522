"""Texts to CLIP's byte-pair tokens, by open_clip's tokenizer."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch

import models.torchvision_ops  # noqa: F401  (before open_clip, see there)

if TYPE_CHECKING:
    from open_clip.tokenizer import SimpleTokenizer

__all__ = ["END_TOKEN", "START_TOKEN", "token_ids", "tokenize", "trim"]

START_TOKEN = 49406
END_TOKEN = 49407

_LOCK = threading.Lock()


@lru_cache(maxsize=1)
def _tokenizer() -> SimpleTokenizer:
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer()


# Plain ASCII without & and <, in which the tokenizer finds no broken encoding, markup or special token to look after:
# the ids are those of its words, numbers and marks one after the other, cut as the tokenizer cuts them.
_PLAIN = re.compile(r"[ !-%'-;=-~]*")
_PIECES = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[a-z]+|[0-9]|[^ a-z0-9]+")


@lru_cache(maxsize=1 << 16)
def _piece_ids(piece: str) -> tuple[int, ...]:
    return tuple(_tokenizer().encode(piece))


def token_ids(text: str) -> np.ndarray:
    """Token ids of one text without the marks, uint16 (few bytes, as many texts are kept)."""
    with _LOCK:  # the tokenizer keeps a table of words of its own
        if _PLAIN.fullmatch(text):
            ids = [number for piece in _PIECES.findall(text.lower()) for number in _piece_ids(piece)]
        else:
            ids = _tokenizer().encode(text)
        return np.array(ids, dtype=np.uint16)


_ids = lru_cache(maxsize=1 << 17)(token_ids)


def tokenize(texts: Sequence[str], context_length: int = 77) -> torch.Tensor:
    """n texts -> int64 (n, context_length): start, tokens, end, then zeros.

    A longer text loses its last tokens but keeps the end mark. Texts met before come from a table.
    Safe to call from several threads.
    """
    rows = np.zeros((len(texts), context_length), dtype=np.int64)
    rows[:, 0] = START_TOKEN
    for row, text in zip(rows, texts, strict=True):
        ids = _ids(text)[: context_length - 2]
        row[1 : len(ids) + 1] = ids
        row[len(ids) + 1] = END_TOKEN
    return torch.from_numpy(rows)


def trim(tokens: torch.Tensor, multiple: int = 8) -> torch.Tensor:
    """Cut columns (..., T) behind the longest text, up to a multiple (fewer shapes for the GPU).

    Changes no feature, because attention is causal. Do it on the CPU, before the copy to a device.
    """
    longest = int(tokens.argmax(dim=-1).max()) + 1 if tokens.numel() else 1
    return tokens[..., : -(-longest // multiple) * multiple]
