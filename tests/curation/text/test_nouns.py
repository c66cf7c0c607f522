from __future__ import annotations

import json
import random

import pytest
from textblob.en import tag

from curation.text.nouns import noun_phrases
from curation.text.readings import readings
from curation.text.vocabulary import benchmark_classes, count_batch, leak_report, mostly_nouns, select
from curation.text.words import fold, fold_phrase, match_words, pieces, tokens


@pytest.mark.parametrize(
    ("plural", "singular"),
    [("dogs", "dog"), ("children", "child"), ("buses", "bus"), ("knives", "knife"), ("leaves", "leaf"), ("people", "person"),
     ("tennis", "tennis"), ("grass", "grass"), ("bus", "bus"), ("sheep", "sheep"), ("glasses", "glasses"), ("mice", "mouse"), ("été", "été")],
)  # fmt: skip
def test_folding(plural, singular):
    assert fold(plural) == singular
    assert fold(singular) == singular


def test_tokens_survive_the_webs_typography():
    assert tokens("The dog’s T-shirt — “blue”, naïve_café… 3 CATS!") == [
        "the",
        "dog",
        "t-shirt",
        "blue",
        "naïve",
        "café",
        "3",
        "cats",
    ]
    assert tokens("") == tokens("!!! ... ---") == []


CASES = {
    "Two dogs playing on the green grass near a traffic light": {
        "dog",
        "grass",
        "traffic",
        "light",
        "traffic light",
    },
    "a fire hydrant and three red buses": {"fire", "hydrant", "fire hydrant", "bus"},
    "The children are eating broccoli on top of a plate": {"child", "broccoli", "plate"},
    "": set(),
    "12345 !!!": set(),
}


@pytest.mark.parametrize(("caption", "expected"), CASES.items())
def test_nouns_and_phrases(caption, expected):
    assert set(noun_phrases(caption)) == expected


def test_phrases_are_no_longer_than_asked():
    caption = "stone bridge railing paint brush handle"
    for longest in (1, 2, 4):
        sizes = {len(phrase.split()) for phrase in noun_phrases(caption, longest)}
        assert sizes == set(range(1, longest + 1))


@pytest.mark.parametrize(
    "caption",
    ["A dog jumps over a log", "The dog jumps over the log", "dogs jump over logs", "A dog chases a log"],
)
def test_what_a_noun_does_is_no_noun(caption):
    assert set(noun_phrases(caption)) == {"dog", "log"}


@pytest.mark.parametrize(
    ("caption", "phrase"),
    [("a stop sign", "stop sign"), ("two polar bears", "polar bear"), ("The traffic lights are red", "traffic light"), ("hot dogs", "hot dog"),
     ("a swimming pool", "swimming pool"), ("a teddy bear sits", "teddy bear"), ("a red double decker bus", "double decker bus"),
     ("blue T-shirts", "t-shirt"), ("a wooden kitchen table", "wooden kitchen table"), ("a white kitchen sink", "kitchen sink")],
)  # fmt: skip
def test_phrases_that_name_a_thing(caption, phrase):
    assert phrase in noun_phrases(caption)


@pytest.mark.parametrize(
    ("caption", "expected"),
    [("a man, a woman and the dog's toy", ["man", "woman", "dog", "toy"]), ("A dog 's bone", ["dog", "bone"]),
     ("keyboard, mouse", ["keyboard", "mouse"]), ("cup - plate", ["cup", "plate"]), ("an orange cat and an orange", ["cat", "orange"]),
     ("a girl in green", ["girl"]), ("a woman reading", ["woman"])],
)  # fmt: skip
def test_phrases_end_at_punctuation_and_possessives(caption, expected):
    assert noun_phrases(caption) == expected


def test_words_are_compared_by_their_parts():
    assert match_words("T-shirts") == match_words("t shirt") == ["t", "shirt"]
    assert match_words("tree‐lined café́s") == ["tree", "lined", *match_words("café́s")]
    assert match_words("café") == match_words("café") == ["café"]


def test_pieces_hold_the_same_words_as_tokens():
    text = "The dog’s T-shirt — “blue”, naïve_café… 3 CATS! (two-tone) - end"
    assert [word for run in pieces(text) for word in run] == tokens(text)


