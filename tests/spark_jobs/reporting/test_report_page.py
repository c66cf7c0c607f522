from __future__ import annotations

import io
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from spark_jobs.reporting.data import Concept, Neighbour, PairView, ReportData
from spark_jobs.reporting.page import render_report
from spark_jobs.reporting.results import Benchmark, Evaluation, Training


def _jpeg(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (300, 256), colour).save(buffer, "JPEG")
    return buffer.getvalue()


def _png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def page(data: ReportData) -> str:
    return render_report(data)


@pytest.fixture
def data() -> ReportData:
    evil = '<script>alert("x")</script>'
    pair = PairView(
        "web/00000/1",
        f"a dog {evil}",
        _jpeg("red"),
        [Concept("dog", 1.5, 0, True, "named by neighbour 1"), Concept("grass & sky", 1.25, 1, False)],
        [Neighbour("web/00000/2", 0.875, f"a meadow {evil}", _jpeg("green")), Neighbour("web/00000/3", 0.5)],
    )
    return ReportData(
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
        merges=[
            {
                "concept": "coat",
                "into": "jacket",
                "text_cosine": 0.731,
                "image_cosine": 0.352,
                "captions_with_both": 0,
                "by_chance": 1.24,
            }
        ],
        duplicates="7 of 1,230 images are in 3 groups",
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
            "rankings": {
                "paper": {
                    "archive_recall_at_3": 0.3,
                    "archive_recall_at_5": 0.45,
                    "archive_precision_at_3": 0.7,
                },
                "paper, words merged": {
                    "archive_recall_at_3": 0.35,
                    "archive_recall_at_5": 0.5,
                    "archive_precision_at_3": 0.65,
                },
                "calibrated": {
                    "archive_recall_at_3": 0.4,
                    "archive_recall_at_5": 0.6,
                    "archive_precision_at_3": 0.8,
                },
            },
            "examples": [
                {
                    "caption": f"a dog {evil}",
                    "visible": ["dog", "lawn"],
                    "paper": [["cat", False]],
                    "calibrated": [["lawn", True], ["cat", False]],
                }
            ],
        },
        probe={
            "concepts": 2,
            "rows": 1230,
            "rho": 0.3,
            "left_out_pairs": 900,
            "measure": "precision",
            "curve": [[1.0, 0.5], [0.3, 0.75], [0.1, 0.625]],
        },
        training=Training(
            {"epochs": 3, "note": evil, "config.seed": 12345},
            {"loss": [(0, 4.0), (10, 3.0), (20, 2.5)], "caption_loss": [(0, 2.0), (20, 1.0)]},
            {"lr": [(0, 1e-6), (20, 1e-3)]},
            [(f"step-20 {evil}", _png())],
        ),
        evaluation=Evaluation(
            "runs/last.pt",
            [
                Benchmark("PASCAL VOC", 41.25, 70.0, 1449, [("dog", 60.5), (evil, 22.0), ("cow", None)]),
                Benchmark("mine", None, None, None, []),
            ],
            [("dogs", _png())],
        ),
    )


def test_captions_are_escaped(page):
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 5
    assert "grass &amp; sky" in page


def test_the_page_is_self_contained(page):
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(sources) == 5
    assert all(source.startswith("data:image/") for source in sources)
    assert not re.search(r"https?://|@import|url\(", page)


def test_numbers_are_on_the_page(page):
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))
    for expected in (
        "1,234 samples read",
        "4 rejected",
        "1,230 archives",
        "25% of what is visible",
        "60% of it by the archives' best five",
        "80% of the archives' best three",
        "41.2 mIoU, PASCAL VOC",
        "config.seed 12,345",
    ):
        assert expected in text
    assert "5.0 concepts added a pair" in text
    assert "the image's data end early" in page.replace("&#39;", "'")
    assert 'aria-label="loss from 4 to 2.5"' in page
    assert "voc 2/20" in text
    assert "Duplicates: 7 of 1,230 images are in 3 groups." in text


def test_what_was_merged_is_a_table_to_read(page, data):
    text = " ".join(re.sub(r"<[^>]*>", " ", page).split())
    assert "coat jacket 0.73 0.35 0 1.2" in text
    assert "Words merged" not in render_report(replace(data, merges=[]))


def test_captions_paper_and_ours_stand_side_by_side(page, data):
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page[page.index('id="truth"') :]))
    assert "caption paper paper, words merged calibrated" in text
    assert "found by the best five 45% 50% 60%" in text
    assert "right among the best three 70% 65% 80%" in text
    assert "caption what is visible paper calibrated a dog" in text
    assert '"paper" is its formula with the vocabulary as mined' in text
    assert '<b class="new">lawn</b>, cat' in page
    alone = render_report(replace(data, gap={**data.gap, "rankings": None}))
    assert 'id="truth"' not in alone


def test_the_probes_curve_and_what_chose_it_are_shown(page, data):
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page[page.index('id="probe"') :]))
    assert "rho = 0.3, chosen on 900 left-out pairs by the precision" in text
    assert "rho 0.1 0.5 to 0.75 rho 1" in text
    bare = render_report(replace(data, probe={**data.probe, "curve": []}))
    assert "as no pair could be left out" in bare


def test_why_a_concept_is_there_stands_beside_it(page):
    assert 'title="named by neighbour 1"' in page


def test_what_the_caption_has_is_told_from_what_it_lacks(page):
    assert '<span class="old" title="named by neighbour 1">dog ' in page
    assert '<span class="new">grass &amp; sky</span>' in page


def test_thumbnails_are_small(page):
    assert len(page) < 60_000


def test_an_evaluation_is_a_table_and_the_classes_of_each_benchmark(page):
    rows = re.findall(r"<tr><td>(.*?)</td></tr>", page[page.index('id="evaluation"') :])
    assert [re.sub(r"</td><td[^>]*>", "|", row) for row in rows] == [
        "PASCAL VOC|41.2|70.0|3|1,449",
        "mine|-|-|-|-",
    ]
    assert "<span>dog</span><span>60.5</span>" in page
    assert "<span>cow</span><span>-</span>" in page


def test_without_training_and_evaluation_there_is_no_such_section(data):
    page = render_report(replace(data, training=None, evaluation=None))
    assert "Training" not in page
    assert "Evaluation" not in page


def test_histogram_bars_count_the_values(page):
    bars = [int(value) for value in re.findall(r"<title>[\d.]+: (\d+)</title>", page)]
    assert bars == [1, 2, 1, 1, 0, 0, 0, 1]  # caption counts 1..2, then added counts 3..8


def test_small_parts_give_all_they_have_and_others_more():
    from spark_jobs.reporting.data import _shares

    assert _shares([100, 100, 100], 24) == [8, 8, 8]
    assert _shares([2, 100, 1, 100], 24) == [2, 11, 1, 10]
    assert _shares([2, 3], 24) == [2, 3]
    assert sorted(_shares([5, 100, 100], 24)) == [5, 9, 10]
