"""Every way a concept can come into an archive has its words."""

from __future__ import annotations

import pytest

from spark_jobs.reporting.why import why

CASES = {
    "one neighbour": ((1, [4], 0.0), "named by neighbour 5"),
    "two neighbours": ((2, [0, 3], 0.0), "named by neighbours 1 and 4"),
    "three neighbours": ((3, [0, 3, 7], 0.0), "named by neighbours 1, 4 and 8"),
    "many neighbours": ((9, [0, 3, 7], 0.0), "named by neighbours 1, 4, 8 and 6 more"),
    "both": ((2, [0, 3], 0.31), "named by neighbours 1 and 4; the probe (31%)"),
    "the probe alone": ((0, [], 0.12), "the probe (12%)"),
    "neither": ((0, [], 0.001), "the probe's last choices (under 1%)"),
}


@pytest.mark.parametrize(("case", "text"), CASES.values(), ids=CASES.keys())
def test_why_a_concept_is_there(case, text):
    assert why(*case) == text
