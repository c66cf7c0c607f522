"""Clusters of an archive's concepts, against scikit-learn's k-means."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, linkage
from sklearn.cluster import KMeans

from curation.clusters import cluster_archives
from curation.csr import Csr, concatenate
from tests.curation.synthetic import unit


def vocabulary(count: int = 400, d: int = 24, seed: int = 0) -> np.ndarray:
    """Concepts in groups of about four, as synonyms and neighbouring words are."""
    rng = np.random.default_rng(seed)
    return unit(
        rng.normal(size=(count // 4, d))[np.arange(count) % (count // 4)] + 0.4 * rng.normal(size=(count, d))
    )


def random_archives(count: int, longest: int, seed: int) -> Csr:
    rng = np.random.default_rng(seed)
    return Csr.from_lists(rng.permutation(400)[: rng.integers(0, longest + 1)].tolist() for _ in range(count))


def inertia(points: np.ndarray, labels: np.ndarray) -> float:
    groups = [points[labels == label] for label in np.unique(labels)]
    return float(sum(((group - group.mean(axis=0)) ** 2).sum() for group in groups))


def split(archives: Csr, clusters: np.ndarray) -> list[list[int]]:
    return Csr(archives.offsets, clusters).to_lists()


def test_inertia_is_no_more_than_that_of_ten_starts_of_kmeans():
    """Against their k-means with ten starts, mean over 150 archives of up to 32 concepts."""
    embeddings = vocabulary()
    archives = random_archives(150, 32, seed=1)
    ours, theirs = [], []
    for ids, labels in zip(
        archives.to_lists(), split(archives, cluster_archives(archives, embeddings)), strict=True
    ):
        if len(ids) > 2:
            points, k = embeddings[ids].astype(np.float64), (len(ids) + 1) // 2
            ours.append(inertia(points, np.array(labels)))
            theirs.append(KMeans(k, n_init=10, random_state=0).fit(points).inertia_)
    assert np.mean(ours) <= np.mean(theirs)


def test_number_of_clusters_is_half_the_concepts_rounded_up():
    archives = random_archives(200, 32, seed=2)
    for labels in split(archives, cluster_archives(archives, vocabulary())):
        n = len(labels)
        expected = n if n <= 2 else (n + 1) // 2
        assert len(set(labels)) == expected
        assert sorted(set(labels)) == list(range(expected))


def test_clusters_are_numbered_as_they_first_occur():
    archives = random_archives(50, 32, seed=3)
    for labels in split(archives, cluster_archives(archives, vocabulary())):
        firsts = list(dict.fromkeys(labels))
        assert firsts == sorted(firsts)


def test_clusters_do_not_depend_on_the_rest_of_the_batch():
    embeddings = vocabulary()
    archives = random_archives(60, 32, seed=4)
    whole = split(archives, cluster_archives(archives, embeddings))
    for number in (0, 7, 31, 59):
        alone = archives.gather(np.array([number]))
        assert cluster_archives(alone, embeddings).tolist() == whole[number]
    backwards = archives.gather(np.arange(59, -1, -1))
    assert split(backwards, cluster_archives(backwards, embeddings)) == whole[::-1]


def test_merges_are_those_of_scipy():
    """Ward's tree cut at ceil(n/2) clusters, archive by archive."""
    embeddings = vocabulary(seed=9)
    archives = random_archives(60, 32, seed=6)
    for ids, labels in zip(
        archives.to_lists(), split(archives, cluster_archives(archives, embeddings)), strict=True
    ):
        if len(ids) > 2:
            tree = linkage(embeddings[ids].astype(np.float64), "ward")
            theirs = fcluster(tree, (len(ids) + 1) // 2, "maxclust")
            assert np.array_equal(np.equal.outer(labels, labels), np.equal.outer(theirs, theirs))


def test_equal_concepts_share_a_cluster():
    embeddings = unit(
        np.repeat(np.eye(3, 8), 2, axis=0) + 1e-3 * np.random.default_rng(0).normal(size=(6, 8))
    )
    labels = cluster_archives(Csr.from_lists([[0, 2, 4, 1, 3, 5]]), embeddings)
    assert labels.tolist() == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize("n", [1, 2, 3, 5, 40, 150])
def test_identical_points_do_not_break_it(n):
    embeddings = np.tile(unit(np.ones((1, 8))), (n, 1))
    labels = cluster_archives(Csr.from_lists([list(range(n))]), embeddings)
    assert labels.shape == (n,)
    assert labels.min() >= 0
    assert labels.max() < max(2, (n + 1) // 2)


def test_empty_archives_have_no_clusters():
    archives = concatenate([Csr.from_lists([[], []]), Csr.from_lists([[3], []])])
    assert cluster_archives(archives, vocabulary()).tolist() == [0]
    assert cluster_archives(Csr.from_lists([]), vocabulary()).tolist() == []
