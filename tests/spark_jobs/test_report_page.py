from __future__ import annotations

import io
import re

import numpy as np
import pytest
from PIL import Image

from spark_jobs.report_data import Concept, Neighbour, PairView, ReportData
from spark_jobs.report_page import render_report


def _jpeg(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (300, 256), colour).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture
def page() -> str:
    evil = '<script>alert("x")</script>'
    pair = PairView(
        "web/00000/1",
        f"a dog {evil}",
        _jpeg("red"),
        [Concept("dog", 1.5, 0, True), Concept("grass & sky", 1.25, 1, False)],
        [Neighbour("web/00000/2", 0.875, f"a meadow {evil}", _jpeg("green")), Neighbour("web/00000/3", 0.5)],
    )
    return render_report(
        ReportData(
            title="test",
            steps=[
                {
                    "job": "ingest",
                    "table": "pairs",
                    "rows_in": 1234,
                    "rows_out": 1230,
                    "rejected": 4,
                    "seconds": 2.0,
                    "rate": 617.0,
                }
            ],
            rejects=[("ingest", "truncated_image", 4)],
            concepts=[("dog", 40), ("cat", 10)],
            vocabulary=2,
            leaks={"voc": {"held": 2, "classes": 20}},
            index={
                "kind": "flat",
                "rows": 1230,
                "d": 32,
                "search": {"neighbours": 8, "recall": 1.0, "queries": 500},
            },
            caption_counts=np.array([1, 2, 2]),
            added_counts=np.array([3, 4, 8]),
            similarities=np.array([0.5, 0.75]),
            scores=np.array([1.0, 2.0]),
            looked_at=(3, 1230),
            pairs=[pair],
            gap={
                "caption_recall": 0.25,
                "archive_recall_at_3": 0.4,
                "archive_recall_at_5": 0.6,
                "archive_precision_at_3": 0.8,
            },
            training={"losses": [[0, 4.0], [10, 3.0], [20, 2.5]]},
        )
    )


def test_captions_are_escaped(page):
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 2
    assert "grass &amp; sky" in page


def test_the_page_is_self_contained(page):
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(sources) == 3
    assert all(source.startswith("data:image/") for source in sources)
    assert not re.search(r"https?://|@import|url\(", page)


def test_numbers_are_on_the_page(page):
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))
    for expected in (
        "1,234 samples read",
        "4 rejected",
        "1,230 archives",
        "25% of what is visible",
        "60% is in the archives' best five",
        "80% of the best three",
    ):
        assert expected in text
    assert "5.0 concepts added a pair" in text
    assert "the image's data end early" in page.replace("&#39;", "'")
    assert 'aria-label="training loss from 4.00 to 2.50"' in page
    assert "voc 2/20" in text


def test_what_the_caption_has_is_told_from_what_it_lacks(page):
    assert '<span class="old">dog</span>' in page
    assert '<span class="new">grass &amp; sky</span>' in page


def test_thumbnails_are_small(page):
    assert len(page) < 60_000


def test_histogram_bars_count_the_values(page):
    bars = [int(value) for value in re.findall(r"<title>[\d.]+: (\d+)</title>", page)]
    assert bars == [1, 2, 1, 1, 0, 0, 0, 1]  # caption counts 1..2, then added counts 3..8
