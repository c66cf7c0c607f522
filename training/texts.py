"""A batch's training texts as tokens: the caption, and K prompts drawn for this epoch (method, section 1.4)."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from configs.errors import UserError
from curation.sampling import draw_prompts
from models.templates import PROMPT_TEMPLATES
from models.tokenize import tokenize, trim

__all__ = ["caption_tokens", "fixed_lists", "prompt_texts", "prompt_tokens"]


def caption_tokens(table: pa.Table, context_length: int) -> torch.Tensor:
    """int64 (n, T), T as short as the longest caption allows."""
    return trim(tokenize(strings(table, "caption"), context_length)).contiguous()


def prompt_tokens(
    table: pa.Table,
    epoch: int,
    *,
    sampling: str,
    prompts: int,
    temperature: float,
    seed: int,
    context_length: int,
) -> torch.Tensor | None:
    """int64 (n, K, T'): the prompts of this epoch, or None where there are none to draw."""
    if sampling == "none" or prompts == 0:
        return None
    texts = prompt_texts(table, epoch, sampling=sampling, prompts=prompts, temperature=temperature, seed=seed)
    tokens = trim(tokenize([text for row in texts for text in row], context_length))
    return tokens.reshape(len(texts), prompts, tokens.shape[-1])


def prompt_texts(
    table: pa.Table, epoch: int, *, sampling: str, prompts: int, temperature: float, seed: int
) -> list[list[str]]:
    """K texts for each of n rows; a function of (seed, epoch, key) and the row, whatever the batch."""
    return draw_prompts(
        fixed_lists(table, "archive_concepts"),
        fixed_lists(table, "archive_scores"),
        fixed_lists(table, "archive_clusters"),
        strings(table, "caption"),
        strings(table, "caption_nouns"),
        strings(table, "key"),
        seed=seed,
        epoch=epoch,
        k=prompts,
        mode=sampling,
        temperature=temperature,
        templates=PROMPT_TEMPLATES,
    )


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
