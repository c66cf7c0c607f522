"""The forms for other trainers, each read by the code that it is for."""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

import models  # noqa: F401  (before open_clip)
from configs.schema import CocuConfig, ExportConfig
from corpora.ingest_shard import pairs_schema
from spark_jobs.export_training import table_job
from storage import tables
from tests import harness
from tests.spark_jobs.test_export_training import ARCHIVES, _archive, _pair, _write

COUNT, LENGTH = 25, 4


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    """Both forms of 24 pairs in three parts, by the job's own tasks."""
    folder = tmp_path_factory.mktemp("exported")
    pairs = [{**_pair(n), "url": f"https://example.org/{n}" if n % 3 else None} for n in range(COUNT)]
    manifest = _write(folder, "pairs", pairs, pairs_schema(["url"]))
    manifest.settings["ingest"] = {"columns": ["url"]}
    tables.write_manifest(manifest)
    _write(folder, "archives", [_archive(n) for n in range(COUNT) if n != 24], ARCHIVES)
    for stale in (
        "training_set_open_clip/old.tar",
        "training_set_hugging_face/data/train-00000-of-00009.parquet",
    ):
        (folder / stale).parent.mkdir(parents=True, exist_ok=True)
        (folder / stale).write_bytes(b"of an earlier training set")
    options = ExportConfig(archive_length=LENGTH, open_clip=True, hugging_face=True)
    job = table_job(CocuConfig(workspace=str(folder), export=options))
    records = [job.task(unit, f"{folder}/training_set", job.recipe) for unit in job.units]
    done = tables.Manifest(
        "training_set",
        str(folder),
        job.job,
        job.recipe,
        job.settings,
        job.inputs,
        {},
        "0",
        "complete",
        records,
    )
    job.finish(done)
    tables.write_manifest(done)
    return folder


def _expected(n):
    archive = _archive(n)
    return {
        "concepts": archive["concepts"][:LENGTH],
        "scores": archive["scores"][:LENGTH],
        "clusters": archive["clusters"][:LENGTH],
        "url": f"https://example.org/{n}" if n % 3 else None,
    }


KEPT = [n for n in range(COUNT) if n != 24]


def test_the_training_set_has_the_column(exported):
    rows = tables.read_parts(tables.read_manifest(str(exported), "training_set")).to_pylist()
    assert [row["url"] for row in rows] == [_expected(n)["url"] for n in KEPT]


def test_shards_for_open_clip_hold_archives_as_json(exported):
    folder = exported / "training_set_open_clip"
    assert sorted(path.name for path in folder.iterdir()) == [
        "sizes.json", "web--0-00000.tar", "web--0-00001.tar", "web--0-00002.tar"
    ]  # fmt: skip
    found = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                stem, _, suffix = member.name.partition(".")
                found.setdefault(stem, {})[suffix] = tar.extractfile(member).read()
    assert len(found) == len(KEPT)
    for n, files in zip(KEPT, found.values(), strict=True):
        assert files["txt"].decode() == _pair(n)["caption"]
        values = json.loads(files["json"])
        expected = _expected(n)
        np.testing.assert_allclose(values.pop("scores"), expected.pop("scores"), atol=1e-6)
        assert values == {"key": _pair(n)["key"], "caption": _pair(n)["caption"], **expected}


@pytest.mark.slow
def test_open_clips_own_loader_reads_them(exported):
    """open_clip_train.data, as `python -m open_clip_train.main --dataset-type webdataset` calls it."""
    from open_clip_train.data import get_wds_dataset

    args = argparse.Namespace(
        train_data=f"{exported}/training_set_open_clip/web--0-{{00000..00002}}.tar", train_num_samples=None,
        train_data_upsampling_factors=None, dataset_resampled=False, seed=0, world_size=1, workers=0, batch_size=8,
    )  # fmt: skip
    found = get_wds_dataset(
        args, lambda image: np.asarray(image).shape, is_train=True, tokenizer=lambda text: [text]
    )
    assert (found.dataloader.num_samples, found.dataloader.num_batches) == (24, 3)
    texts = [text for _, batch in found.dataloader for text in batch]
    assert sorted(texts) == sorted(_pair(n)["caption"] for n in KEPT)


def test_a_folder_as_hugging_face_has_it(exported):
    folder = exported / "training_set_hugging_face"
    files = sorted(path.name for path in (folder / "data").iterdir())
    assert files == [f"train-web--0-0000{n}.parquet" for n in range(3)]
    rows = [row for name in files for row in pq.read_table(folder / "data" / name).to_pylist()]
    for n, row in zip(KEPT, rows, strict=True):
        expected = _expected(n)
        assert (row["key"], row["caption"]) == (_pair(n)["key"], _pair(n)["caption"])
        assert row["image"]["bytes"] == _pair(n)["image"]
        assert {name: row[name] for name in expected} == expected
    text = (folder / "README.md").read_text()
    card = yaml.safe_load(text.split("---")[1])
    assert card["configs"][0]["data_files"] == [{"split": "train", "path": "data/train-*.parquet"}]
    assert card["size_categories"] == ["n<1K"]
    assert "24 pairs of web" in text
    assert "| `url` | as the source has it |" in text


def test_load_dataset_reads_it(exported, tmp_path):
    """By `datasets` itself, where there is a Python that has it."""
    python = os.environ.get("COCU_READERS_PYTHON") or str(harness.ROOT / ".venv-readers" / "bin" / "python")
    if not Path(python).exists():
        pytest.skip("no Python with `datasets`: make test-readers makes one, or set COCU_READERS_PYTHON")
    script = """
import io, json, sys
from datasets import Image, Sequence, load_dataset
rows = load_dataset(sys.argv[1], split="train")
assert isinstance(rows.features["image"], Image), rows.features
print(json.dumps([{**row, "image": row["image"].size} for row in rows]))
"""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    command = [python, "-c", script, str(exported / "training_set_hugging_face")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout.splitlines()[-1])
    for n, row in zip(KEPT, rows, strict=True):
        assert tuple(row["image"]) == Image.open(io.BytesIO(_pair(n)["image"])).size
        assert {name: row[name] for name in ("key", "caption")} == {
            name: _pair(n)[name] for name in ("key", "caption")
        }
        assert {name: row[name] for name in _expected(n)} == _expected(n)


def test_without_such_forms_recipes_stay_what_they_were(exported, tmp_path):
    for table in ("pairs", "archives"):
        (tmp_path / table).symlink_to(exported / table)
    plain = table_job(CocuConfig(workspace=str(tmp_path)))
    assert set(plain.settings) == {"archive_length", "row_group_rows", "webdataset", "max_words"}
    assert pa.types.is_string(
        pq.read_schema(tables.read_manifest(str(exported), "training_set").files[0]).field("url").type
    )
