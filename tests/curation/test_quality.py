"""What archives are for: on real photos, the default finds far more of what the captions left out than the paper's."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from tests.benchmarks import bench_quality
from tests.benchmarks.bench_quality import measure, summary


@pytest.fixture(scope="module")
def results(real_data, tmp_path_factory) -> dict[str, dict]:
    """quality.json, written by the command."""
    out = tmp_path_factory.mktemp("quality") / "quality.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            sys, "argv", ["bench_quality", "--data", str(real_data / "real-clip"), "--out", str(out)]
        )
        bench_quality.main()
    return json.loads(out.read_text())


def test_paper_is_what_the_datas_readme_measured_naively(results):
    assert results["paper"]["r_at_3"] == pytest.approx(0.28, abs=0.02)
    assert results["paper"]["map"] == pytest.approx(0.24, abs=0.02)


@pytest.mark.parametrize("half", [None, "even", "odd"])
def test_calibrated_is_1_6_times_as_good_on_all_photos_and_on_each_half(results, half):
    entry = results["calibrated"][half] if half else results["calibrated"]
    assert entry["map_ratio"] >= 1.6
    assert entry["r_at_3_ratio"] >= 1.45
    assert entry["p_at_1"] >= 0.40


def test_each_part_of_the_score_adds_to_it(results):
    without = ("votes and cosine, no probe", "probe and cosine, no votes", "votes and probe, no cosine")
    assert all(results["calibrated"]["map"] > results[name]["map"] for name in without)


def test_intervals_hold_the_mean_and_ratios_are_paired(results):
    for entry in results.values():
        low, high = entry["map_interval"]
        assert low < entry["map"] < high
    assert results["paper"]["map_ratio_interval"] == [1.0, 1.0]


def test_an_interval_is_as_wide_as_the_mean_is_uncertain():
    values = np.tile((np.random.default_rng(0).random((400, 1)) < 0.3).astype(float), (1, 4))
    low, high = summary(values, values)["map_interval"]
    assert high - low == pytest.approx(2 * 1.96 * values[:, 2].std() / np.sqrt(400), rel=0.1)


def test_the_measures_are_what_they_are_called():
    found = dict(
        zip(bench_quality.MEASURES, measure([[7, 1, 2, 3], [], [5]], [{1, 3}, {4}, {5}]).T, strict=True)
    )
    assert found["p_at_1"].tolist() == [0, 0, 1]
    assert found["r_at_3"].tolist() == [1 / 2, 0, 1]
    assert found["map"].tolist() == [(1 / 2 + 2 / 4) / 2, 0, 1]
    assert found["pool_recall"].tolist() == [1, 0, 1]
