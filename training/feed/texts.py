"""A batch's training texts as tokens: the caption, and K prompts drawn for this epoch (method, section 1.4)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from configs.errors import UserError
from curation.sampling import draw_words, write_prompts
from models.losses import Concepts
from models.templates import PROMPT_TEMPLATES
from models.tokenize import tokenize, trim

__all__ = [
    "MOST_NOUNS", "NEGATIVES", "Draws", "Prompts", "caption_tokens", "concept_number", "draw_prompts", "fixed_lists",
    "prompt_texts", "prompt_words",
]  # fmt: skip

NEGATIVES = ("all", "same-concept", "archive")


def caption_tokens(table: pa.Table, context_length: int) -> torch.Tensor:
    """int64 (n, T), T as short as the longest caption allows."""
    return trim(tokenize(strings(table, "caption"), context_length)).contiguous()


@dataclass(frozen=True)
class Draws:
    """Which prompts a row gets in an epoch, and who else's negatives they are; see ``configs.training``."""

    sampling: str = "cluster"
    prompts: int = 3
    temperature: float = 1.0
    seed: int = 0
    negatives: str = "all"
    known: int = 0


class Prompts(NamedTuple):
    """The prompts of n rows."""

    tokens: torch.Tensor
    """int64 (n, K, T')"""
    concepts: Concepts | None
    """None where every prompt is a negative of all other images"""


def draw_prompts(table: pa.Table, epoch: int, draws: Draws, context_length: int) -> Prompts | None:
    """The prompts of this epoch, or None where there are none to draw.

    A function of (seed, epoch, key) and the row, whatever the batch.
    """
    if draws.sampling == "none" or draws.prompts == 0:
        return None
    words = prompt_words(table, epoch, draws)
    texts = prompt_texts(table, words, epoch, draws)
    tokens = trim(tokenize([text for row in texts for text in row], context_length))
    return Prompts(tokens.reshape(len(texts), draws.prompts, -1), _concepts(table, words, draws))


def prompt_words(table: pa.Table, epoch: int, draws: Draws) -> list[list[str]]:
    """K concepts or nouns for each of n rows; "" where a row has fewer."""
    return draw_words(
        fixed_lists(table, "archive_concepts"),
        fixed_lists(table, "archive_scores"),
        fixed_lists(table, "archive_clusters"),
        strings(table, "caption_nouns"),
        strings(table, "key"),
        seed=draws.seed,
        epoch=epoch,
        k=draws.prompts,
        mode=draws.sampling,
        temperature=draws.temperature,
    )


def prompt_texts(table: pa.Table, words: list[list[str]], epoch: int, draws: Draws) -> list[list[str]]:
    """The drawn words in templates; the caption in slots without one."""
    captions, keys = strings(table, "caption"), strings(table, "key")
    return write_prompts(words, captions, keys, seed=draws.seed, epoch=epoch, templates=PROMPT_TEMPLATES)


def _concepts(table: pa.Table, words: list[list[str]], draws: Draws) -> Concepts | None:
    """What prompts name and images are known to show, as numbers."""
    if draws.negatives == "all":
        return None
    named = _numbers(words)
    if draws.negatives == "same-concept":
        return Concepts(named, named)
    archives = fixed_lists(table, "archive_concepts")
    archives = _numbers(archives[:, : draws.known or archives.shape[1]].tolist())
    nouns = [text.split("\n")[:MOST_NOUNS] for text in strings(table, "caption_nouns")]
    nouns = _numbers([row + [""] * (MOST_NOUNS - len(row)) for row in nouns])
    return Concepts(named, torch.cat([named, archives, nouns], dim=1))


MOST_NOUNS = 16
"""Nouns and phrases of a caption that are looked at, the first ones: the lists of all processes have one length."""


def _numbers(words: list[list[str]]) -> torch.Tensor:
    return torch.tensor([[concept_number(word) for word in row] for row in words], dtype=torch.int64)


@lru_cache(maxsize=1 << 20)
def concept_number(word: str) -> int:
    """63 bits that stand for a text, the same in every process; 0 for the empty one."""
    digest = hashlib.blake2b(word.encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 1 or 1) if word else 0


def strings(table: pa.Table, name: str) -> list[str]:
    """A text column without holes.

    Raises:
        UserError: a row has no value.
    """
    column = table.column(name)
    _refuse_nulls(column, name)
    return column.to_pylist()


def fixed_lists(table: pa.Table, name: str) -> np.ndarray:
    """A column of lists of one length A as (n, A): numbers of their own type, strings as objects.

    Raises:
        UserError: the column holds something else, or holes.
    """
    column = table.column(name)
    length = _list_length(table, name)
    _refuse_nulls(column, name)
    if length is None or not pc.all(pc.equal(pc.list_value_length(column), length), min_count=0).as_py():
        raise UserError(
            f"the training set's column {name} is {column.type}, not lists of one length: "
            "build it again with export_training"
        )
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    # flatten() heeds where a slice begins; the attribute `values` does not
    flat = [chunk.flatten() for chunk in chunks]
    if any(values.null_count for values in flat):
        raise UserError(f"the training set's column {name} has lists with empty places: export it again")
    parts = [values.to_numpy(zero_copy_only=False) for values in flat]
    whole = np.concatenate(parts) if parts else np.empty(0, column.type.value_type.to_pandas_dtype())
    return whole.reshape(table.num_rows, length)


def _list_length(table: pa.Table, name: str) -> int | None:
    """What the type or export_training's metadata says of how long all lists of a column are."""
    field = table.schema.field(name)
    if pa.types.is_fixed_size_list(field.type):
        return field.type.list_size
    told = (field.metadata or {}).get(b"length", b"")
    return int(told) if pa.types.is_list(field.type) and told.isdigit() else None


def _refuse_nulls(column: pa.Array | pa.ChunkedArray, name: str) -> None:
    if column.null_count:
        raise UserError(
            f"the training set's column {name} is empty in {column.null_count} of {len(column)} rows: "
            "build it again with export_training"
        )