# By kind of error: what the tagger takes for something else, and what grammar makes of it.
READ = {
    "a plain adjective after a noun is a garment": ("a girl in a pink tank top and jeans", "girl tank top jeans|tank top"),
    "not on top of": ("a cat on top of a car", "cat car|"),
    "lot after its kind": ("cars in a parking lot", "car lot|parking lot"),
    "not a lot of": ("a lot of cars and lots of trees", "car tree|"),
    "an activity that begins a name": ("a boy on an indoor climbing wall", "boy wall|climbing wall"),
    "not what somebody does": ("a boy climbing walls", "boy wall|"),
    "a deed that begins a name": ("a man in swim trunks", "man trunk|swim trunk"),
    "two of them": ("a cutting board near a watering can", "board can|cutting board,watering can"),
    "a verb in -s after a preposition": ("children play in leaves", "child leaf|"),
    "also after others": ("the kids throw some leaves", "kid leaf|"),
    "a verb in -s between noun and preposition": ("people on the train tracks near a river", "person train track river|train track"),
    "not what the noun does": ("the plane leaves a trail", "plane trail|"),
    "an adjective after a noun": ("a girl at a volleyball net", "girl volleyball net|volleyball net"),
    "a verb after and": ("a toilet and sink in a room", "toilet sink room|"),
    "a participle of kind": ("a stuffed bear on a bed", "bear bed|stuffed bear"),
    "not one of state": ("a parked car", "car|"),
    "a past form after a": ("a man on a moped", "man moped|"),
    "talk": ("a police officer and a man talk", "police officer man|police officer"),
    "jump": ("dogs watch and jump into a lake", "dog lake|"),
    "a jump": ("a skier at a ski jump", "skier ski jump|ski jump"),
    "pose": ("a man and a woman pose for a camera", "man woman camera|"),
    "strikes a pose": ("a dancer strikes a pose", "dancer pose|"),
    "catch": ("a dog jumps to catch a ball", "dog ball|"),
    "painting": ("a man painting a wall", "man wall|"),
    "is painting": ("a woman is painting", "woman|"),
    "a painting": ("a painting of fruit on a wall", "painting fruit wall|"),
    "crossing": ("two women crossing the street", "woman street|"),
    "drink": ("a boy drinks from a bottle as girls drink milk", "boy bottle girl milk|"),
    "a drink": ("a drink and two drinks on a table", "drink table|"),
    "food and drinks": ("a table with food and drinks", "table food drink|"),
    "snow": ("a dog in snow", "dog snow|"),
    "shop": ("people shop in a market", "person market|"),
    "a shop": ("a bike shop", "bike shop|bike shop"),
    "swing": ("a girl swings and a boy swings a bat", "girl boy bat|"),
    "a swing": ("a boy on a tire swing", "boy tire swing|tire swing"),
    "in a colour": ("a girl in red jumps over a log", "girl log|"),
    "another": ("a man sits while another watches", "man|"),
    "faces": ("a man making faces at a dog", "man face dog|"),
    "where": ("a dog playing indoors", "dog|"),
}  # fmt: skip


@pytest.mark.parametrize("kind", READ)
def test_grammar_decides_what_a_word_is(kind):
    caption, expected = READ[kind]
    nouns, phrases = expected.split("|")
    found = noun_phrases(caption)
    assert [word for word in found if " " not in word] == nouns.split()
    assert [word for word in found if " " in word] == [phrase for phrase in phrases.split(",") if phrase]


def test_the_tagger_looks_at_no_neighbours():
    """What the readings rely on when they look up each word once."""
    words = sorted({word for caption, _ in READ.values() for word in caption.split()})
    source = random.Random(0)
    for _ in range(50):
        run = source.choices(words, k=8)
        assert tag(" ".join(run), tokenize=False) == [tag(word, tokenize=False)[0] for word in run]


def test_any_text_is_read_in_any_order_of_words():
    """No word is at a place where the rules look beyond the caption."""
    words = "a the of red jumps lots lot swimming swing can top painting and to stuffed leaves net is dog man".split()
    source = random.Random(3)
    for size in (1, 1, 2, 2, 3, 4, 6) * 300:
        run = source.choices(words, k=size)
        kinds = readings(run)
        assert len(kinds) == size
        assert set(kinds) <= set("NAGPX")
        assert noun_phrases(" ".join(run)) == noun_phrases(" ".join(run).upper())


def test_nearly_all_benchmark_classes_can_be_mined():
    missed = {}
    for benchmark in ("voc", "context", "coco_object", "cityscapes", "ade20k"):
        names = benchmark_classes()[benchmark]
        found = [fold_phrase(name) in noun_phrases(f"a photo of a {name} on the street") for name in names]
        missed[benchmark] = [name for name, hit in zip(names, found, strict=True) if not hit]
    assert sum(map(len, missed.values())) <= 5, missed  # "remote", "chest of drawers"


def test_nouns_of_real_captions(real_data):
    rows = [
        json.loads(line)
        for line in (real_data / "coco-captions-masks" / "pairs.jsonl").read_text().splitlines()
    ]
    batch = count_batch([caption for row in rows for caption in row["captions"]])
    counts = mostly_nouns(zip(*(column.to_pylist() for column in batch.columns), strict=True))
    chosen = [name for name, _ in select(counts, min_count=5)]
    assert leak_report(chosen)["coco_object"][0] >= 60  # the pictures show these things
    assert not {"photo", "picture", "side", "top", "day", "jump", "green", "stand"} & set(chosen)
    assert {"person", "fire hydrant", "stop sign", "teddy bear", "scissors"} <= set(chosen)
