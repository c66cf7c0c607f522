import json

import pytest

from configs.errors import UserError
from demo.gap import measure_gap
from demo.rankings import examples_of

FORMS = {
    "dog": ["dog", "puppy"],
    "grass": ["grass", "lawn"],
    "hot air balloon": ["hot air balloon"],
    "sky": ["sky"],
}
TRUTH = [
    {"key": "demo/00000/000000000", "labels": ["dog", "grass", "sky"], "areas": [9, 9, 9], "named": ["dog"]},
    {"key": "demo/00000/000000001", "labels": ["hot air balloon", "sky"], "areas": [9, 9], "named": []},
    {"key": "demo/00000/000000002", "labels": ["grass", "sky"], "areas": [9, 9], "named": ["grass", "sky"]},
    {"key": "demo/00000/000000003", "labels": ["dog"], "areas": [9], "named": ["dog"]},
]
ARCHIVES = [
    ("demo/00000/000000000", ["puppy", "picture", "dog", "green lawn", "dog"]),
    ("demo/00000/000000001", ["dog", "small hot air balloon"]),
    ("demo/00000/000000002", []),
    ("other/0/0", ["dog"]),
]


@pytest.fixture
def files(tmp_path):
    truth, concepts = tmp_path / "truth.jsonl", tmp_path / "concepts.json"
    truth.write_text("".join(json.dumps(row) + "\n" for row in TRUTH))
    concepts.write_text(json.dumps(FORMS))
    return truth, concepts


def test_gap_equals_the_hand_computed_example(files):
    # Pair 0 shows 3 labels: its caption names 1; the first three concepts recall dog, all five dog and grass;
    # two of the first three are right. Pair 1 shows 2: caption 0, archive 1 of 2, one of two concepts right.
    # Pair 2: caption all, its archive is empty. Pair 3 has no archive, "other" no truth: not counted.
    assert measure_gap(ARCHIVES, *files) == pytest.approx(
        {
            "caption_recall": (1 / 3 + 0 + 1) / 3,
            "archive_recall_at_3": (1 / 3 + 1 / 2 + 0) / 3,
            "archive_recall_at_5": (2 / 3 + 1 / 2 + 0) / 3,
            "archive_precision_at_3": (2 / 3 + 1 / 2) / 2,
        }
    )


def test_perfect_archives_close_the_gap(files):
    perfect = [(row["key"], row["labels"]) for row in TRUTH]
    gap = measure_gap(perfect, *files)
    assert gap["archive_recall_at_3"] == gap["archive_recall_at_5"] == gap["archive_precision_at_3"] == 1.0


def test_archives_of_another_corpus_are_a_user_error(files):
    with pytest.raises(UserError, match="none of its keys"):
        measure_gap([("other/0/0", ["dog"])], *files)


def test_missing_truth_is_a_user_error(files, tmp_path):
    with pytest.raises(UserError, match="no such file"):
        measure_gap(ARCHIVES, tmp_path / "nothing.jsonl", files[1])


def test_examples_show_what_each_ranking_finds_and_whether_it_is_visible(files):
    ranked = {"paper": dict(ARCHIVES), "calibrated": {key: names[::-1] for key, names in ARCHIVES}}
    rows = examples_of(ranked, {"demo/00000/000000000": "a dog"}, *files)
    assert [row["key"] for row in rows] == [key for key, _ in ARCHIVES[:3]]  # pair 3 has no archive
    assert (rows[0]["caption"], rows[0]["visible"]) == ("a dog", ["dog", "grass", "sky"])
    assert rows[0]["paper"] == [
        ["puppy", True], ["picture", False], ["dog", True], ["green lawn", True], ["dog", True],
    ]  # fmt: skip
    assert rows[1]["calibrated"] == [["small hot air balloon", True], ["dog", False]]
