"""The vectorised rankings against the formulas, written out in tests/curation/naive.py."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from configs.errors import UserError
from curation.calibrated import Weights
from curation.csr import Csr
from curation.index import OpenIndex, caption_cosines
from curation.index.folder import Split
from curation.index.lists import Lists, Segment
from curation.moments import concept_sums, image_moments
from curation.probe import Probe, fit_probe
from curation.ranking import rank
from curation.separation import separations
from tests.curation import naive
from tests.curation.synthetic import unit


def split_of(images: np.ndarray) -> Split:
    return Split(0, Lists((Segment(images, np.array([0, len(images)]), np.arange(len(images))),)))


def index_of(
    captions: list[list[int]],
    images: np.ndarray,
    concept_embeddings: np.ndarray,
    mean: np.ndarray | None = None,
    std: np.ndarray | None = None,
) -> OpenIndex:
    """What ranking reads of an index, in memory."""
    count, d = concept_embeddings.shape
    lists = Csr.from_lists(captions)
    cosines = caption_cosines(images, lists, concept_embeddings)
    mean = np.zeros(count, np.float32) if mean is None else mean
    std = np.ones(count, np.float32) if std is None else std
    return OpenIndex(
        folder=Path("memory"),
        kind="flat",
        d=d,
        rows=len(images),
        splits=[split_of(images)],
        centroids=np.zeros((0, d), np.float32),
        keys=pa.array([str(row) for row in range(len(images))], pa.large_string()),
        key_hashes=np.zeros(len(images), np.uint64),
        captions=lists,
        cosines=cosines,
        concepts=pa.array([f"c{number}" for number in range(count)]),
        concept_embeddings=concept_embeddings,
        cosine_mean=mean,
        cosine_std=std,
        separation=separations(lists.values, cosines, mean, std),
        metadata={},
    )


def random_case(rng: np.random.Generator) -> tuple[OpenIndex, np.ndarray, np.ndarray, np.ndarray]:
    """A small corpus with everything that can go wrong: no concepts, missing neighbours, L = 1, ties."""
    rows, d = int(rng.integers(1, 30)), int(rng.choice([3, 8, 32]))
    concepts, batch, neighbours = (int(rng.integers(1, high)) for high in (40, 9, 12))
    captions = [
        rng.permutation(concepts)[: rng.integers(0, 7)].tolist() if rng.random() < 0.8 else []
        for _ in range(rows)
    ]
    images = unit(rng.normal(size=(rows, d)) + 1).astype(np.float16)
    embeddings = unit(rng.normal(size=(concepts, d)) + 1)
    if rng.random() < 0.3 and concepts > 1:
        embeddings[1] = embeddings[0]  # equal scores are possible
    std = np.abs(rng.normal(size=concepts)).astype(np.float32) * (rng.random(concepts) < 0.9)
    mean = rng.normal(size=concepts).astype(np.float32)
    index = index_of(captions, images, embeddings, mean, std.astype(np.float32))
    anchors = unit(rng.normal(size=(batch, d)) + 1)
    chosen = np.stack([rng.permutation(max(rows, neighbours))[:neighbours] for _ in range(batch)])
    chosen = np.where((chosen < rows) & (rng.random(chosen.shape) < 0.9), chosen, -1).astype(np.int64)
    similarities = np.where(chosen >= 0, rng.random(chosen.shape), 0).astype(np.float32)
    return index, anchors, chosen, similarities


def cosine_of(index: OpenIndex, anchor: np.ndarray):
    """The reference's s(t, x): from the index for its images, in double precision for the anchor."""

    def cosine(concept: int, row: int | None) -> float:
        if row is None:
            return naive.dot(anchor.astype(float), index.concept_embeddings[concept].astype(float))
        caption = index.captions.to_lists()[row]
        return float(index.cosines[index.captions.offsets[row] + caption.index(concept)])

    return cosine


