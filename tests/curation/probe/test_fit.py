"""The probe against ridge regression solved concept by concept, and rho against fits that leave pairs out."""

from __future__ import annotations

import numpy as np
import pytest

from curation.csr import Csr
from curation.moments import concept_sums, image_moments
from curation.probe import DEFAULT_RHO, LeftOut, Probe, choose_rho, fit_probe
from curation.probe.fit import average_precisions
from tests.curation import naive
from tests.curation.synthetic import make_corpus, unit


def fitted(vectors: np.ndarray, captions: Csr, concepts: int, rho: float) -> Probe:
    sums = concept_sums(vectors, captions, np.float64).dense(concepts)
    return fit_probe(image_moments(vectors), *sums, rho)


@pytest.mark.parametrize(
    ("rows", "d", "rank"),
    [(300, 16, 16), (12, 40, 11), (200, 24, 5), (2, 6, 1)],
    ids=["more rows than d", "d > N", "rank-deficient C", "two images"],
)
@pytest.mark.parametrize("rho", [10.0, 1.0, 1e-2])
def test_weights_and_biases_equal_a_dense_solve_in_float64(rows, d, rank, rho):
    rng = np.random.default_rng(rows + d)
    basis = rng.normal(size=(min(rank + 1, d), d))
    vectors = unit(rng.normal(size=(rows, len(basis))) @ basis)
    captions = [rng.permutation(9)[: rng.integers(0, 4)].tolist() for _ in range(rows)]
    found = fitted(vectors, Csr.from_lists(captions), 9, rho)
    expected = naive.probe(vectors.astype(np.float64).tolist(), captions, 9, rho)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found.weights, expected[:, :-1], atol=2e-5 * scale)
    np.testing.assert_allclose(found.biases, expected[:, -1], atol=2e-5 * scale)
    np.testing.assert_allclose(found.mean, vectors.astype(np.float64).mean(axis=0), atol=1e-6)


def test_a_concept_in_one_caption_is_likeliest_on_its_image_and_one_in_none_nowhere():
    corpus = make_corpus(200, d=16, concepts=30)
    lists = [[t for t in ids if t not in (3, 4)] for ids in corpus.captions.to_lists()]
    lists[17] = [*lists[17], 3]
    probe = fitted(corpus.vectors, Csr.from_lists(lists), 30, 0.1)
    images = corpus.vectors.astype(np.float32)
    rows = np.arange(200)
    rare = probe.chances(images, rows, np.full(200, 3))
    assert rare.argmax() == 17
    assert 1 / 200 < rare[17] < 1
    assert not probe.chances(images, rows, np.full(200, 4)).any()


def test_images_that_do_not_vary_get_each_concepts_share_of_captions():
    vectors = np.tile(unit(np.ones((1, 5))), (8, 1)).astype(np.float16)
    probe = fitted(vectors, Csr.from_lists([[0], [0], [0, 1], [], [], [], [], []]), 3, 1.0)
    chances = probe.chances(vectors.astype(np.float32), np.zeros(3, int), np.arange(3))
    np.testing.assert_allclose(chances, [3 / 8, 1 / 8, 0], atol=1e-3)


@pytest.mark.parametrize(("rows", "d", "rho"), [(300, 16, 1.0), (60, 24, 0.1), (12, 40, 1.0), (2, 6, 1.0)])
def test_naming_rates_are_the_probes_mean_on_the_images_that_name_a_concept(rows, d, rho):
    rng = np.random.default_rng(rows)
    vectors = unit(rng.normal(size=(rows, d)))
    captions = [rng.permutation(9)[: rng.integers(0, 4)].tolist() for _ in range(rows)]
    probe = fitted(vectors, Csr.from_lists(captions), 10, rho)
    exact = vectors.astype(np.float64).tolist()
    expected = naive.naming(exact, captions, naive.probe(exact, captions, 10, rho), rho)
    np.testing.assert_allclose(probe.naming, expected, atol=2e-5)
    assert probe.counts.tolist() == [sum(t in caption for caption in captions) for t in range(10)]


