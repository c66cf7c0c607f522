from __future__ import annotations

import json

import pytest

from curation.text.nouns import noun_phrases
from curation.text.vocabulary import benchmark_classes, count_batch, leak_report, select
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
    counts = zip(*(batch.column(n).to_pylist() for n in (0, 1)), strict=True)
    chosen = [name for name, _ in select(counts, min_count=5)]
    assert leak_report(chosen)["coco_object"][0] >= 60  # the pictures show these things
    assert not {"photo", "picture", "side", "top", "day", "jump", "green", "stand"} & set(chosen)
    assert {"person", "fire hydrant", "stop sign", "teddy bear", "scissors"} <= set(chosen)