def assert_same(
    found: list[tuple[int, float]], expected: list[tuple[int, float]], tolerance: float = 1e-5
) -> None:
    """Equal scores to 1e-5 of their size, and an order that differs only among such equal scores."""
    assert dict(found).keys() == dict(expected).keys()
    wanted = dict(expected)
    for concept, score in found:
        assert score == pytest.approx(wanted[concept], rel=tolerance, abs=tolerance)
    in_found_order = [wanted[concept] for concept, _ in found]
    for better, worse in pairwise(in_found_order):
        assert better >= worse - 2 * tolerance * max(1.0, abs(worse))


def ranked_lists(
    index, anchors, rows, similarities, ranking: str, **options
) -> list[list[tuple[int, float]]]:
    ranked = rank(index, anchors, rows, similarities, ranking, **options)
    assert len(ranked.concepts) == len(anchors)
    edges = ranked.concepts.offsets
    return [
        list(zip(ranked.concepts.values[a:b].tolist(), ranked.scores[a:b].tolist(), strict=True))
        for a, b in pairwise(edges)
    ]


def mean_is_away_from_zero(index: OpenIndex, anchor: np.ndarray, rows: np.ndarray) -> bool:
    """The formula divides by means of cosines: near 0 no float32 input determines the quotient."""
    cosine, captions = cosine_of(index, anchor), index.captions.to_lists()
    q = {
        concept: [cosine(concept, row) for row in rows if row >= 0 and concept in captions[row]]
        + [cosine(concept, None)]
        for concept in naive.candidates(captions, rows)
    }
    return all(abs(np.mean(values)) > 0.02 for values in q.values()) and (
        not q or abs(max(max(values) for values in q.values())) > 0.02
    )


@pytest.mark.parametrize("ranking", ["paper", "compat"])
def test_scores_equal_the_formula_on_random_corpora(ranking):
    rng = np.random.default_rng(3)
    compared = empty = missing = single = 0
    for _ in range(150):
        index, anchors, rows, similarities = random_case(rng)
        found = ranked_lists(index, anchors, rows, similarities, ranking)
        for number, anchor in enumerate(anchors):
            if mean_is_away_from_zero(index, anchor, rows[number]):
                expected = naive.paper(
                    index.captions.to_lists(), rows[number].tolist(), cosine_of(index, anchor)
                )
                assert_same(found[number], expected)
                compared, empty = compared + 1, empty + (not expected)
                missing, single = missing + (-1 in rows[number]), single + (rows.shape[1] == 1)
    assert compared > 300
    assert min(empty, missing, single) > 10


def probe_for(index: OpenIndex, rho: float) -> Probe:
    """Fitted to the images of a case and their captions."""
    images = index.splits[0].lists.segments[0].vectors
    sums = concept_sums(images, index.captions, np.float64).dense(len(index.concepts))
    return fit_probe(image_moments(images), *sums, rho)


