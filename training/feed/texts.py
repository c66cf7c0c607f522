"""A batch's training texts as tokens: the caption, and K prompts drawn for this epoch (method, section 1.4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from configs.errors import UserError
from curation.keys import hash_keys
from curation.sampling import draw_columns, draw_words, template_picks, write_prompts
from models.losses import Concepts
from models.templates import PROMPT_TEMPLATES
from models.token_rows import NO_TEXT, Tokens, TokenTable, join_rows, joins_cleanly, pack_ids, unpack_ids
from training.feed.training_set import TOKENS

__all__ = [
    "MOST_NOUNS", "NEGATIVES", "Draws", "Prompts", "caption_tokens", "concept_numbers", "draw_prompts", "fixed_lists",
    "prompt_texts", "prompt_words",
]  # fmt: skip

NEGATIVES = ("all", "same-concept", "archive")
_TEMPLATES = [template.partition("{}") for template in PROMPT_TEMPLATES]
_BEFORE, _BEHIND = [before for before, _, _ in _TEMPLATES], [behind for _, _, behind in _TEMPLATES]
_TABLE = TokenTable()
"""Of all batches of this process: concepts and templates come again and again."""


def caption_tokens(table: pa.Table, context_length: int) -> torch.Tensor:
    """int64 (n, T), T as short as the longest caption allows."""
    return torch.from_numpy(join_rows([_captions(table)], context_length))


def _captions(table: pa.Table) -> Tokens:
    """Ids of the captions: those that export_training computed, or, of an older table, computed here.

    Raises:
        UserError: a row has none.
    """
    if TOKENS in table.schema.names:
        try:
            return unpack_ids(table.column(TOKENS))
        except ValueError as error:
            raise UserError(
                f"the training set's column {TOKENS}: {error}; build it again with export_training"
            ) from None
    return unpack_ids(pack_ids(strings(table, "caption")))


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
    drawn = _draw(table, epoch, draws)
    picks = template_picks(
        strings(table, "key"), draws.prompts, seed=draws.seed, epoch=epoch, count=len(_TEMPLATES)
    )
    tokens = torch.from_numpy(_written(drawn, picks, _captions(table), context_length))
    return Prompts(tokens.unflatten(0, drawn.codes.shape), _concepts(table, drawn, draws))


class _Drawn(NamedTuple):
    """The words of n rows."""

    words: list[str]
    """those that occur, each once"""
    codes: np.ndarray
    """int64 (n, K): which of ``words``; -1 in slots without one"""


def _draw(table: pa.Table, epoch: int, draws: Draws) -> _Drawn:
    keys = strings(table, "key")
    if draws.sampling == "caption-nouns":
        words = prompt_words(table, epoch, draws)
        flat = pa.array([word for row in words for word in row], pa.string())
        return _coded(flat, (len(keys), draws.prompts))
    columns = draw_columns(
        fixed_lists(table, "archive_scores"),
        fixed_lists(table, "archive_clusters"),
        keys,
        seed=draws.seed,
        epoch=epoch,
        k=draws.prompts,
        mode=draws.sampling,
        temperature=draws.temperature,
    )
    flat, length = flat_lists(table, "archive_concepts")
    places = np.arange(len(keys))[:, None] * length + columns
    chosen = flat.take(pa.array(places.ravel(), pa.int64(), mask=(columns < 0).ravel()))
    return _coded(chosen, columns.shape)


def _coded(words: pa.Array, shape: tuple[int, ...]) -> _Drawn:
    """Arrow strings -> each once, and their numbers; the empty one and holes are none."""
    coded = words.dictionary_encode()
    known = coded.dictionary.to_pylist()
    codes = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64).reshape(shape)
    if "" in known:
        codes[codes == known.index("")] = -1
    return _Drawn(known, codes)


def _written(drawn: _Drawn, picks: np.ndarray, captions: Tokens, context_length: int) -> np.ndarray:
    """Drawn words in their templates, captions in the other slots: int64 (n K, T).

    Words that join cleanly with what stands around them are written from ids of the three parts; the others (an
    ampersand, a letter with an accent, a mark at an end) as whole texts, each once.
    """
    codes, picks = drawn.codes.ravel(), picks.ravel()
    clean = np.array([joins_cleanly(word) for word in drawn.words] + [False])[codes]
    odd = np.flatnonzero((codes >= 0) & ~clean)
    texts = [
        PROMPT_TEMPLATES[pick].replace("{}", drawn.words[code])
        for pick, code in zip(picks[odd].tolist(), codes[odd].tolist(), strict=True)
    ]
    wholes = np.full(len(codes), NO_TEXT)
    wholes[odd] = np.arange(len(odd))
    template = np.where(clean, picks, NO_TEXT)
    row = np.repeat(np.arange(len(drawn.codes)), drawn.codes.shape[1])
    pieces = [
        _TABLE.of(_BEFORE).take(template),
        _TABLE.of(drawn.words).take(np.where(clean, codes, NO_TEXT)),
        _TABLE.of(_BEHIND).take(template),
        _TABLE.of(texts).take(wholes),
        captions.take(np.where(codes < 0, row, NO_TEXT)),
    ]
    return join_rows(pieces, context_length)


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


def _concepts(table: pa.Table, drawn: _Drawn, draws: Draws) -> Concepts | None:
    """What prompts name and images are known to show, as numbers."""
    if draws.negatives == "all":
        return None
    named = concept_numbers(pa.array([*drawn.words, ""], pa.string()))[drawn.codes]
    shown = torch.from_numpy(named)
    if draws.negatives == "same-concept":
        return Concepts(shown, shown)
    flat, length = flat_lists(table, "archive_concepts")
    archives = concept_numbers(flat).reshape(table.num_rows, length)[:, : draws.known or length]
    known = np.concatenate([named, archives, _noun_numbers(table)], axis=1)
    return Concepts(shown, torch.from_numpy(known))


MOST_NOUNS = 16
"""Nouns and phrases of a caption that are looked at, the first ones: the lists of all processes have one length."""


def _noun_numbers(table: pa.Table) -> np.ndarray:
    """:func:`concept_numbers` of the captions' nouns, int64 (n, MOST_NOUNS), 0 behind the last."""
    column = table.column("caption_nouns")
    _refuse_nulls(column, "caption_nouns")
    nouns = pc.list_slice(pc.split_pattern(column, "\n"), 0, MOST_NOUNS).combine_chunks()
    numbers = np.zeros((table.num_rows, MOST_NOUNS), np.int64)
    lengths = pc.list_value_length(nouns).to_numpy(zero_copy_only=False)
    numbers[np.arange(MOST_NOUNS) < lengths[:, None]] = concept_numbers(nouns.flatten())
    return numbers


