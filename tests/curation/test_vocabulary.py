from __future__ import annotations

import json
import random
import re

import pyarrow as pa
import pytest

from configs.errors import UserError
from curation import vocabulary
from curation.extraction import Extractor
from curation.words import fold, fold_phrase, tokens


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
    assert set(vocabulary.noun_phrases(caption)) == expected


def test_phrases_are_no_longer_than_asked():
    caption = "stone bridge railing paint brush handle"
    for longest in (1, 2, 4):
        sizes = {len(phrase.split()) for phrase in vocabulary.noun_phrases(caption, longest)}
        assert sizes == set(range(1, longest + 1))


def test_counts_are_numbers_of_captions():
    batch = vocabulary.count_batch(pa.array(["a dog and a dog", "dogs", None, "", "a cat"]))
    assert dict(zip(batch.column(0).to_pylist(), batch.column(1).to_pylist(), strict=True)) == {
        "dog": 2,
        "cat": 1,
    }


def test_selection_filters_and_orders():
    counts = [
        ("dog", 5),
        ("cat", 9),
        ("photo", 99),
        ("side view", 50),
        ("ant", 5),
        ("rare", 1),
        ("dining table", 7),
        ("table", 8),
    ]
    assert vocabulary.select(counts, min_count=2) == [
        ("cat", 9),
        ("table", 8),
        ("dining table", 7),
        ("ant", 5),
        ("dog", 5),
    ]
    assert vocabulary.select(counts, min_count=2, max_concepts=1) == [("cat", 9)]
    assert ("ant", 5) not in vocabulary.select(counts, min_count=2, stop_words=["ants"])
    held = [name for name, _ in vocabulary.select(counts, min_count=2, hold_out=["voc"])]
    assert held == ["ant"]  # dog, cat and table are classes, and a dining table is a table
    assert [name for name, _ in vocabulary.select(counts, min_count=2, hold_out=["cats"])] == [
        "table",
        "dining table",
        "ant",
        "dog",
    ]


def test_misspelt_benchmarks_are_told_from_words():
    with pytest.raises(UserError, match="did you mean 'ade20k'"):
        vocabulary.select([], hold_out=["ade20"])
    assert vocabulary.select([("walrus", 3)], hold_out=["zebra"]) == [("walrus", 3)]


def test_leaks_are_counted_with_plurals_folded():
    held, classes, names = vocabulary.leak_report(["dogs", "cat", "walrus"])["voc"]
    assert (held, classes, sorted(names)) == (2, 20, ["cat", "dog"])
    assert {name: len(words) for name, words in vocabulary.benchmark_classes().items()}.items() >= {
        "voc": 20, "context": 59, "coco_object": 80, "coco_stuff": 171, "cityscapes": 19, "ade20k": 150,
    }.items()  # fmt: skip


def test_a_users_list(tmp_path):
    file = tmp_path / "words.txt"
    file.write_text("# mine\nTraffic  Light\n\ndogs\n", encoding="utf-8")
    assert vocabulary.read_vocabulary(str(file)) == ["Traffic Light", "dogs"]
    file.write_text("dog\n---\n")
    with pytest.raises(UserError, match=r"words.txt, line 2: '---' has no word"):
        vocabulary.read_vocabulary(str(file))
    file.write_bytes(b"caf\xe9\n")
    with pytest.raises(UserError, match="cannot be read as UTF-8"):
        vocabulary.read_vocabulary(str(file))
    with pytest.raises(UserError, match="no such file"):
        vocabulary.read_vocabulary(str(tmp_path / "nothing.txt"))


def _naive(concepts, caption):
    """E(y) by trying every concept at every place, in the order of its first word, shorter ones first."""
    words = [fold(word) for word in tokens(caption)]
    found = []
    for start in range(len(words)):
        for size in range(1, len(words) - start + 1):
            phrase = " ".join(words[start : start + size])
            for number, concept in enumerate(concepts):
                if fold_phrase(concept) == phrase:
                    if number not in found:
                        found.append(number)
                    break
    return found


def test_extraction_equals_the_naive_search():
    source = random.Random(0)
    words = [
        "car",
        "card",
        "cars",
        "traffic",
        "light",
        "lights",
        "dog",
        "hot",
        "stone",
        "bridge",
        "children",
        "child",
        "zebra-crossing",
        "naïve",
    ]
    for _ in range(300):
        concepts = list(
            {" ".join(source.choices(words, k=source.randint(1, 4))) for _ in range(source.randint(1, 12))}
        )
        captions = [
            source.choice([" ", ", ", " - ", ". "]).join(
                source.choices([*words, "the", "of"], k=source.randint(0, 9))
            )
            for _ in range(4)
        ]
        found = Extractor(concepts).extract(pa.array([*captions, None])).to_lists()
        assert found == [*(_naive(concepts, caption) for caption in captions), []]


def test_words_are_matched_whole():
    extractor = Extractor(["car", "traffic light", "light"])
    assert extractor.extract(
        ["a card in a scarf", "Traffic lights!", "CARS", "light traffic"]
    ).to_lists() == [[], [1, 2], [0], [2]]


def test_real_captions_name_what_their_words_say(real_data):
    rows = [
        json.loads(line)
        for line in (real_data / "coco-captions-masks" / "pairs.jsonl").read_text().splitlines()
    ]
    captions = [caption for row in rows for caption in row["captions"]]
    names = vocabulary.benchmark_classes()["coco_object"]
    found = Extractor(names).extract(captions).to_lists()
    for caption, ids in zip(captions, found, strict=True):
        for number, name in enumerate(names):
            if re.search(rf"(?<![\w'-]){name}(?![\w'-])", caption.lower()) and fold(name) == name:
                assert number in ids, (caption, name)
    batch = vocabulary.count_batch(captions)
    chosen = [
        name
        for name, _ in vocabulary.select(
            zip(*(batch.column(n).to_pylist() for n in (0, 1)), strict=True), min_count=10
        )
    ]
    assert vocabulary.leak_report(chosen)["coco_object"][0] >= 35  # the pictures show these things
    assert not {"photo", "picture", "side", "top", "day"} & set(chosen)
