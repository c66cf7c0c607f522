from __future__ import annotations

import random
import string

import numpy as np
import pyarrow as pa
import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer

from configs.errors import UserError
from models import token_rows
from models.templates import PROMPT_TEMPLATES
from models.token_rows import TokenTable, join_rows, joins_cleanly, pack_ids
from tests.training.rows import ARCHIVE, make_batches, rows, split
from training.feed.batches import BatchMaker, BatchOptions
from training.feed.texts import (
    MOST_NOUNS,
    Draws,
    caption_tokens,
    concept_numbers,
    draw_prompts,
    fixed_lists,
    prompt_texts,
    prompt_words,
)
from training.feed.training_set import TOKENS

ROWS, K = 40, 3


def concept_number(word: str) -> int:
    """The number of one text in plain integers: bytes scrambled with their places (splitmix64), added up, without a bit."""

    def scrambled(number: int) -> int:
        number = (number + 0x9E3779B97F4A7C15) % 2**64
        number = (number ^ number >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        number = (number ^ number >> 27) * 0x94D049BB133111EB % 2**64
        return number ^ number >> 31

    data = word.encode()
    added = sum(scrambled(256 * place + byte) for place, byte in enumerate(data))
    return max(1, scrambled((added + len(data)) % 2**64) >> 1) if data else 0


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


ODD = [
    "cat", "AT&T", "caf\u00e9", "u.s.", "'s", "rock 'n' roll", "c++", "x" * 120, "red  car", "<b>", "\ufb01sh", "mr. t", "50%",
    "e\u0301t\u00e9", "o'clock", "2 dogs",
]  # fmt: skip


@pytest.fixture(scope="module")
def odd_table() -> pa.Table:
    """Words and captions that the tokenizer mends, cuts or splits, with the column of ids, in chunks and slices."""
    table = rows(48)
    archives = [[ODD[(i + n) % len(ODD)] for n in range(i % (ARCHIVE + 1))] for i in range(48)]
    archives = [some + [""] * (ARCHIVE - len(some)) for some in archives]
    captions = [f"{ODD[i % len(ODD)]} &amp; {'long ' * (i * 2)}{ODD[-i % len(ODD)]}" for i in range(48)]
    nouns = ["\n".join(dict.fromkeys(some)) for some in archives]
    field = table.schema.field("archive_concepts")
    table = replaced(table, "archive_concepts", pa.array(archives, field.type), field)
    table = replaced(table, "caption", pa.array(captions))
    table = replaced(table, "caption_nouns", pa.array(nouns))
    table = table.append_column(TOKENS, pack_ids(captions))
    return pa.concat_tables([table.slice(3, 9), table.slice(12, 1), table.slice(13)])


@pytest.mark.parametrize("sampling", ["cluster", "top", "caption-nouns"])
@pytest.mark.parametrize("context", [77, 9])
def test_gathered_ids_are_those_of_the_whole_texts_whatever_is_in_them(odd_table, sampling, context):
    reference = SimpleTokenizer(context_length=context)
    draws = Draws(sampling, K, seed=1)
    for table in (odd_table, odd_table.slice(5, 20), odd_table.drop_columns([TOKENS]), odd_table.slice(0, 0)):
        texts = prompt_texts(table, prompt_words(table, 3, draws), 3, draws)
        captions = caption_tokens(table, context)
        prompts = draw_prompts(table, 3, draws, context).tokens
        if not table.num_rows:
            assert captions.shape[0] == prompts.shape[0] == 0
            continue
        whole = reference(table.column("caption").to_pylist())
        assert torch.equal(captions, whole[:, : captions.shape[1]])
        assert not whole[:, captions.shape[1] :].any()
        whole = reference([text for row in texts for text in row]).reshape(-1, K, context)
        assert torch.equal(prompts, whole[:, :, : prompts.shape[2]])
        assert not whole[:, :, prompts.shape[2] :].any()


def test_words_join_cleanly_where_they_say_so():
    """Random ASCII, and the odd words, in every template."""
    reference, source = SimpleTokenizer(), random.Random(0)
    made = [
        "".join(source.choice(string.printable[:95]) for _ in range(source.randint(1, 6)))
        for _ in range(1500)
    ]
    clean = [word for word in (*made, *ODD) if joins_cleanly(word)]
    assert len(clean) > 300
    assert {"cat", "rock 'n' roll", "o'clock", "mr. t"} <= set(clean)
    for place, word in enumerate(clean):
        template = PROMPT_TEMPLATES[place % 80]
        before, _, behind = template.partition("{}")
        parts = [token for part in (before, word, behind) for token in reference.encode(part)]
        assert reference.encode(template.replace("{}", word)) == parts, (template, word)


def test_nothing_is_tokenised_twice(odd_table, monkeypatch):
    """The captions' ids are in the table; concepts and templates are known after the first epoch."""
    draws = Draws("top", K, seed=1)
    clean = odd_table.filter(
        pa.array([all(map(_clean, row)) for row in odd_table.column("archive_concepts").to_pylist()])
    )
    assert clean.num_rows > 5
    draw_prompts(clean, 0, draws, 77)
    monkeypatch.setattr(token_rows, "token_ids", lambda text: pytest.fail(f"tokenised again: {text}"))
    caption_tokens(clean, 77)
    draw_prompts(clean, 1, draws, 77)


def _clean(word: str) -> bool:
    return not word or joins_cleanly(word)


def test_a_table_of_ids_grows_and_is_emptied_and_what_it_gave_stays(odd_table):
    small, words = TokenTable(most=40), [f"word {number} of many" for number in range(300)]
    reference = SimpleTokenizer()
    found = [(word, small.of([word, "cat", word])) for word in words]
    for word, tokens in found:
        whole = torch.from_numpy(join_rows([tokens], 77))
        assert torch.equal(whole, reference([word, "cat", word])[:, : whole.shape[1]])


def test_damaged_ids_are_one_clear_error(odd_table):
    cut = [
        value[:-1] if place == 2 else value
        for place, value in enumerate(odd_table.column(TOKENS).to_pylist())
    ]
    holes = [None, *odd_table.column(TOKENS).to_pylist()[1:]]
    for values, says in ((cut, "no whole number of ids"), (holes, "1 of 45 rows are empty")):
        with pytest.raises(UserError, match=f"caption_tokens: .*{says}"):
            caption_tokens(replaced(odd_table, TOKENS, pa.array(values, pa.binary())), 77)


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


def replaced(table: pa.Table, name: str, column: pa.Array, field: pa.Field | None = None) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), field or name, column)


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
    words = ["", *(f"word {number}" for number in range(5000)), "caf\u00e9", "dog", "", "god"]
    numbers = concept_numbers(pa.array(words)).tolist()
    # other processes and versions must say the same
    assert numbers == [concept_number(word) for word in words]
    assert len(set(numbers)) == 5004
    assert [word for word, number in zip(words, numbers, strict=True) if number == 0] == ["", ""]
    assert max(numbers) < 1 << 63
    assert concept_numbers(pa.array(words).slice(5000)).tolist() == numbers[5000:]
