import hashlib
import io
import json
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from configs.errors import UserError
from configs.schema import CorpusConfig, IngestConfig
from corpora.ingest_shard import ingest_shard
from corpora.shards import list_shards
from demo.generate import Parameters, generate, main
from demo.samples import EVALUATION_STREAM, ODD_KINDS, PAIR_STREAM
from demo.world.scenes import GROUND_LABELS, LABELS, THINGS, make_scene

SEED = 3


def _tree(folder):
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _truth(folder):
    return [json.loads(line) for line in (folder / "truth.jsonl").read_text().splitlines()]


def _members(path):
    """name -> bytes of a tar's whole members, in order; the second value says whether the tar ends early."""
    found = []
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                found.append((member.name, archive.extractfile(member).read()))
    except (tarfile.ReadError, OSError):
        return found, True
    return found, False


@pytest.fixture(scope="module")
def ingested(demo_data):
    corpus = CorpusConfig(name="demo", format="webdataset", path=str(demo_data / "shards" / "*.tar"))
    chunks = [chunk for shard in list_shards(corpus) for chunk in ingest_shard(shard, IngestConfig())]
    pairs = [row for chunk in chunks for row in chunk.pairs.to_pylist()]
    return pairs, [row for chunk in chunks for row in chunk.rejects.to_pylist()]


def test_ingest_takes_exactly_the_pairs_of_the_truth(demo_data, ingested):
    assert [row["key"] for row in ingested[0]] == [row["key"] for row in _truth(demo_data)]
    assert len(ingested[0]) == 90


def test_ingest_rejects_exactly_what_broken_json_lists(demo_data, ingested):
    broken = json.loads((demo_data / "broken.json").read_text())
    assert Counter((b["key"], b["reason"]) for b in broken) == Counter(
        (r["key"], r["reason"]) for r in ingested[1]
    )
    assert len({b["reason"] for b in broken}) >= 8


def test_odd_formats_show_their_scene(demo_data, ingested):
    pictures = {row["key"]: row["image"] for row in ingested[0]}
    odd = [row for row in _truth(demo_data) if row["kind"] != "plain"]
    assert {row["kind"] for row in odd} == set(ODD_KINDS)
    for row in odd:
        scene = make_scene((SEED, PAIR_STREAM, row["scene"])).image
        shown = np.asarray(Image.open(io.BytesIO(pictures[row["key"]])).convert("L"), np.float64)
        wanted = np.asarray(Image.fromarray(scene).convert("L"), np.float64)
        assert shown.shape == wanted.shape, row["kind"]
        assert np.abs(shown - wanted).mean() < 20, row["kind"]
        assert np.corrcoef(shown.ravel(), wanted.ravel())[0, 1] > 0.97, row["kind"]


def test_truth_is_that_of_the_scene(demo_data):
    for row in _truth(demo_data)[::4]:
        mask = make_scene((SEED, PAIR_STREAM, row["scene"])).mask
        pixels = np.bincount(mask.ravel(), minlength=len(LABELS))
        assert row["areas"] == [int(pixels[LABELS.index(label)]) for label in row["labels"]]
        assert set(row["named"]) <= set(row["labels"])


def test_tars_have_the_layout_of_img2dataset(tmp_path):
    out = tmp_path / "two"
    generate(out, Parameters(pairs=24, eval_scenes=0, seed=1), processes=1)
    members, cut = _members(out / "shards" / "00000.tar")
    assert cut
    names = [name for name, _ in members]
    assert names[:3] == ["000000000.jpg", "000000000.json", "000000000.txt"]
    content = dict(members)
    metadata = json.loads(content["000000000.json"])
    assert list(metadata) == (
        "caption url key status error_message width height original_width original_height exif sha256".split()
    )
    assert metadata["sha256"] == hashlib.sha256(content["000000000.jpg"]).hexdigest()
    assert metadata["caption"] == content["000000000.txt"].decode()
    assert Image.open(io.BytesIO(content["000000000.jpg"])).size == (metadata["width"], metadata["height"])
    table = pq.read_table(out / "shards" / "00000.parquet")
    assert table.column_names == list(metadata)
    stats = json.loads((out / "shards" / "00000_stats.json").read_text())
    assert stats["count"] == table.num_rows == 24 + 9
    assert {"successes", "failed_to_download", "failed_to_resize", "duration", "status_dict"} < set(stats)


def test_only_the_last_tar_ends_early(tmp_path):
    out = tmp_path / "three"
    generate(out, Parameters(pairs=620, eval_scenes=0, seed=1), processes=2)
    shards = sorted((out / "shards").glob("*.tar"))
    assert [_members(path)[1] for path in shards] == [False, True]
    assert len(_truth(out)) == 620


def test_voc_masks_are_those_of_the_scenes(demo_data):
    classes = json.loads((demo_data / "classes.json").read_text())
    assert classes == [*THINGS, *GROUND_LABELS]
    root = demo_data / "VOCdevkit" / "VOC2012"
    names = (root / "ImageSets" / "Segmentation" / "val.txt").read_text().split()
    assert len(names) == 6
    for number, name in enumerate(names):
        scene = make_scene((SEED, EVALUATION_STREAM, number))
        mask = Image.open(root / "SegmentationClass" / f"{name}.png")
        assert mask.mode == "P"
        assert mask.getpalette()[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]
        assert [classes[n] for n in np.unique(mask)] == [LABELS[n] for n in np.unique(scene.mask)]
        np.testing.assert_array_equal(np.asarray(mask), scene.mask)
        picture = np.asarray(Image.open(root / "JPEGImages" / f"{name}.jpg"), np.float64)
        assert np.abs(picture - scene.image).mean() < 8


def test_the_same_parameters_write_the_same_bytes(demo_data, tmp_path):
    again = tmp_path / "again"
    generate(again, Parameters(pairs=90, eval_scenes=6, seed=SEED), processes=1)
    assert _tree(again) == _tree(demo_data)


def test_a_second_run_touches_nothing_and_other_parameters_replace(tmp_path):
    out = tmp_path / "out"
    small = Parameters(pairs=20, eval_scenes=1, seed=0)
    assert generate(out, small, processes=1)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert not generate(out, small, processes=1)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    assert generate(out, Parameters(pairs=21, eval_scenes=1, seed=0), processes=1)
    assert len(_truth(out)) == 21
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_a_folder_of_someone_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match="other things in it"):
        main(["--out", str(tmp_path), "--pairs", "20"])
    assert Path(tmp_path / "thesis.tex").read_text() == "mine"


def test_too_few_pairs_are_refused(tmp_path):
    with pytest.raises(UserError, match="at least 20"):
        main(["--out", str(tmp_path / "x"), "--pairs", "3"])
