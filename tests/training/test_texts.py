from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer

from configs.errors import UserError
from models.templates import PROMPT_TEMPLATES
from tests.training.rows import ARCHIVE, make_batches, rows, split
from training.feed.batches import BatchMaker, BatchOptions
from training.feed.texts import (
    MOST_NOUNS,
    Draws,
    caption_tokens,
    concept_number,
    draw_prompts,
    fixed_lists,
    prompt_texts,
    prompt_words,
)

ROWS, K = 40, 3


@pytest.fixture(scope="module")
def table() -> pa.Table:
    return rows(ROWS)


def drawn(table: pa.Table, sampling: str, epoch: int = 0, seed: int = 1) -> list[list[str]]:
    draws = Draws(sampling, K, seed=seed)
    return prompt_texts(table, prompt_words(table, epoch, draws), epoch, draws)


def fillings(text: str, words: list[str]) -> list[str]:
    """Which of the words the text holds in one of the templates."""
    return [
        word for word in words if any(template.replace("{}", word) == text for template in PROMPT_TEMPLATES)
    ]


@pytest.mark.parametrize("sampling", ["cluster", "top", "caption-nouns"])
def test_prompts_hold_different_words_of_their_row_then_the_caption(table, sampling):
    for row, texts in zip(table.to_pylist(), drawn(table, sampling), strict=True):
        words = row["caption_nouns"].split("\n") if sampling == "caption-nouns" else row["archive_concepts"]
        words = [word for word in words if word]
        full = min(K, len(words))
        found = [fillings(text, words) for text in texts]
        assert [len(some) for some in found] == [1] * full + [0] * (K - full)
        assert len({some[0] for some in found[:full]}) == full
        assert texts[full:] == [row["caption"]] * (K - full)
        if sampling == "top":
            assert [some[0] for some in found[:full]] == words[:full]


def test_prompts_are_fresh_each_epoch_and_the_same_in_any_batch(table):
    whole = drawn(table, "cluster")
    parts = [texts for part in split(table, 7) for texts in drawn(part, "cluster")]
    assert parts == whole
    for other in (drawn(table, "cluster", epoch=1), drawn(table, "cluster", seed=2)):
        assert sum(a != b for a, b in zip(whole, other, strict=True)) > ROWS / 2


def test_every_concept_has_its_turn_over_epochs(table):
    row = table.slice(ARCHIVE, 1)  # a full archive
    words = row.column("archive_concepts").to_pylist()[0]
    seen = {fillings(text, words)[0] for epoch in range(40) for text in drawn(row, "cluster", epoch)[0]}
    assert seen == set(words)


def test_tokens_are_open_clips(table):
    reference = SimpleTokenizer()
    captions = caption_tokens(table, 77)
    assert torch.equal(captions, reference(table.column("caption").to_pylist())[:, : captions.shape[1]])
    assert captions.shape[1] < 24  # cut behind the longest
    prompts = draw_prompts(table, 4, Draws("cluster", K, seed=1), 77).tokens
    texts = [text for texts in drawn(table, "cluster", epoch=4) for text in texts]
    expected = reference(texts).reshape(ROWS, K, 77)
    assert torch.equal(prompts, expected[:, :, : prompts.shape[2]])
    assert not expected[:, :, prompts.shape[2] :].any()


@pytest.mark.parametrize(("sampling", "prompts"), [("none", 3), ("cluster", 0)])
def test_without_prompts_there_is_none(table, sampling, prompts):
    options = BatchOptions(image_size=8, draws=Draws(sampling, prompts), augment="light")
    (batch,) = make_batches([table], options, 0)
    assert batch.prompts is None
    assert batch.captions.shape[0] == ROWS


def test_texts_are_the_same_whatever_the_workers_and_batches(table):
    def captions_and_prompts(workers: int, size: int) -> list[tuple[list[int], list[int]]]:
        options = BatchOptions(image_size=8, workers=workers, augment="none", seed=3, draws=Draws(seed=3))
        return [
            ([t for t in caption.tolist() if t], [t for t in prompts.flatten().tolist() if t])
            for batch in make_batches(split(table, size), options, 2)
            for caption, prompts in zip(batch.captions, batch.prompts.tokens, strict=True)
        ]

    assert captions_and_prompts(2, 9) == captions_and_prompts(0, 40)


def test_baseline_and_cocu_see_the_same_pixels(table):
    def images(sampling: str) -> torch.Tensor:
        options = BatchOptions(image_size=16, draws=Draws(sampling), augment="recipe")
        return torch.cat([batch.images for batch in make_batches(split(table, 10), options, 0)])

    assert torch.equal(images("cluster"), images("caption-nouns"))


