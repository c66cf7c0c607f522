from __future__ import annotations

import math
from collections import Counter
from itertools import permutations

import numpy as np
import pytest

from curation.sampling import draw_columns, draw_words, uniforms, write_prompts

SCORES = np.array([[2.0, 1.5, 1.0, 0.5, 0.0]], np.float32)
CLUSTERS = np.array([[1, 0, 0, 2, -1]], np.int32)


def _softmax(values):
    weights = [math.exp(value) for value in values]
    return [weight / sum(weights) for weight in weights]


def _exact(scores, clusters, k):
    """Probability of every ordered outcome, by the definition: clusters without replacement, one concept in each."""
    members = {}
    for column, cluster in enumerate(clusters):
        if cluster >= 0:
            members.setdefault(cluster, []).append(column)
    means = {cluster: sum(scores[c] for c in columns) / len(columns) for cluster, columns in members.items()}
    outcomes = Counter()
    for order in permutations(members, k):
        chance, left = 1.0, list(members)
        for cluster in order:
            chance *= _softmax([means[c] for c in left])[left.index(cluster)]
            left.remove(cluster)
        choices = [[]]
        for cluster in order:
            choices = [[*prefix, column] for prefix in choices for column in members[cluster]]
        for choice in choices:
            inside = 1.0
            for cluster, column in zip(order, choice, strict=True):
                inside *= _softmax([scores[c] for c in members[cluster]])[members[cluster].index(column)]
            outcomes[tuple(choice)] += chance * inside
    return outcomes


@pytest.mark.parametrize("k", [1, 2, 3])
def test_draws_have_the_probabilities_of_the_definition(k):
    count = 60_000
    keys = [f"key{n}" for n in range(count)]
    drawn = draw_columns(
        np.repeat(SCORES, count, 0), np.repeat(CLUSTERS, count, 0), keys, seed=0, epoch=0, k=k
    )
    found = Counter(map(tuple, drawn.tolist()))
    expected = _exact(SCORES[0].tolist(), CLUSTERS[0].tolist(), k)
    assert set(found) <= set(expected)
    chi = sum(
        (found[outcome] - count * chance) ** 2 / (count * chance) for outcome, chance in expected.items()
    )
    freedom = len(expected) - 1
    assert chi < freedom + 4 * math.sqrt(2 * freedom)  # about four standard deviations


def test_a_draw_depends_on_seed_epoch_and_key_alone():
    random = np.random.default_rng(0)
    scores = random.normal(size=(50, 16)).astype(np.float32)
    clusters = random.integers(0, 6, (50, 16)).astype(np.int32)
    keys = [f"corpus/shard/{n}" for n in range(50)]
    whole = draw_columns(scores, clusters, keys, seed=3, epoch=5, k=3)
    order = random.permutation(50)
    shuffled = draw_columns(scores[order], clusters[order], [keys[n] for n in order], seed=3, epoch=5, k=3)
    assert (whole[order] == shuffled).all()
    alone = [
        draw_columns(scores[n : n + 1], clusters[n : n + 1], keys[n : n + 1], seed=3, epoch=5, k=3)[0]
        for n in range(50)
    ]
    assert (whole == np.array(alone)).all()
    for other in ({"seed": 4, "epoch": 5}, {"seed": 3, "epoch": 6}):
        assert (draw_columns(scores, clusters, keys, **other, k=3) != whole).any(axis=1).mean() > 0.5


def test_few_clusters_are_filled_with_other_concepts_then_left_empty():
    scores = np.array([[1.0, 0.9, 0.8, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0] * 4], np.float32)
    clusters = np.array([[0, 0, 0, -1], [0, -1, -1, -1], [-1] * 4], np.int32)
    for epoch in range(20):
        drawn = draw_columns(scores, clusters, ["a", "b", "c"], seed=0, epoch=epoch, k=3)
        assert sorted(drawn[0]) == [0, 1, 2]
        assert drawn[1].tolist() == [0, -1, -1]
        assert drawn[2].tolist() == [-1, -1, -1]


def test_no_concept_is_drawn_twice():
    random = np.random.default_rng(1)
    clusters = random.integers(-1, 5, (500, 12)).astype(np.int32)
    drawn = draw_columns(
        random.normal(size=(500, 12)), clusters, [str(n) for n in range(500)], seed=0, epoch=0, k=4
    )
    for row, columns in enumerate(drawn.tolist()):
        real = [column for column in columns if column >= 0]
        assert len(set(real)) == len(real) == min(4, int((clusters[row] >= 0).sum()))
        assert all(clusters[row, column] >= 0 for column in real)
        wanted = min(4, len(set(clusters[row][clusters[row] >= 0])))
        assert len({clusters[row, column] for column in real}) == wanted


def test_uniform_numbers_are_uniform_and_independent():
    values = uniforms([str(n) for n in range(20_000)], 0, 0, 4)
    assert values.min() > 0
    assert values.max() < 1
    assert abs(values.mean() - 0.5) < 0.01
    assert abs(np.corrcoef(values.T) - np.eye(4)).max() < 0.03


CONCEPTS = np.array([["dog", "grass", ""]], object)
TEMPLATES = ["a photo of a {}.", "art of the {}."]


def _texts(mode, k=3, nouns="dog\npark", epoch=0):
    words = draw_words(
        CONCEPTS, np.array([[2.0, 1.0, 0.0]]), np.array([[0, 1, -1]]), [nouns], ["k"],
        seed=0, epoch=epoch, k=k, mode=mode, temperature=1.0,
    )  # fmt: skip
    return write_prompts(words, ["a dog in a park"], ["k"], seed=0, epoch=epoch, templates=TEMPLATES)[0]


def test_texts_of_each_mode():
    assert [text.split()[-1] for text in _texts("top")] == ["dog.", "grass.", "park"]
    assert {text.split()[-1] for text in _texts("cluster")} == {"dog.", "grass.", "park"}
    assert {text.split()[-1] for text in _texts("caption-nouns", k=2)} == {"dog.", "park."}
    assert _texts("caption-nouns", nouns="") == ["a dog in a park"] * 3
    assert _texts("none") == []
    with pytest.raises(ValueError, match="cluster, top, caption-nouns, none"):
        _texts("clusters")


def test_templates_vary_over_epochs():
    assert len({tuple(_texts("top", epoch=epoch)) for epoch in range(40)}) == 4


def test_one_splitmix64_and_it_is_the_published_one():
    """The first numbers of seed 1234567, as the generator's reference implementations give them."""
    from curation.keys import GOLDEN, scramble

    states = np.uint64(1234567) + np.arange(5, dtype=np.uint64) * GOLDEN
    assert scramble(states).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