def concept_numbers(words: pa.Array) -> np.ndarray:
    """63 bits that stand for each text, the same in every process; 0 for the empty one: int64 (n,)."""
    numbers = np.maximum(hash_keys(words) >> np.uint64(1), np.uint64(1)).astype(np.int64)
    return np.where(pc.binary_length(words).to_numpy(zero_copy_only=False) > 0, numbers, 0)


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
    flat, length = flat_lists(table, name)
    return flat.to_numpy(zero_copy_only=False).reshape(table.num_rows, length)


def flat_lists(table: pa.Table, name: str) -> tuple[pa.Array, int]:
    """The values of a column of lists of one length A, n A of them, and A.

    Raises:
        UserError: the column holds something else, or holes.
    """
    column = table.column(name)
    length = _list_length(table, name)
    _refuse_nulls(column, name)
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    if length is None or not all(_are_of(chunk, length) for chunk in chunks):
        raise UserError(
            f"the training set's column {name} is {column.type}, not lists of one length: "
            "build it again with export_training"
        )
    # flatten() heeds where a slice begins; the attribute `values` does not
    flat = [pa.array([], column.type.value_type), *(chunk.flatten() for chunk in chunks)]
    if any(values.null_count for values in flat):
        raise UserError(f"the training set's column {name} has lists with empty places: export it again")
    return pa.concat_arrays(flat), length


def _are_of(lists: pa.Array, length: int) -> bool:
    """Whether all have that length (of the offsets: as functions of Arrow it takes a tenth of a batch's texts)."""
    if pa.types.is_fixed_size_list(lists.type):
        return lists.type.list_size == length
    return bool((np.diff(lists.offsets.to_numpy()) == length).all())


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
