"""Groups of near-duplicates against all cosines in double precision, however the work is cut."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from scipy.sparse.csgraph import connected_components

from curation import duplicates
from curation.duplicates import Groups, Links, group, joined, links_of, strongest
from curation.index import OpenIndex, open_index
from curation.index.above import copies_nprobe, pairs_above
from tests.curation.index.test_distinct import SIMILARITY, with_copies
from tests.curation.synthetic import Corpus, build, make_corpus


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return with_copies(make_corpus(1500, d=24, concepts=20, groups=60))


@pytest.fixture(scope="module")
def flat(corpus, tmp_path_factory) -> OpenIndex:
    return build(corpus, tmp_path_factory.mktemp("index") / "flat", "flat")


def scores_of(corpus: Corpus) -> np.ndarray:
    """Of few values, so that many are equal, and none of every fifth."""
    scores = np.random.default_rng(1).integers(0, 3, len(corpus)).astype(np.float32)
    scores[::5] = np.nan
    return scores


def keys_of(corpus: Corpus) -> pa.Array:
    """In another order than the rows."""
    return pa.array([f"web/{number * 7919 % 10007:05d}" for number in range(len(corpus))])


def expected(corpus: Corpus, similarity: float, scores: np.ndarray) -> dict[int, tuple]:
    """Row -> group, place, representative, similarity, by brute force and plain Python."""
    vectors = corpus.vectors.astype(np.float64)
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -1)
    labels = connected_components(cosines > similarity, directed=False)[1]
    keys, found, number = keys_of(corpus).to_pylist(), {}, 0
    for label in dict.fromkeys(labels.tolist()):
        rows = np.flatnonzero(labels == label).tolist()
        if len(rows) > 1:
            rows.sort(key=lambda row: (-scores[row] if scores[row] == scores[row] else np.inf, keys[row]))
            for place, row in enumerate(rows):
                found[row] = (number, place, rows[0], cosines[row].max())
            number += 1
    return found


def grouped(corpus: Corpus, links: Links, scores: np.ndarray) -> Groups:
    rows = np.unique(np.concatenate([links.rows, links.others]))
    return group(links, scores[rows], keys_of(corpus).take(pa.array(rows)))


def same(found: Groups, others: Groups) -> bool:
    return all(np.array_equal(value, getattr(others, name)) for name, value in vars(found).items())


def test_groups_are_those_of_all_cosines(corpus, flat):
    scores = scores_of(corpus)
    wanted = expected(corpus, SIMILARITY, scores)
    found = grouped(corpus, links_of(flat, np.arange(len(corpus)), corpus.vectors, SIMILARITY), scores)
    assert found.rows.tolist() == sorted(wanted)
    columns = (found.groups, found.places, found.representatives)
    for row, *values in zip(found.rows.tolist(), *(column.tolist() for column in columns), strict=True):
        assert tuple(values) == wanted[row][:3], row
    np.testing.assert_allclose(found.similarities, [wanted[row][3] for row in found.rows], atol=1e-6)
    sizes = np.bincount(found.groups)
    assert sizes.max() > 60
    assert 100 < len(sizes) < 200
    assert (found.similarities < 1 - 1e-3).sum() > 100  # not exact copies alone
    # A chain's ends are no copies of each other.
    ends = [rows for rows in (found.rows[found.groups == number] for number in range(len(sizes))) if len(rows) == 3]  # fmt: skip
    vectors = corpus.vectors.astype(np.float64)
    assert sum((vectors[rows] @ vectors[rows].T).min() < SIMILARITY for rows in ends) > 20


def test_how_the_work_is_cut_changes_nothing(corpus, flat, tmp_path, monkeypatch):
    scores, rows = scores_of(corpus), np.arange(len(corpus))
    whole = grouped(corpus, links_of(flat, rows, corpus.vectors, SIMILARITY), scores)
    budget = len(corpus) * (24 * 2 + 8) / 2.5 / 1e9
    build(corpus, tmp_path / "split", "flat", memory_gb=budget)
    monkeypatch.setattr(duplicates, "_BUFFERED", 50)  # forget early, and often
    parts = [
        links_of(open_index(tmp_path / "split", splits=[split]), rows[part], corpus.vectors[part], SIMILARITY)
        for split in (2, 0, 1)
        for part in np.array_split(rows, 7)
    ]
    assert all(len(part) < len(corpus) for part in parts)
    assert same(grouped(corpus, joined(parts), scores), whole)


def test_inverted_lists_find_nearly_all_copies_at_any_similarity(tmp_path):
    corpus = with_copies(make_corpus(3000, d=24, concepts=20, groups=200, noise=0.9))
    rows = np.arange(len(corpus))
    index = build(corpus, tmp_path / "ivf", "ivf", nlist=60, queries=50)
    vectors = corpus.vectors.astype(np.float64)
    true = {(a, b) for a, b in zip(*np.nonzero(np.triu(vectors @ vectors.T, 1) > SIMILARITY), strict=True)}
    index.nprobe = copies_nprobe(index, SIMILARITY, 0.99)
    assert 1 <= index.nprobe <= 40
    found = set()
    for queries, others, similar in pairs_above(index, corpus.vectors.astype(np.float32), SIMILARITY):
        assert (similar > SIMILARITY).all()
        found |= {(min(a, b), max(a, b)) for a, b in zip(rows[queries], others, strict=True) if a != b}
    assert found <= true
    assert len(found) / len(true) > 0.99
    assert copies_nprobe(index, 0.8, 0.99) > copies_nprobe(index, 0.96, 0.99) >= copies_nprobe(index, 0.96, 0.5)  # fmt: skip


def test_a_pair_at_the_threshold_is_judged_alike_from_both_sides_and_in_any_batch(corpus, flat):
    vectors = corpus.vectors.astype(np.float32)
    links = links_of(flat, np.arange(len(corpus)), corpus.vectors, SIMILARITY)
    for left, right, exact in list(zip(links.rows, links.others, links.similarities, strict=True))[::6]:
        for threshold, above in ((exact, False), (np.nextafter(exact, np.float32(0)), True)):
            for asking, other in ((left, right), (right, left)):
                for batch in ([asking], [asking, *range(50)]):
                    pairs = pairs_above(flat, vectors[batch], float(threshold))
                    found = {row for queries, rows, _ in pairs for row in rows[queries == 0].tolist()}
                    assert (other in found) == above


def test_the_strongest_links_join_the_same_images_each_to_its_nearest():
    rng = np.random.default_rng(0)
    ends = np.unique(np.sort(rng.integers(0, 400, (2, 900)), axis=0), axis=1) * 10
    ends = ends[:, ends[0] != ends[1]]
    links = Links(ends[0], ends[1], rng.random(ends.shape[1]).astype(np.float32))
    kept = strongest(Links(*(np.concatenate([one, two]) for one, two in (
        (links.rows, links.others), (links.others, links.rows), (links.similarities, links.similarities))
    )))  # fmt: skip

    def near(some: Links) -> dict[int, float]:
        best: dict[int, float] = {}
        for one, two, value in zip(some.rows.tolist(), some.others.tolist(), some.similarities.tolist(), strict=True):  # fmt: skip
            best[one], best[two] = max(best.get(one, 0), value), max(best.get(two, 0), value)
        return best

    def label(some: Links) -> list[int]:
        graph = np.zeros((400, 400), bool)
        graph[some.rows // 10, some.others // 10] = True
        return connected_components(graph, directed=False)[1].tolist()

    assert label(kept) == label(links)
    assert len(kept) == 400 - len(set(label(links)))
    assert near(kept) == near(links)


def test_no_copies_no_groups(corpus, flat):
    links = links_of(flat, np.arange(20), corpus.vectors[:20], 0.99999)
    assert len(links) == 0
    found = group(joined([links, links]), np.zeros(0, np.float32), pa.array([], pa.string()))
    assert [len(value) for value in vars(found).values()] == [0] * 5


def test_without_scores_the_smallest_key_stands_for_a_group(corpus):
    links = Links(np.array([3, 4, 9]), np.array([4, 5, 11]), np.array([0.97, 0.98, 0.99], np.float32))
    rows = np.array([3, 4, 5, 9, 11])
    keys = pa.array(["c", "a", "b", "x", "y"])
    found = group(links, np.full(5, np.nan, np.float32), keys)
    assert found.rows.tolist() == rows.tolist()
    assert found.representatives.tolist() == [4, 4, 4, 9, 9]
    assert found.places.tolist() == [2, 0, 1, 0, 1]
    assert found.groups.tolist() == [0, 0, 0, 1, 1]
    np.testing.assert_array_equal(found.similarities, np.array([0.97, 0.98, 0.98, 0.99, 0.99], np.float32))
