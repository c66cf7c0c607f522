from __future__ import annotations

import json
import random
import time

import pyarrow as pa
import pytest

from curation.text.extraction import Extractor
from curation.text.vocabulary import benchmark_classes
from curation.text.words import fold

WORDS = (
    "car card cars traffic light lights dog hot stone bridge children child zebra-crossing zebra crossing naïve "
    "t-shirt t shirts shirt café dog's"
).split()
GLUE = (" ", ", ", " - ", ". ", " — ", "\t", "! ", " “")


def _words(text: str) -> list[str]:
    """By the definition: letters and digits are words, all else separates, a possessive goes; singular."""
    lowered = text.lower().replace("’", "'").replace("'s", "")
    spaced = "".join(letter if letter.isalnum() else " " for letter in lowered)
    return [fold(word) for word in spaced.split()]


def _naive(concepts: list[str], caption: str) -> list[int]:
    """E(y) by trying every concept at every place, in the order of its first word, shorter ones first."""
    words = _words(caption)
    found: list[int] = []
    for start in range(len(words)):
        for size in range(1, len(words) - start + 1):
            for number, concept in enumerate(concepts):
                if _words(concept) == words[start : start + size]:
                    if number not in found:
                        found.append(number)
                    break
    return found


@pytest.mark.parametrize("seed", range(4))
def test_extraction_equals_the_naive_search(seed):
    source = random.Random(seed)
    for _ in range(100):
        concepts = list(
            {" ".join(source.choices(WORDS, k=source.randint(1, 4))) for _ in range(source.randint(1, 12))}
        )
        captions = []
        for _ in range(4):
            words = source.choices([*WORDS, "the", "of", "Cars", "ZEBRA"], k=source.randint(0, 9))
            captions.append("".join(word + source.choice(GLUE) for word in words))
        found = Extractor(concepts).extract(pa.array([*captions, None]))
        assert found.to_lists() == [*(_naive(concepts, caption) for caption in captions), []]


def test_words_are_matched_whole():
    extractor = Extractor(["car", "traffic light", "light"])
    captions = ["a card in a scarf", "Traffic lights!", "CARS", "light traffic"]
    assert extractor.extract(captions).to_lists() == [[], [1, 2], [0], [2]]


def test_every_form_of_input_gives_the_same():
    captions = ["a dog and a cat", None, "", "cats"]
    extractor = Extractor(["cat", "dog"])
    expected = [[1, 0], [], [], [0]]
    array = pa.array(captions)
    for given in (captions, array, pa.chunked_array([array.slice(0, 1), array.slice(1)])):
        assert extractor.extract(given).to_lists() == expected
    assert extractor.extract([]).to_lists() == []


def test_doubles_and_empty_concepts_are_harmless():
    assert Extractor(["dogs", "dog", "!!!"]).extract(["dog !!!"]).to_lists() == [[0]]
    assert Extractor([]).extract(["dog"]).to_lists() == [[]]


def test_synonyms_are_found_as_their_concept_and_once():
    extractor = Extractor(["coat", "dog", "stone bridge"], {"jackets": "coat", "hound dog": "dog"})
    captions = ["a jacket", "coats and a jacket", "a hound dog", "a hound", "a stone bridge"]
    assert extractor.extract(captions).to_lists() == [[0], [0], [1], [], [2]]
    assert len(extractor) == 3


def test_a_concept_may_have_any_number_of_words():
    extractor = Extractor(["lady in a red dress on a bench", "bench"])
    assert extractor.extract(["Ladies in a red dress on a bench", "lady in a red dress"]).to_lists() == [
        [0, 1],
        [],
    ]


def test_the_time_does_not_grow_with_the_vocabulary():
    """A hundred times the concepts; a search by concept would take a hundred times as long."""
    captions = ["a brown dog jumps over a stone bridge near a traffic light"] * 3000
    words = ["dog", "bridge", "traffic light", "stone bridge"]

    def seconds(count: int) -> float:
        extractor = Extractor([*words, *(f"dog w{n} x{n % 97}" for n in range(count - 4))])
        best = float("inf")
        for _ in range(5):
            start = time.perf_counter()
            assert extractor.extract(captions).values.size == 4 * len(captions)
            best = min(best, time.perf_counter() - start)
        return best

    assert seconds(100_000) < 5 * seconds(1000)


def test_real_captions_name_what_their_words_say(real_data):
    rows = [
        json.loads(line)
        for line in (real_data / "coco-captions-masks" / "pairs.jsonl").read_text().splitlines()
    ]
    captions = [caption for row in rows[::6] for caption in row["captions"]]
    names = benchmark_classes()["coco_object"]
    found = Extractor(names).extract(captions).to_lists()
    assert found == [_naive(names, caption) for caption in captions]
    assert sum(map(len, found)) > 250