def test_naming_rates_are_those_of_fits_without_the_image_itself():
    """Each image of a concept is scored by a fit to all others; only their leverages are taken for equal."""
    corpus, rho = make_corpus(150, d=20, concepts=12, groups=3, noise=0.8), 0.3
    captions, exact = corpus.captions.to_lists(), corpus.vectors.astype(np.float64)
    probe = fitted(corpus.vectors, corpus.captions, 12, rho)
    left_out: list[list[float]] = [[] for _ in range(12)]
    for row in range(150):
        others = [other for other in range(150) if other != row]
        weights = naive.probe(exact[others].tolist(), [captions[other] for other in others], 12, rho)
        for concept in captions[row]:
            left_out[concept].append(float(weights[concept, :-1] @ exact[row] + weights[concept, -1]))
    means = np.array([np.mean(values) for values in left_out])
    counts = np.array([len(values) for values in left_out])
    expected = (counts * means + 10 * (counts @ means) / counts.sum()) / (counts + 10)
    np.testing.assert_allclose(probe.naming, expected, atol=0.01)
    in_sample = [np.mean(probe.chances(exact.astype(np.float32), np.flatnonzero([t in c for c in captions]),
                 np.full(counts[t], t))) for t in range(12)]  # fmt: skip
    assert np.abs(in_sample - means).min() > 0.03  # what is corrected is not small


def test_how_often_captions_name_what_is_there_is_found_again():
    """A third of the images show each concept; captions name it in a share of its own, whatever else there is."""
    rng, rates = np.random.default_rng(5), np.array([0.9, 0.5, 0.2, 0.1])
    shown = rng.random((20_000, 4)) < 1 / 3
    vectors = unit(shown @ np.eye(4, 12) + 0.1 * rng.normal(size=(20_000, 12)) + 0.5)
    named = shown & (rng.random(shown.shape) < rates)
    captions = Csr.from_lists([np.flatnonzero(row).tolist() for row in named])
    np.testing.assert_allclose(fitted(vectors, captions, 4, 1e-3).naming, rates, rtol=0.15)


def test_rho_is_chosen_by_pairs_that_its_fit_has_not_seen():
    """The curve equals fits on the other folds, done one by one without subtracting moments."""
    corpus, count = make_corpus(240, d=20, concepts=40, noise=0.8), 40
    folds = np.random.default_rng(0).integers(0, 4, len(corpus))
    moments = image_moments(corpus.vectors)
    sums = concept_sums(corpus.vectors, corpus.captions, np.float64).dense(count)
    choice = choose_rho(moments, *sums, LeftOut(corpus.vectors, corpus.captions, folds), (3.0, 0.3, 0.003))
    expected, captions = [], corpus.captions.to_lists()
    for rho in (3.0, 0.3, 0.003):
        values = []
        for fold in range(4):
            kept = np.flatnonzero(folds != fold)
            weights = naive.probe(
                corpus.vectors[kept].astype(np.float64).tolist(), [captions[row] for row in kept], count, rho
            )
            for row in np.flatnonzero(folds == fold):
                if captions[row]:
                    scores = weights[:, :-1] @ corpus.vectors[row].astype(np.float64) + weights[:, -1]
                    order = np.argsort(-scores)
                    hits = np.isin(order, captions[row])
                    precision = np.cumsum(hits) / np.arange(1, count + 1)
                    values.append((precision * hits).sum() / hits.sum())
        expected.append(np.mean(values))
    assert [rho for rho, _ in choice.curve] == [3.0, 0.3, 0.003]
    np.testing.assert_allclose([value for _, value in choice.curve], expected, atol=2e-3)
    assert choice.rho == choice.curve[int(np.argmax(expected))][0]
    assert choice.pairs == sum(map(bool, captions))


def test_more_pairs_want_less_shrinkage():
    chosen = []
    for rows in (150, 6000):
        corpus = make_corpus(rows, d=16, concepts=40, groups=6, noise=0.8)
        sums = concept_sums(corpus.vectors, corpus.captions, np.float64).dense(40)
        folds = np.arange(rows) % 5
        left_out = LeftOut(
            corpus.vectors[:1500], corpus.captions.gather(np.arange(min(rows, 1500))), folds[:1500]
        )
        chosen.append(choose_rho(image_moments(corpus.vectors), *sums, left_out).rho)
    assert chosen[0] > chosen[1]


@pytest.mark.parametrize("captions", [[[0]], [[], [], []]], ids=["one pair", "nothing named"])
def test_where_nothing_can_be_left_out_rho_is_the_default(captions):
    lists, vectors = Csr.from_lists(captions), unit(np.random.default_rng(0).normal(size=(len(captions), 4)))
    sums = concept_sums(vectors, lists, np.float64).dense(2)
    choice = choose_rho(image_moments(vectors), *sums, LeftOut(vectors, lists, np.zeros(len(lists), int)))
    assert (choice.rho, choice.curve, choice.pairs) == (DEFAULT_RHO, (), 0)


def test_average_precision_counts_equals_against_the_wanted():
    scores = np.array([[0.1, 0.9, 0.5, 0.5], [0.3, 0.3, 0.3, 0.3]])
    found = average_precisions(scores, Csr.from_lists([[1, 2], [0]]))
    assert found.tolist() == pytest.approx([(1 / 1 + 2 / 3) / 2, 1 / 4])
