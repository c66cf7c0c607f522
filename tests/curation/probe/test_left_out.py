"""Which pairs rho is tried on."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from curation.probe import left_out_of, left_out_share
from tests.curation.synthetic import make_corpus


def test_the_share_is_twenty_thousand_pairs_or_what_their_scores_may_cost():
    assert left_out_share(900, 50) == 1.0
    assert left_out_share(1_000_000, 5_000) * 1_000_000 == pytest.approx(20_000)
    assert left_out_share(1_000_000, 100_000) * 1_000_000 == pytest.approx(4_000)


def test_a_key_is_chosen_or_not_whatever_part_it_is_in():
    corpus = make_corpus(4000, d=8)
    whole = left_out_of(corpus.keys, corpus.vectors, corpus.captions, 0.25)
    parts = [
        left_out_of(
            corpus.keys.take(pa.array(rows)), corpus.vectors[rows], corpus.captions.gather(rows), 0.25
        )
        for rows in np.array_split(np.arange(4000), 9)
    ]
    joined = sum(parts[1:], parts[0])
    assert joined.vectors.tobytes() == whole.vectors.tobytes()
    assert joined.captions.to_lists() == whole.captions.to_lists()
    assert len(whole.vectors) == pytest.approx(1000, abs=120)
    assert np.bincount(joined.folds, minlength=5).min() > 140
    assert len(left_out_of(corpus.keys, corpus.vectors, corpus.captions, 1.0).vectors) == 4000
