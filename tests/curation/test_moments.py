"""Sums of shares of a corpus add up to the sums of the whole."""

from __future__ import annotations

from functools import reduce
from operator import add

import numpy as np

from curation.csr import Csr
from curation.moments import concept_sums, image_moments
from tests.curation.synthetic import make_corpus

CONCEPTS = 70


def test_moments_of_shares_add_up_to_numpys_of_the_whole():
    corpus = make_corpus(500, d=12, concepts=CONCEPTS)
    shares = np.array_split(np.arange(len(corpus)), 7)
    whole = reduce(add, (image_moments(corpus.vectors[rows]) for rows in shares))
    exact = corpus.vectors.astype(np.float64)
    np.testing.assert_allclose(whole.mean, exact.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(whole.covariance, np.cov(exact.T, bias=True), atol=1e-12)
    left = whole - image_moments(corpus.vectors[shares[2]])
    rest = np.delete(exact, shares[2], axis=0)
    np.testing.assert_allclose(left.covariance, np.cov(rest.T, bias=True), atol=1e-12)


def test_concept_sums_equal_a_loop_and_survive_the_way_through_blocks():
    corpus = make_corpus(500, d=12, concepts=CONCEPTS)
    parts = [
        concept_sums(corpus.vectors[rows], corpus.captions.gather(rows), np.float64)
        for rows in np.array_split(np.arange(len(corpus)), 7)
    ]
    by_block: dict[int, list] = {}
    for part in parts:
        for number, block in part.blocks(16).items():
            assert (block.ids // 16 == number).all()
            by_block.setdefault(number, []).append(block)
    expected_counts, expected = np.zeros(CONCEPTS, int), np.zeros((CONCEPTS, 12))
    for row, ids in enumerate(corpus.captions.to_lists()):
        for concept in ids:
            expected_counts[concept] += 1
            expected[concept] += corpus.vectors[row].astype(np.float64)
    dense = [reduce(add, blocks).dense(CONCEPTS) for blocks in by_block.values()]
    assert sum(counts for counts, _ in dense).tolist() == expected_counts.tolist()
    np.testing.assert_allclose(sum(sums for _, sums in dense), expected, atol=1e-9)


def test_captions_without_concepts_sum_to_nothing():
    found = concept_sums(np.ones((3, 4), np.float16), Csr.from_lists([[], [], []]))
    assert (len(found.ids), found.sums.shape) == (0, (0, 4))
    assert not found.blocks(16)
    assert not found.dense(5)[1].any()
