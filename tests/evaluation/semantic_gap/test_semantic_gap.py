"""The semantic-gap measure against plain Python, scikit-learn, hand-computed examples and real photos."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score

import evaluation.semantic_gap
from configs.errors import UserError
from evaluation.semantic_gap.__main__ import main
from evaluation.semantic_gap.archives import read_archives
from evaluation.semantic_gap.comparison import measure_gap
from evaluation.semantic_gap.labels import LabelMatcher, read_synonyms
from evaluation.semantic_gap.masks import read_classes, read_masks
from evaluation.semantic_gap.measures import NOT_FOUND, area_table, label_ranking, measure, without_named
from evaluation.semantic_gap.truth import Picture, build_truth, read_captions, read_pictures, with_captions

LABELS = ["dog", "cat", "tree", "car", "sky", "boat", "house", "hill"]
OTHERS = ["day", "view", "colour"]


def random_case(seed, doubles=True):
    """Pictures with labels and named ones, and archives of labels and words that are none."""
    random = np.random.default_rng(seed)
    pictures, archives = [], {}
    for number in range(40):
        labels = random.permutation(LABELS)[: random.integers(0, 6)].tolist()
        named = tuple(random.permutation(LABELS)[: random.integers(0, 3)].tolist())
        pictures.append(Picture(f"k{number}", tuple(labels), None, named))
        pool = LABELS + OTHERS
        if random.random() < 0.9:
            size = random.integers(0, 9)
            archives[f"k{number}"] = random.choice(pool, size, replace=doubles).tolist()
    return pictures, archives


def naive(pictures, archives, k, missing):
    """(recall@k, precision@k, mAP, recall of all) by sets and loops."""
    recall, precision, ap, pool = [], [], [], []
    for picture in pictures:
        wanted = set(picture.labels) - (set(picture.named) if missing else set())
        if picture.key not in archives or not wanted:
            continue
        concepts = [c for c in archives[picture.key] if not (missing and c in picture.named)]
        recall.append(len(wanted & set(concepts[:k])) / len(wanted))
        pool.append(len(wanted & set(concepts)) / len(wanted))
        if concepts:
            precision.append(sum(c in wanted for c in concepts[:k]) / len(concepts[:k]))
        total = 0.0
        for label in wanted & set(concepts):
            place = concepts.index(label)
            total += sum(c in wanted for c in concepts[: place + 1]) / (place + 1)
        ap.append(total / len(wanted))
    return tuple(float(np.mean(values)) for values in (recall, precision, ap, pool))


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_measures_equal_plain_loops(seed, missing):
    pictures, archives = random_case(seed)
    matcher = LabelMatcher(LABELS)
    truth = build_truth(pictures, matcher)
    ranking = label_ranking(truth, archives, matcher)
    found = measure(*without_named(truth, ranking), 12) if missing else measure(truth, ranking, 12)
    for k in (1, 3, 12):
        recall, precision, ap, pool = naive(pictures, archives, k, missing)
        assert found.recall[k - 1] == pytest.approx(recall)
        assert found.precision[k - 1] == pytest.approx(precision)
    assert found.average_precision == pytest.approx(ap)
    assert found.pool_recall == pytest.approx(pool)


def test_average_precision_is_scikit_learns_times_the_share_found():
    pictures, archives = random_case(11, doubles=False)
    matcher = LabelMatcher(LABELS)
    expected = []
    for picture in pictures:
        concepts = archives.get(picture.key)
        if concepts is None or not picture.labels:
            continue
        right = [concept in picture.labels for concept in concepts]
        share = sum(right) / len(picture.labels)
        expected.append(average_precision_score(right, -np.arange(len(right))) * share if any(right) else 0.0)
    truth = build_truth(pictures, matcher)
    found = measure(truth, label_ranking(truth, archives, matcher))
    assert found.pictures == len(expected)
    assert found.average_precision == pytest.approx(np.mean(expected))
    assert found.errors["average_precision"] == pytest.approx(
        np.std(expected, ddof=1) / np.sqrt(len(expected))
    )


def test_hand_computed_example_of_what_captions_leave_out():
    # Visible: dog, tree, sky; the caption says "a puppy". Without it: tree, sky; the archive becomes day, trees.
    matcher = LabelMatcher(["dog", "tree", "sky"], {"dog": ["puppy"]})
    truth = build_truth([Picture("a", ("dog", "tree", "sky"), captions=("A puppy!",))], matcher)
    archives = {"x": {"a": ["dog", "day", "trees"]}}
    result = measure_gap(truth, matcher, archives, depth=3)
    assert result.caption_recall == pytest.approx(1 / 3)
    assert result.archives[0].visible.recall.tolist() == pytest.approx([1 / 3, 1 / 3, 2 / 3])
    assert result.archives[0].joint_recall.tolist() == pytest.approx([1 / 3, 1 / 3, 2 / 3])
    missing = result.archives[0].missing
    assert missing.recall.tolist() == pytest.approx([0, 1 / 2, 1 / 2])
    assert missing.capped_recall.tolist() == pytest.approx([0, 1 / 2, 1 / 2])
    assert missing.precision.tolist() == pytest.approx([0, 1 / 2, 1 / 2])
    assert missing.average_precision == pytest.approx((1 / 2) / 2)
    skipping = measure_gap(truth, matcher, archives, skip_others=True, depth=2).archives[0]
    assert skipping.visible.precision.tolist() == [1.0, 1.0]
    assert skipping.missing.recall.tolist() == [0.5, 0.5]


def test_one_word_may_stand_for_two_labels():
    matcher = LabelMatcher(["handbag", "backpack", "sky"], {"handbag": ["bag"], "backpack": ["bag"]})
    truth = build_truth([Picture("a", ("handbag", "backpack"))], matcher)
    found = measure(truth, label_ranking(truth, {"a": ["sky", "bags"]}, matcher), 2)
    assert found.ranks.tolist() == [1, 1]
    assert found.recall.tolist() == [0.0, 1.0]
    assert found.precision.tolist() == [0.0, 0.5]


def test_areas_are_counted_bin_by_bin():
    matcher = LabelMatcher(["a1", "b1", "c1"])
    pictures = [Picture("x", ("a1", "b1"), (0.005, 0.05)), Picture("y", ("a1", "c1"), (0.9, 0.01))]
    truth = build_truth(pictures, matcher)
    hits = np.array([True, False, True, True])  # in order of picture and label
    rows = area_table(truth, {"hit": hits}, [0.01, 0.05])
    assert [row["visible"] for row in rows] == [4, 1, 1, 2]
    assert [row["hit"] for row in rows] == [0.75, 1.0, 1.0, 0.5]


def test_a_concept_names_a_label_by_itself_or_by_its_last_words():
    matcher = LabelMatcher(["dog", "grass", "hot air balloon"], {"dog": ["puppy"], "grass": ["lawn"]})
    names = {c: [matcher.labels[n] for n in matcher.of_concept(c)] for c in
             ("puppy", "little brown dogs", "hot air balloon", "dog house", "picture", "Green Lawn")}  # fmt: skip
    assert names == {
        "puppy": ["dog"],
        "little brown dogs": ["dog"],
        "hot air balloon": ["hot air balloon"],
        "dog house": [],
        "picture": [],
        "Green Lawn": ["grass"],
    }


def test_captions_name_whole_words_and_the_longest_label():
    matcher = LabelMatcher(["dog", "hot dog", "car", "traffic light", "light"])
    found = matcher.in_captions(["Two hot dogs and a dog", "a hot dog", "a card", "traffic-lights", ""])
    assert [sorted(matcher.labels[n] for n in names) for names in found] == [
        ["dog", "hot dog"], ["hot dog"], [], ["traffic light"], [],
    ]  # fmt: skip
    nested = LabelMatcher(["dog", "black dog"], nested=True)
    assert nested.in_captions(["black dogs"]) == [frozenset({0, 1})]


def test_without_labels_all_captions_together_are_the_truth():
    matcher = LabelMatcher(["dog", "tree", "sky"], nested=True)
    picture = Picture("a", captions=("a dog", "a dog by a tree", "the sky, a tree"))
    result = measure_gap(build_truth([picture], matcher), matcher, {})
    assert result.caption_recall == pytest.approx(1 / 3)
    assert len(result.truth.rows) == 3


def test_masks_give_labels_and_areas(tmp_path):
    mask = np.zeros((10, 10), np.uint8)
    mask[0, :5], mask[5:] = 1, 2
    mask[9, 9] = 255
    Image.fromarray(mask).save(tmp_path / "a.png")
    Image.fromarray(np.full((4, 4), 300, np.uint16)).save(tmp_path / "b.png")
    classes = {1: "cat", 2: "tree", 300: "car"}
    assert read_masks(tmp_path, classes) == [
        Picture("a", ("cat", "tree"), (0.05, 0.49)),
        Picture("b", ("car",), (1.0,)),
    ]
    assert read_masks(tmp_path, classes, min_area=0.1)[0].labels == ("tree",)


@pytest.mark.parametrize(
    "text",
    ['{"0": "background", "1": "cat"}', '["background", "cat"]', '[{"index": 1, "name": "cat"}]'],
)
def test_classes_files_come_in_three_forms(tmp_path, text):
    (tmp_path / "c.json").write_text(text)
    assert read_classes(tmp_path / "c.json") == {1: "cat"}


def test_archives_are_read_from_lines_parquet_folders_and_workspaces(tmp_path):
    from storage.tables import Manifest, part_path, write_manifest, write_part
    from storage.units import Part, UnitRecord

    expected = {"a": ["dog", "sky"], "b": []}
    rows = [
        *({"key": key, "concepts": concepts} for key, concepts in expected.items()),
        {"key": "z", "concepts": ["x"]},
    ]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    table = pa.table({"key": [row["key"] for row in rows], "concepts": [row["concepts"] for row in rows]})
    (tmp_path / "folder").mkdir()
    pq.write_table(table.slice(0, 1), tmp_path / "folder" / "0.parquet")
    pq.write_table(table.slice(1), tmp_path / "folder" / "1.parquet")
    padded = pa.table(
        {
            "key": ["a", "b"],
            "archive_concepts": pa.array([["dog", "sky"], ["", ""]], pa.list_(pa.string(), 2)),
        }
    )
    pq.write_table(padded, tmp_path / "padded.parquet")
    workspace = tmp_path / "workspace"
    file = part_path("r", "demo/0", 0)
    write_part(str(workspace / "archives"), file, table, table.schema)
    unit = UnitRecord("demo/0", (Part("demo/0", file, 3),), 3)
    write_manifest(
        Manifest("archives", str(workspace), "build_archives", "r", {}, {}, {}, "1", "complete", [unit])
    )
    for source in ("t.jsonl", "folder", "folder/0.parquet", "padded.parquet", "workspace"):
        found = read_archives(str(tmp_path / source), ["a", "b", "c"])
        assert found == ({"a": ["dog", "sky"]} if source == "folder/0.parquet" else expected), source


@pytest.fixture
def files(tmp_path):
    truth = [
        {"key": "a", "labels": ["dog", "<b>sky</b>"], "areas": [25, 75], "caption": "a $dog$"},
        {"key": "b", "labels": ["dog"], "areas": [0.2], "caption": "nothing"},
    ]
    (tmp_path / "truth.jsonl").write_text("\n".join(map(json.dumps, truth)))
    (tmp_path / "archives.jsonl").write_text('{"key": "a", "concepts": ["sky", "<i>day</i>"]}')
    (tmp_path / "synonyms.json").write_text('{"<b>sky</b>": ["sky"]}')
    return tmp_path


def test_the_command_writes_results_and_a_page_that_asks_nobody(files, capsys):
    out = files / "out"
    arguments = ["--truth", f"{files}/truth.jsonl", "--synonyms", f"{files}/synonyms.json", "--depth", "5"]
    assert main([*arguments, "--archives", f"<x>={files}/archives.jsonl", "--out", str(out)]) == 0
    results = json.loads((out / "results.json").read_text())
    assert results["caption_recall"] == pytest.approx(0.25)
    assert results["archives"]["<x>"]["visible"]["recall_at_1"] == 0.5
    assert results["archives"]["<x>"]["missing"]["recall_at_1"] == 1.0
    assert [row["caption"] for row in results["by_area"]] == [
        pytest.approx(1 / 3),
        None,
        None,
        pytest.approx(1 / 3),
    ]
    assert any("1 of 2 pictures have no archive" in note for note in results["notes"])
    page = (out / "index.html").read_text()
    assert "&lt;b&gt;sky&lt;/b&gt;" in page
    assert not any(text in page for text in ("<b>sky", "<i>day", "<x>", "http://", "https://", "<script"))
    shown = capsys.readouterr().out
    assert "captions name 25.0%" in shown
    assert str(out / "index.html") in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--truth", "{}/none.jsonl"], "no such file"),
        (["--truth", "{}"], "--classes"),
        (["--truth", "{}/truth.jsonl", "--area-bins", "5,1"], "rising"),
        (["--truth", "{}/truth.jsonl", "--archives", "{}/archives.jsonl", "--archives", "{}/archives.jsonl"], "NAME=TABLE"),
        (["--truth", "{}/truth.jsonl", "--archives", "{}/truth.jsonl"], "line 1"),
        (["--truth", "{}/truth.jsonl", "--archives", "{}/nothing"], "build_archives"),
        (["--truth", "{}/truth.jsonl", "--captions", "{}/other.jsonl"], "none of its keys"),
        (["--truth", "{}/other.jsonl"], "one caption"),
        (["--truth", "{}/bad.jsonl"], "line 2"),
        (["--truth", "{}/truth.jsonl", "--key", "id"], "--key FIELD"),
        (["--truth", "{}/truth.jsonl", "--synonyms", "{}/list.json"], "found a list"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line(files, arguments, message):
    (files / "other.jsonl").write_text('{"key": "q", "caption": "a dog"}')
    (files / "bad.jsonl").write_text('{"key": "q", "labels": ["dog"]}\n{"key": ')
    (files / "list.json").write_text("[]")
    with pytest.raises(UserError, match=message):
        main([*(text.format(files) for text in arguments), "--out", str(files / "out")])
    assert not (files / "out").exists()


def test_archives_of_another_corpus_are_refused_with_both_kinds_of_keys(files):
    with pytest.raises(UserError, match="'a'.*'q'"):
        read_archives(f"{files}/archives.jsonl", ["q"])


def test_the_own_caption_comes_first_wherever_it_stands(tmp_path):
    (tmp_path / "t.jsonl").write_text('{"key": 7, "captions": ["x", "own", "y"], "caption": "own"}')
    assert read_pictures(tmp_path / "t.jsonl") == [Picture("7", captions=("own", "x", "y"))]
    assert read_captions(tmp_path / "t.jsonl") == {"7": ("own", "x", "y")}


def test_areas_are_shares_or_pixels(tmp_path):
    rows = [
        {"key": "a", "labels": ["x", "y"], "areas": [0.25, 0.5]},
        {"key": "b", "labels": ["x", "y"], "areas": [10, 30]},
        {"key": "c", "labels": ["x", "y"], "areas": [10, 30], "width": 10, "height": 10},
    ]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    areas = [picture.areas for picture in read_pictures(tmp_path / "t.jsonl")]
    assert areas == [(0.25, 0.5), (0.25, 0.75), (0.1, 0.3)]
    rows[2]["areas"] = [1]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(UserError, match="line 3: 'areas'"):
        read_pictures(tmp_path / "t.jsonl")


def test_a_key_that_stands_twice_is_refused(tmp_path):
    (tmp_path / "t.jsonl").write_text('{"key": "a", "labels": []}\n{"key": "a", "labels": []}')
    with pytest.raises(UserError, match="twice"):
        read_pictures(tmp_path / "t.jsonl")


def test_the_gap_of_real_coco_photos_is_the_one_measured_by_hand(real_data):
    """One caption names 36 % of the classes in the masks, any of five 53 %; 11, 30 and 63 % by area."""
    folder = real_data / "coco-captions-masks"
    classes = read_classes(folder / "classes.json")
    captions = read_captions(folder / "pairs.jsonl", "file")
    matcher = LabelMatcher(
        list(classes.values()),
        read_synonyms(Path(evaluation.semantic_gap.__file__).parent / "coco_synonyms.json"),
    )
    truth = build_truth(with_captions(read_masks(folder / "masks", classes), captions, stems=True), matcher)
    rows = measure_gap(truth, matcher, {}).areas
    assert [row["visible"] for row in rows] == [1233, 432, 328, 473]
    assert [row["caption"] for row in rows] == pytest.approx([0.36, 0.11, 0.30, 0.63], abs=0.03)
    assert rows[0]["any caption"] == pytest.approx(0.53, abs=0.02)


def test_ranks_of_labels_that_no_concept_names_stay_open():
    matcher = LabelMatcher(["dog", "sky"])
    truth = build_truth([Picture("a", ("dog", "sky"))], matcher)
    assert measure(truth, label_ranking(truth, {"a": ["sky"]}, matcher)).ranks.tolist() == [NOT_FOUND, 0]


def test_masks_saved_as_grey_pictures_count_alike_and_colours_are_refused(tmp_path):
    mask = np.array([[0, 1], [1, 2]], np.uint8)
    for name, mode in (("a", "L"), ("b", "RGB"), ("c", "LA"), ("d", "RGBA")):
        Image.fromarray(mask).convert(mode).save(tmp_path / f"{name}.png")
    pictures = read_masks(tmp_path, {1: "cat", 2: "tree"})
    assert {(picture.labels, picture.areas) for picture in pictures} == {(("cat", "tree"), (0.5, 0.25))}
    Image.fromarray(np.dstack([mask, mask + 1, mask])).save(tmp_path / "e.png")
    with pytest.raises(UserError, match="e.png: .*in colours"):
        read_masks(tmp_path, {1: "cat"})
