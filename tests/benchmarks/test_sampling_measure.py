"""What bench_sampling counts, on archives small enough to count by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tests.benchmarks.bench_sampling import draws, figure


def test_top_draws_the_same_three_and_sampling_all_that_there_are():
    true = [np.array([True, False, True, True, True])]
    archives = (["web/0/0"], [[5.0, 4.0, 3.0, 2.0, 1.0]], [[0, 1, 2, 3, 4]], true)
    assert draws(archives, "top", 1.0) == (pytest.approx(2 / 3), 2.0)
    precision, distinct = draws(archives, "cluster", 100.0)
    assert distinct == 4.0
    assert 0.6 < precision < 1.0


def test_the_figure_has_a_dot_for_each_way_of_drawing():
    drawn = figure({"photos": {"top": (0.6, 2.0), "0.5": (0.5, 3.0), "1": (0.4, 4.0)}})
    assert drawn.count("<circle") == 3
    assert drawn.count("<polyline") == 1