def test_the_whole_calibrated_score_equals_its_naive_twin():
    """Moments, probe, naming rates, centred votes, proposals and likelihood ratio against plain Python and a
    least-squares solver."""
    rng = np.random.default_rng(4)
    compared = alone = both = silent = 0
    for number in range(220):
        index, anchors, rows, similarities = random_case(rng)
        # Half precision leaves lengths of 1 +- 3e-4; here they are exact, so that five digits can be compared.
        index.splits[0] = split_of(unit(index.splits[0].lists.segments[0].vectors.astype(np.float64)))
        images = index.splits[0].lists.segments[0].vectors.astype(np.float64)
        similarities = np.where(rows >= 0, np.einsum("bd,bld->bl", anchors, images[rows]), 0).astype(
            np.float32
        )
        captions, count = index.captions.to_lists(), len(index.concepts)
        rho = float(rng.choice([0.03, 1, 10]))
        weights = (
            float(rng.choice([0, 0.6, 1])),
            float(rng.choice([0, 0.5, 2])),
            float(rng.choice([0, 7, 20])),
            float(rng.choice([0, 3, 18])),
        )
        probe, expected_probe = probe_for(index, rho), naive.probe(images.tolist(), captions, count, rho)
        # Few images decide their own r, and what is left without them keeps few digits (test_fit.py compares it).
        told = probe.naming.tolist()
        if len(images) > 2 * images.shape[1]:
            told = naive.naming(images.tolist(), captions, expected_probe, rho)
        proposals = (0, 3, 2 * count)[number % 3]
        found = rank(index, anchors, rows, similarities, "calibrated", probe, Weights(*weights), proposals)
        for place, anchor in enumerate(anchors):
            near = rows[place].tolist()
            chance = expected_probe[:, :-1] @ anchor.astype(float) + expected_probe[:, -1]
            pool = set(naive.candidates(captions, near))
            own = slice(*found.concepts.offsets[place : place + 2])
            ids = found.concepts.values[own].tolist()
            proposed = {t for t in ids if t not in pool}
            assert pool <= set(ids)
            if proposals:
                # The k best: nobody who was left out is likelier than one of them, but for rounding.
                outside = [chance[t] for t in range(count) if t not in ids]
                inside = np.sort([chance[t] for t in ids])[::-1][: min(proposals, count)]
                assert len(ids) >= min(proposals, count)
                assert max(outside, default=-9) <= inside.min() + 1e-5
            else:
                assert not proposed
            spread = [index.cosine_std[t] for t in ids]
            # z divides a float32 cosine by the concept's spread: compare where that keeps five digits.
            if all(value == 0 or value > 0.05 for value in spread):
                statistics = tuple(
                    array.tolist() for array in (index.cosine_mean, index.cosine_std, index.separation)
                )
                expected = naive.calibrated(
                    captions, near, images.tolist(), anchor.astype(float).tolist(), sorted(ids),
                    cosine_of(index, anchor), statistics, expected_probe, told, images.mean(axis=0).tolist(), weights,
                )  # fmt: skip
                scores = list(zip(ids, found.scores[own].tolist(), strict=True))
                assert_same(scores, expected, tolerance=1e-4)
                compared, alone, both = compared + 1, alone + len(proposed), both + len(pool)
                silent += not pool
    assert compared > 400
    assert min(alone, both) > 500
    assert silent > 10


def test_each_concept_says_who_named_it():
    rng = np.random.default_rng(6)
    named = unnamed = 0
    for _ in range(60):
        index, anchors, rows, similarities = random_case(rng)
        captions = index.captions.to_lists()
        found = rank(index, anchors, rows, similarities, "calibrated", probe_for(index, 1.0), proposals=99)
        voters = found.named_by(3).to_lists()
        for place, (concept, anchor) in enumerate(
            zip(found.concepts.values.tolist(), found.concepts.row_ids().tolist(), strict=True)
        ):
            near = [n for n, row in enumerate(rows[anchor]) if row >= 0 and concept in captions[row]]
            assert found.votes[place] == len(near)
            assert [position % rows.shape[1] for position in voters[place]] == near[:3]
            named, unnamed = named + bool(near), unnamed + (not near)
    assert min(named, unnamed) > 200


def test_a_probe_of_another_vocabulary_is_refused():
    index, anchor, rows = worked_example()
    nothing = np.zeros(3, np.float32)
    other = Probe(np.zeros(2, np.float32), np.zeros((3, 2), np.float32), nothing, nothing, nothing)
    for probe, message in ((None, "run fit_probe first"), (other, "3 concepts of 2 dimensions")):
        with pytest.raises(UserError, match=message):
            rank(index, anchor, rows, np.ones((1, 3), np.float32), "calibrated", probe)


def test_separations_equal_their_definition():
    rng = np.random.default_rng(5)
    compared = 0
    for _ in range(50):
        index, anchors, _, _ = random_case(rng)
        mean, std = index.cosine_mean.tolist(), index.cosine_std.tolist()
        expected = naive.separations(index.captions.to_lists(), cosine_of(index, anchors[0]), mean, std)
        assert index.separation == pytest.approx(expected, rel=1e-4, abs=1e-4)
        compared += sum(value != 0 for value in expected)
    assert compared > 300


