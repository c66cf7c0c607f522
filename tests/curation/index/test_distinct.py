"""Copies among neighbours count once: against a plain walk over exact cosines, on corpora with planted copies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from configs.schema import ArchivesConfig
from curation.archives import build_archives
from curation.csr import Csr
from curation.duplicates import links_of
from curation.index import OpenIndex
from curation.index.distinct import distinct
from tests.curation.synthetic import Corpus, build, make_corpus, probe_of, unit

SIMILARITY, WANTED = 0.96, 8
CHAIN = (0.975, 0.975)  # a ~ b and b ~ c, while a and c are no copies of each other


def beside(vector: np.ndarray, cosine: float, rng: np.random.Generator) -> np.ndarray:
    """A unit vector with this cosine to ``vector``: what a JPEG file of lower quality comes to."""
    other = rng.normal(size=len(vector))
    other = unit((other - (other @ vector) * vector)[None])[0]
    return cosine * vector + np.sqrt(1 - cosine**2) * other


def with_copies(corpus: Corpus, seed: int = 3) -> Corpus:
    """The corpus, and after it exact copies, noisy ones and chains of a tenth of its images; one has very many."""
    rng = np.random.default_rng(seed)
    vectors, sources = [], []
    originals = corpus.vectors.astype(np.float64)
    originals /= np.linalg.norm(originals, axis=1, keepdims=True)
    for row in rng.permutation(len(corpus))[: len(corpus) // 10]:
        kind = row % 3
        if kind == 0:
            new = [originals[row]] * 3
        elif kind == 1:
            new = [beside(originals[row], cosine, rng) for cosine in (0.999, 0.99, 0.965, 0.955)]
        else:
            first = beside(originals[row], CHAIN[0], rng)
            new = [first, beside(first, CHAIN[1], rng)]
        vectors += new
        sources += [row] * len(new)
    vectors += [beside(originals[5], 0.995, rng) for _ in range(60)]
    sources += [5] * 60
    both = np.concatenate([corpus.vectors, np.array(vectors).astype(np.float16)])
    captions = corpus.captions.gather(np.concatenate([np.arange(len(corpus)), sources]))
    keys = pa.array([f"corpus/{row // 1000:05d}/{row:09d}" for row in range(len(both))])
    return replace(corpus, keys=keys, vectors=both, captions=Csr(captions.offsets, captions.values))


def walk(corpus: Corpus, row: int, neighbours: int, similarity: float) -> list[int]:
    """The rule in plain words: nearest first, in double precision."""
    vectors = corpus.vectors.astype(np.float64)
    near = vectors @ vectors[row]
    near[row] = -np.inf
    stays: list[int] = []
    for other in np.lexsort((np.arange(len(near)), -near)):
        if other == row:
            continue
        if near[other] > similarity and any(near[one] > similarity for one in stays):
            continue
        if all(vectors[other] @ vectors[one] <= similarity for one in stays):
            stays.append(int(other))
        if len(stays) == neighbours:
            break
    return stays


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return with_copies(make_corpus(1500, d=24, concepts=80, groups=60))


@pytest.fixture(scope="module")
def index(corpus, tmp_path_factory) -> OpenIndex:
    return build(corpus, tmp_path_factory.mktemp("index") / "flat", "flat", unit_rows=400)


def options(**given) -> ArchivesConfig:
    settings = {"ranking": "paper", "neighbours": WANTED, "top": 12, "duplicate_similarity": SIMILARITY}
    return ArchivesConfig(**{**settings, **given})


def archives(corpus: Corpus, index: OpenIndex, rows, probe=None, **given) -> pa.RecordBatch:
    keys = corpus.keys.take(pa.array(rows))
    return build_archives(keys, corpus.vectors[rows], index, options(**given), probe=probe)


def rows_of(table: pa.RecordBatch) -> list[list[int]]:
    return [[int(key.rpartition("/")[2]) for key in keys] for keys in table.column("neighbours").to_pylist()]


def test_neighbours_are_those_of_the_rule(corpus, index):
    asked = np.concatenate([np.arange(0, 1500, 4), np.arange(1500, len(corpus), 3), [5]])
    expected = [walk(corpus, row, WANTED, SIMILARITY) for row in asked]
    found = archives(corpus, index, asked)
    assert rows_of(found) == expected
    plain = rows_of(archives(corpus, index, asked, duplicate_similarity=None))
    assert 100 < sum(one != other for one, other in zip(plain, expected, strict=True)) < len(asked) - 100
    vectors = corpus.vectors.astype(np.float64)
    for row, rows, similar in zip(asked, expected, found.column("similarities").to_pylist(), strict=True):
        np.testing.assert_allclose(similar, vectors[rows] @ vectors[row], atol=1e-6)
    # More copies lie before the last of them than there are among twice as many neighbours.
    many = archives(corpus, index, [5]).column("neighbours").to_pylist()[0]
    assert len(many) == WANTED


def test_a_corpus_with_copies_gives_the_archives_of_one_without(tmp_path):
    plain = make_corpus(1200, d=24, concepts=80, groups=60)
    spared = np.arange(0, 1200, 3)  # who asks has no copy: it would change what the neighbours are
    rng = np.random.default_rng(0)
    sources = np.setdiff1d(np.arange(1200), spared)[rng.integers(0, 800, 2000)]
    keys = pa.chunked_array([plain.keys, pa.array([f"corpus/9/{n}" for n in range(2000)])]).combine_chunks()
    copied = replace(
        plain,
        keys=keys,
        vectors=np.concatenate([plain.vectors, plain.vectors[sources]]),
        captions=plain.captions.gather(np.concatenate([np.arange(1200), sources])),
    )
    probe = probe_of(plain)
    without = build(plain, tmp_path / "without", "flat", neighbours=32)
    within = build(copied, tmp_path / "within", "flat", neighbours=32)
    # (What z says of a concept is known from all images of the index, copies as well.)
    for ranking in ({"ranking": "paper"}, {"ranking": "calibrated", "neighbours": 32, "z_weight": 0.0}):
        # Only copies are so close: no two of these images are.
        given = {**ranking, "duplicate_similarity": 0.999}
        expected = archives(plain, without, spared, probe, **given, clusters=False)
        found = archives(plain, within, spared, probe, **given, clusters=False)
        for name in ("concept_ids", "neighbours", "similarities", "votes"):
            assert found.column(name).equals(expected.column(name)), (ranking, name)
        if ranking["ranking"] == "paper":
            assert found.column("scores").equals(expected.column("scores"))
        counted = archives(plain, within, spared, probe, **{**given, "duplicate_similarity": None})
        assert not counted.column("concept_ids").equals(expected.column("concept_ids"))


@pytest.mark.parametrize("kind", ["flat", "ivf"])
def test_splits_and_batches_change_nothing(corpus, index, tmp_path, kind):
    asked = np.arange(3, len(corpus), 7)
    whole = build(corpus, tmp_path / "whole", kind, neighbours=2 * WANTED, nlist=40 * (kind == "ivf"))
    budget = len(corpus) * (24 * 2 + 8) / 2.5 / 1e9
    split = build(
        corpus, tmp_path / "split", kind, neighbours=2 * WANTED, memory_gb=budget, nlist=40 * (kind == "ivf")
    )
    assert (len(whole.splits), len(split.splits)) == (1, 3)
    split.nprobe = whole.nprobe
    expected = archives(corpus, whole, asked)
    assert archives(corpus, split, asked).equals(expected)
    assert archives(corpus, split, asked, batch_size=5).equals(expected)
    one_by_one = [archives(corpus, split, [row]) for row in asked[:60]]
    assert pa.Table.from_batches(one_by_one).equals(pa.Table.from_batches([expected]).slice(0, 60))


def test_an_image_that_is_its_own_neighbour_is_the_copy_that_counts(corpus, index):
    found = rows_of(archives(corpus, index, [5], ranking="compat"))[0]
    assert found[0] == 5
    assert found[1:] == [row for row in walk(corpus, 5, WANTED, SIMILARITY) if corpus.vectors[row].astype(float) @ corpus.vectors[5].astype(float) <= SIMILARITY][:7]  # fmt: skip


def test_vectors_of_rows_come_from_all_splits(corpus, tmp_path):
    budget = len(corpus) * (24 * 2 + 8) / 3.5 / 1e9
    split = build(corpus, tmp_path / "split", "ivf", memory_gb=budget)
    assert len(split.splits) > 2
    rows = np.array([[7, -1, 1999 % len(corpus)], [0, len(corpus) - 1, 7]])
    vectors = split.vectors_of(rows)
    np.testing.assert_array_equal(vectors[rows >= 0], corpus.vectors[rows[rows >= 0]].astype(np.float32))
    assert not vectors[0, 1].any()


def test_two_images_at_the_threshold_are_judged_exactly(corpus, index):
    rng = np.random.default_rng(4)
    links = links_of(index, np.arange(len(corpus)), corpus.vectors, SIMILARITY)
    for one, other, exact in list(zip(links.rows, links.others, links.similarities, strict=True))[::3]:
        rows = np.array([one, other])
        for threshold, left in ((exact, 2), (np.nextafter(exact, np.float32(0)), 1)):
            for others in (0, 3, 30):  # what else is in the batch
                found = np.concatenate([rows[None], rng.integers(0, 1500, (others, 2))])
                near = np.full(found.shape, 0.1, np.float32)
                assert (distinct(index, (found, near), float(threshold), 2)[0][0] >= 0).sum() == left
