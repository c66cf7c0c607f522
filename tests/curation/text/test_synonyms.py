from __future__ import annotations

import json
import math

import numpy as np
import pytest

from curation.csr import Csr
from curation.text import synonyms
from curation.text.extraction import Extractor
from curation.text.synonyms import PairSums, choose_merges, close_pairs, least_cosine, pair_sums


def _unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _centred_cosine(vectors, left, right):
    a, b = vectors[left] - vectors.mean(axis=0), vectors[right] - vectors.mean(axis=0)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_close_pairs_are_those_of_every_two_compared(monkeypatch):
    monkeypatch.setattr(synonyms, "_BLOCK", 7)
    random_numbers = np.random.default_rng(0)
    centres = random_numbers.normal(size=(12, 16))
    texts = _unit(
        centres[random_numbers.integers(0, 12, 60)] + random_numbers.normal(scale=0.1, size=(60, 16)) + 3
    )
    names = [f"word{n}" if n % 5 else f"word{n} word{n // 2}" for n in range(60)]
    cosines = np.array([[_centred_cosine(texts, a, b) for b in range(60)] for a in range(60)])
    spread = cosines[~np.eye(60, dtype=bool)].std()
    least = least_cosine(texts)
    assert least == pytest.approx(math.tanh(7 * spread), abs=1e-6)
    assert least > synonyms.TEXT
    expected = [
        [a, b]
        for a in range(60)
        for b in range(a + 1, 60)
        if cosines[a, b] >= least and not set(names[a].split()) & set(names[b].split())
    ]
    assert len(expected) > 20
    assert len(expected) < (cosines > synonyms.TEXT).sum() / 2 - 10
    assert close_pairs(names, texts.astype(np.float32)).tolist() == expected
    assert least_cosine(_unit(random_numbers.normal(size=(300, 400)))) == synonyms.TEXT
    assert close_pairs(["a", "b"], np.eye(2, dtype=np.float16)).shape == (0, 2)


def test_sums_are_those_of_counting_and_parts_add_up():
    random_numbers = np.random.default_rng(1)
    lists = [
        sorted(set(random_numbers.integers(0, 9, random_numbers.integers(0, 6)).tolist())) for _ in range(200)
    ]
    vectors = random_numbers.normal(size=(200, 4))
    pairs = np.array([[0, 1], [2, 7], [1, 8], [0, 8]])
    whole = pair_sums(vectors, Csr.from_lists(lists), pairs)
    assert whole.ids.tolist() == [0, 1, 2, 7, 8]
    assert whole.counts.tolist() == [sum(concept in row for row in lists) for concept in whole.ids]
    assert whole.together.tolist() == [sum(a in row and b in row for row in lists) for a, b in pairs.tolist()]
    assert min(whole.together) > 0
    for place, concept in enumerate(whole.ids):
        named = [vector for vector, row in zip(vectors, lists, strict=True) if concept in row]
        np.testing.assert_allclose(whole.sums[place], np.sum(named, axis=0), atol=1e-4)
    parts = [
        pair_sums(vectors[part], Csr.from_lists(lists[part]), pairs)
        for part in (slice(0, 90), slice(90, 200))
    ]
    added = parts[0] + parts[1]
    assert (added.rows, added.counts.tolist()) == (200, whole.counts.tolist())
    assert added.together.tolist() == whole.together.tolist()
    np.testing.assert_allclose(added.total, vectors.sum(axis=0), atol=1e-4)
    np.testing.assert_allclose(added.sums, whole.sums, atol=1e-4)


def _corpus(both=0):
    """1000 images of two kinds; of the first kind "coat" names 60 and "jacket" 100, of the second "boat" 80."""
    random_numbers = np.random.default_rng(2)
    kinds = np.repeat([0, 1], 500)
    images = _unit(np.eye(8)[kinds] * 2 + random_numbers.normal(scale=0.3, size=(1000, 8)) + 1)
    lists = [[] for _ in range(1000)]
    for concept, rows in ((0, range(100 - both, 160 - both)), (1, range(100)), (2, range(500, 580))):
        for row in rows:
            lists[row].append(concept)
    return images, Csr.from_lists(lists)