def worked_example() -> tuple[OpenIndex, np.ndarray, np.ndarray]:
    """method.md: E = {a, b}, {a}, {}; s(a,.) = 0.20, 0.30, anchor 0.25; s(b,.) = 0.10, anchor 0.20."""
    images = np.array([[0.20, 0.10], [0.30, 0.0], [0.0, 0.0]], np.float32)
    index = index_of([[0, 1], [0], []], images, np.eye(2, dtype=np.float32))
    return index, np.array([[0.25, 0.20]], np.float32), np.array([[0, 1, 2]])


def test_worked_example_of_the_method():
    index, anchor, rows = worked_example()
    ((best, second),) = ranked_lists(index, anchor, rows, np.ones((1, 3), np.float32), "paper")
    assert best[0] == 1
    assert best[1] == pytest.approx(0.20 / 0.30 + 0.20 / 0.15, abs=1e-6)
    assert second[0] == 0
    assert second[1] == pytest.approx(0.25 / 0.30 + 0.25 / 0.25, abs=1e-6)


def test_anchor_among_its_neighbours_is_counted_twice_in_the_mean():
    """The released code's D7: with the anchor as row 3, b's mean is (0.10 + 2 x 0.20) / 3."""
    images = np.array([[0.20, 0.10], [0.30, 0.0], [0.0, 0.0], [0.25, 0.20]], np.float32)
    index = index_of([[0, 1], [0], [], [1]], images, np.eye(2, dtype=np.float32))
    anchor, rows = np.array([[0.25, 0.20]], np.float32), np.array([[3, 0, 1]])
    (found,) = ranked_lists(index, anchor, rows, np.ones((1, 3), np.float32), "compat")
    scores = dict(found)
    assert scores[1] == pytest.approx(0.20 / 0.30 + 0.20 / (0.50 / 3), abs=1e-6)
    assert scores[0] == pytest.approx(0.25 / 0.30 + 0.25 / 0.25, abs=1e-6)


def test_equal_scores_come_in_the_order_of_concept_ids():
    embeddings = np.tile(unit(np.ones((1, 4))), (5, 1))
    index = index_of([[4, 1, 3], [0, 2]], unit(np.ones((2, 4))), embeddings)
    ranked = rank(index, unit(np.ones((1, 4))), np.array([[0, 1]]), np.ones((1, 2), np.float32))
    assert ranked.concepts.values.tolist() == [0, 1, 2, 3, 4]


def test_no_neighbours_give_an_empty_archive():
    index, anchor, _ = worked_example()
    for ranking in ("paper", "calibrated"):
        ranked = rank(
            index, anchor, np.array([[-1, -1]]), np.zeros((1, 2), np.float32), ranking, probe_for(index, 1.0)
        )
        assert ranked.concepts.to_lists() == [[]]


def test_top_keeps_the_best():
    index, anchor, rows = worked_example()
    ranked = rank(index, np.repeat(anchor, 2, 0), np.repeat(rows, 2, 0), np.ones((2, 3), np.float32)).top(1)
    assert ranked.concepts.to_lists() == [[1], [1]]
    assert ranked.scores == pytest.approx([2.0, 2.0], abs=1e-6)


def test_a_batch_ranks_as_its_images_one_by_one():
    rng = np.random.default_rng(7)
    for _ in range(20):
        index, anchors, rows, similarities = random_case(rng)
        probe = probe_for(index, 1.0)
        for ranking in ("paper", "calibrated"):
            whole = rank(index, anchors, rows, similarities, ranking, probe, proposals=5)
            parts = [
                rank(
                    index,
                    anchors[i : i + 1],
                    rows[i : i + 1],
                    similarities[i : i + 1],
                    ranking,
                    probe,
                    proposals=5,
                )
                for i in range(len(anchors))
            ]
            assert whole.scores.tobytes() == b"".join(part.scores.tobytes() for part in parts)
            assert whole.concepts.to_lists() == [part.concepts.to_lists()[0] for part in parts]


def test_unknown_ranking_names_the_known_ones():
    index, anchor, rows = worked_example()
    with pytest.raises(UserError, match="paper, calibrated, compat"):
        rank(index, anchor, rows, np.ones((1, 3), np.float32), "best")