@pytest.mark.parametrize("name", ["archive_concepts", "archive_scores", "archive_clusters"])
def test_lists_become_arrays_of_slices_and_chunks_too(table, name):
    chunked = pa.concat_tables([table.slice(3, 5), table.slice(20, 9)])
    for part in (table, table.slice(7, 11), chunked, table.slice(2, 4).to_batches()[0], table.slice(0, 0)):
        found = fixed_lists(part, name)
        assert found.shape == (part.num_rows, ARCHIVE)
        assert found.tolist() == part.column(name).to_pylist()
    assert (
        fixed_lists(table, name).dtype
        == {
            "archive_concepts": object,
            "archive_scores": np.float32,
            "archive_clusters": np.int32,
        }[name]
    )


def replaced(table: pa.Table, name: str, column: pa.Array) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), name, column)


@pytest.mark.parametrize(
    ("name", "column", "message"),
    [
        ("archive_scores", pa.array([[1.0]] * ROWS), "archive_scores is list<.*not lists of one length"),
        ("caption", pa.array([None] * 2 + ["x"] * (ROWS - 2)), "caption is empty in 2 of 40 rows"),
        (
            "archive_clusters",
            pa.array([[0, None]] * ROWS, pa.list_(pa.int32(), 2)),
            "archive_clusters has lists with empty places",
        ),
    ],
)
def test_a_table_of_another_shape_is_one_clear_error(table, name, column, message):
    with pytest.raises(UserError, match=message):
        list(make_batches([replaced(table, name, column)], BatchOptions(image_size=8), 0))


def test_a_missing_column_is_named(table):
    short = table.drop_columns(["caption_nouns", "archive_scores"])
    with pytest.raises(UserError, match="no column caption_nouns, archive_scores"):
        list(make_batches([short], BatchOptions(image_size=8, workers=1), 0))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"augment": "heavy"}, "train.augment='heavy'"),
        ({"draws": Draws("bottom")}, "train.sampling='bottom'"),
        ({"draws": Draws(negatives="none")}, "train.negatives='none'"),
        ({"bad_images": "ignore"}, "train.bad_images='ignore'"),
        ({"image_size": 0}, "train.model_options.image_size=0"),
        ({"draws": Draws(prompts=-1)}, "train.prompts=-1"),
        ({"workers": -1}, "train.workers=-1"),
        ({"prefetch": 0}, "train.prefetch=0"),
        ({"context_length": 2}, "train.model_options.context_length=2"),
        ({"draws": Draws(temperature=0.0)}, "train.temperature=0.0"),
        ({"draws": Draws(temperature=float("nan"))}, "train.temperature=nan"),
    ],
)
def test_options_that_cannot_be_are_refused_by_name(wrong, says):
    with pytest.raises(UserError, match=says):
        BatchMaker(BatchOptions(**wrong))


def test_concepts_of_a_row_are_its_prompts_its_archive_and_its_captions_nouns(table):
    known = draw_prompts(table, 0, Draws("cluster", K, seed=1, negatives="archive"), 77).concepts
    words = prompt_words(table, 0, Draws("cluster", K, seed=1))
    assert known.prompts.tolist() == [[concept_number(word) for word in row] for row in words]
    for row, numbers in zip(table.to_pylist(), known.known.tolist(), strict=True):
        shown = [*row["archive_concepts"], *row["caption_nouns"].split("\n")]
        assert set(numbers) - {0} == {concept_number(word) for word in shown if word}
        assert len(numbers) == K + ARCHIVE + MOST_NOUNS


def test_the_best_concepts_of_an_archive_alone_may_count_as_known(table):
    """Deep in an archive of a small vocabulary stands what usually goes with what is seen."""
    known = draw_prompts(table, 0, Draws("top", 1, negatives="archive", known=2), 77).concepts.known
    for row, numbers in zip(table.to_pylist(), known.tolist(), strict=True):
        shown = [*row["archive_concepts"][:2], *row["caption_nouns"].split("\n")]
        assert set(numbers) - {0} == {concept_number(word) for word in shown if word}


def test_the_same_concept_alone_and_no_concepts_at_all(table):
    same = draw_prompts(table, 0, Draws("top", K, negatives="same-concept"), 77).concepts
    assert torch.equal(same.known, same.prompts)
    assert draw_prompts(table, 0, Draws("top", K), 77).concepts is None


def test_a_captions_nouns_are_known_up_to_the_longest_list(table):
    many = [f"noun {number}" for number in range(MOST_NOUNS + 5)]
    row = replaced(table, "caption_nouns", pa.array(["\n".join(many)] * ROWS)).slice(0, 1)
    known = draw_prompts(row, 0, Draws("top", K, negatives="archive"), 77).concepts.known[0].tolist()
    assert [word for word in many if concept_number(word) in known] == many[:MOST_NOUNS]


def test_concept_numbers_are_the_texts_own():
    words = [f"word {number}" for number in range(5000)]
    numbers = [concept_number(word) for word in words]
    assert len(set(numbers)) == 5000
    assert min(numbers) > 0
    assert max(numbers) < 1 << 63
    # blake2b of "dog" with 8 bytes, its highest 63 bits: other processes and versions must say the same
    assert (
        concept_number("dog")
        == int.from_bytes(hashlib.blake2b(b"dog", digest_size=8).digest(), "little") // 2
    )
    assert concept_number("") == 0