def _merges(texts, images, captions, names=("coat", "jacket", "boat")):
    pairs = close_pairs(names, texts)
    return choose_merges(pairs, texts, pair_sums(images, captions, pairs))


NEAR = _unit(np.array([[1, 0.1, 0, 1], [1, 0.2, 0, 1], [0, 0, 1, 1.0]]))


def test_two_words_for_one_thing_become_the_more_frequent_one():
    (merge,) = _merges(NEAR, *_corpus())
    assert (merge.concept, merge.into, merge.captions_with_both) == (0, 1, 0)
    assert merge.by_chance == 6.0
    assert merge.text_cosine == pytest.approx(_centred_cosine(NEAR, 0, 1))
    assert merge.image_cosine > 0.9


def test_words_that_captions_name_together_are_two_things():
    assert len(_merges(NEAR, *_corpus(both=1))) == 1  # by chance 6 would
    assert _merges(NEAR, *_corpus(both=2)) == []


def test_words_of_images_that_differ_are_two_things():
    images, captions = _corpus()
    assert _merges(NEAR[[0, 2, 1]], images, captions) == []  # "coat" and "boat", near in text alone


def test_words_whose_texts_differ_are_two_things():
    assert _merges(_unit(np.eye(3) + 1), *_corpus()) == []


def test_a_kind_is_not_merged_into_its_thing():
    assert _merges(NEAR, *_corpus(), names=("rain jacket", "jacket", "boat")) == []


def test_no_chain_leads_from_one_sense_to_another():
    texts = _unit(np.array([[1.0, 0.0, 0], [1, 0.45, 0], [1, 0.8, 0], [-1, 0, 1], [-1, -1, 1]]))
    pairs = np.array([[0, 1], [1, 2]])
    counts = np.array([10, 20, 30])
    sums = np.outer(counts, [1.0, 0, 0])
    found = PairSums(100, np.zeros(3), np.arange(3), counts, sums, np.zeros(2, int))
    merges = choose_merges(pairs, texts, found)
    assert len(merges) == 1
    closest = max(((0, 1), (1, 2)), key=lambda pair: _centred_cosine(texts, *pair))
    assert (merges[0].concept, merges[0].into) == closest


def test_of_three_words_for_one_thing_two_become_the_most_frequent_one():
    texts = _unit(np.array([[1.0, 0.0, 0], [1, 0.1, 0], [1, 0.2, 0], [-1, 0, 1], [-1, -1, 1]]))
    counts = np.array([10, 30, 20])
    sums = np.outer(counts, [1.0, 0, 0])
    pairs = np.array([[0, 1], [0, 2], [1, 2]])
    found = PairSums(100, np.zeros(3), np.arange(3), counts, sums, np.zeros(3, int))
    assert {(merge.concept, merge.into) for merge in choose_merges(pairs, texts, found)} == {(0, 1), (2, 1)}
    apart = PairSums(
        100, np.zeros(3), np.arange(3), counts, sums, np.array([0, 2, 0])
    )  # 0 and 2 are named together
    assert len(choose_merges(pairs, texts, apart)) == 1


def test_merges_of_real_captions_are_read_as_synonyms(real_data):
    """What is merged was read by a person; what must not be are things that people tell apart."""
    folder = real_data / "real-clip"
    names = (folder / "concepts.txt").read_text().splitlines()
    texts = np.load(folder / "concept_embeddings.npy").astype(np.float32)
    images = np.load(folder / "image_embeddings.npy").astype(np.float32)
    rows = [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]
    captions = Extractor(names).extract([row["caption"] for row in rows])
    pairs = close_pairs(names, texts)
    merges = choose_merges(pairs, texts, pair_sums(images, captions, pairs))
    found = {frozenset((names[merge.concept], names[merge.into])) for merge in merges}
    assert {frozenset(("coat", "jacket"))} <= found
    apart = (
        ("man", "woman"),
        ("boy", "girl"),
        ("girl", "woman"),
        ("man", "boy"),
        ("skateboard", "snowboard"),
        ("soccer", "volleyball"),
    )
    assert not {frozenset(pair) for pair in apart} & found
    print(sorted(tuple(pair) for pair in found))
