"""`paper` and `compat` stay as they were, bit for bit.

All inputs are small multiples of 1/16, so products and sums are exact in any order and on any processor: what is
left is the formula. The digests were taken before the calibrated ranking got its probe.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pytest

from configs.schema import ArchivesConfig
from curation.archives import build_archives
from curation.csr import Csr
from tests.curation.synthetic import Corpus, build

ROWS, WIDTH, CONCEPTS = 400, 8, 50
COLUMNS = ("key", "concept_ids", "concepts", "scores", "in_caption", "neighbours", "similarities")
GOLDEN = {"paper": "e43ac0f655a821c136089c3dafbaee45", "compat": "38da756042df564819aabff5e71780ca"}


def dyadic_corpus() -> Corpus:
    """Vectors of sixteenths (not of length 1, which neither search nor formula needs)."""
    rng = np.random.default_rng(11)
    vectors = (rng.integers(-8, 9, (ROWS, WIDTH)) / 16).astype(np.float16)
    words = (rng.integers(1, 9, (CONCEPTS, WIDTH)) / 16).astype(np.float32)
    captions = [rng.permutation(CONCEPTS)[: rng.integers(0, 6)].tolist() for _ in range(ROWS)]
    return Corpus(
        pa.array([f"web/00000/{row:06d}" for row in range(ROWS)]),
        vectors,
        Csr.from_lists(captions),
        pa.array([f"concept {number}" for number in range(CONCEPTS)]),
        words,
        np.zeros(CONCEPTS, np.float32),
        np.ones(CONCEPTS, np.float32),
    )


@pytest.mark.parametrize("ranking", GOLDEN)
def test_the_papers_and_the_released_ranking_are_unchanged(ranking, tmp_path):
    corpus = dyadic_corpus()
    options = ArchivesConfig(ranking=ranking, neighbours=8, top=20, clusters=False, batch_size=128)
    found = build_archives(
        corpus.keys, corpus.vectors, build(corpus, tmp_path / "index"), options, corpus.captions
    )
    digest = hashlib.sha256()
    for name in COLUMNS:
        digest.update(
            repr(
                [
                    value.hex() if isinstance(value, float) else value
                    for item in found.column(name).to_pylist()
                    for value in (item if isinstance(item, list) else [item])
                ]
            ).encode()
        )
    assert digest.hexdigest()[:32] == GOLDEN[ranking]
