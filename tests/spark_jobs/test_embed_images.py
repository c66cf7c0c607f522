"""Embeddings: those of the model itself, of length 1, whatever the batch, the memory and the images."""

from __future__ import annotations

import dataclasses
import io
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from configs.errors import UserError
from configs.schema import ClipConfig, CocuConfig, EmbedConfig, SparkConfig
from corpora.ingest_shard import PAIRS_SCHEMA
from models.clip import Clip, clip_fingerprint, load_clip
from spark_jobs import embed_images
from spark_jobs.embed_images import embed_unit
from spark_jobs.embedding import images as embedding
from spark_jobs.embedding.images import embed_pixels
from storage import tables
from storage.tables import Manifest
from storage.units import Part, Unit, UnitRecord
from storage.vectors import column_to_vectors
from tests import harness
from tests.corpora.ingest_inputs import jpeg
from tests.corpora.peak_memory import peak_growth

COUNT = 37


@pytest.fixture(scope="module")
def clip_config(tmp_path_factory):
    return ClipConfig(*harness.write_tiny_clip(tmp_path_factory.mktemp("clip")))


def _images(count=COUNT):
    return [jpeg(60 + n, 90 - n, n) for n in range(count)]


def _write_pairs(folder, images, size=10, name="web"):
    """A complete table of pairs in parts of ``size``."""
    records = []
    for start in range(0, len(images), size):
        some = images[start : start + size]
        part = f"{name}/0-{start // size:05d}"
        columns = {
            "key": [f"{name}/0/{start + n:04d}" for n in range(len(some))],
            "corpus": [name] * len(some),
            "image": some,
            "caption": ["a caption"] * len(some),
            "width": [1] * len(some),
            "height": [1] * len(some),
        }
        file = tables.part_path("r", part, 0)
        rows = tables.write_part(
            f"{folder}/pairs", file, pa.table(columns, schema=PAIRS_SCHEMA), PAIRS_SCHEMA
        )
        records.append(UnitRecord(part, (Part(part, file, rows),), rows))
    manifest = Manifest("pairs", str(folder), "ingest", "r", {}, {}, {}, "0", "complete", records)
    tables.write_manifest(manifest)
    return manifest


def _direct(clip_config, images):
    """open_clip's own preprocessing and forward pass, one image at a time, float64 and of length 1."""
    import open_clip  # not above: a Spark worker imports this module, and torchvision wants `models` before it

    name = load_clip(clip_config) and clip_config.name.rpartition("/")[2].removesuffix(".json")
    model, _, transform = open_clip.create_model_and_transforms(name, pretrained=clip_config.pretrained)
    model.eval()
    with torch.no_grad():
        vectors = [model.encode_image(transform(Image.open(io.BytesIO(i)))[None])[0] for i in images]
    found = torch.stack(vectors).double().numpy()
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def _cosines(found, expected):
    found = found.astype(np.float64)
    return (found * expected).sum(axis=1) / np.linalg.norm(found, axis=1)


def _unit(folder, clip_config, part=0, **options):
    manifest = tables.read_manifest(str(folder), "pairs")
    chosen = manifest.parts[part]
    address = tables.join(manifest.folder, chosen.file)
    payload = (address, clip_config, EmbedConfig(**options), clip_fingerprint(clip_config))
    return Unit(chosen.name, chosen.rows, payload)


def _run(unit, folder):
    record = embed_unit(unit, str(folder / "image_embeddings"), "recipe")
    rows = tables.read_file(tables.join(str(folder / "image_embeddings"), record.parts[0].file))
    rejects = []
    if record.reject_file:
        rejects = tables.read_file(
            tables.join(str(folder / "image_embeddings"), record.reject_file)
        ).to_pylist()
    assert record.rows_in == rows.num_rows + len(rejects)
    return rows, column_to_vectors(rows.column("embedding")), rejects


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_vectors_are_those_of_open_clip(tmp_path, clip_config, batch_size):
    images = _images()
    _write_pairs(tmp_path, images, size=COUNT)
    rows, vectors, rejects = _run(_unit(tmp_path, clip_config, batch_size=batch_size, threads=2), tmp_path)
    assert vectors.dtype == np.float16
    assert vectors.shape == (COUNT, 32)
    assert rejects == []
    assert rows.column("key").to_pylist() == [f"web/0/{n:04d}" for n in range(COUNT)]
    np.testing.assert_allclose(np.linalg.norm(vectors.astype(np.float64), axis=1), 1, atol=1e-3)
    assert _cosines(vectors, _direct(clip_config, images)).min() > 0.9999


def test_very_long_pictures_are_those_of_open_clip_too(tmp_path, clip_config):
    images = [jpeg(*size, n) for n, size in enumerate([(700, 20), (20, 701), (901, 33), (64, 900)])]
    _write_pairs(tmp_path, images, size=4)
    _, vectors, _ = _run(_unit(tmp_path, clip_config), tmp_path)
    assert _cosines(vectors, _direct(clip_config, images)).min() > 0.999


@pytest.mark.parametrize("size", [(65_000, 1), (1, 65_000), (65_000, 200)])
def test_a_picture_of_one_row_costs_no_gigabytes(clip_config, size):
    clip = load_clip(clip_config)
    image = Image.new("RGB", size, "red")
    peak, pixels = peak_growth(lambda: clip.prepare(image))
    assert peak < 30_000_000
    assert pixels.shape == (*clip.image_size, 3)
    assert np.abs(pixels.astype(int) - [255, 0, 0]).max() <= 1


def test_a_picture_that_does_not_fit_the_memory_is_a_reject(tmp_path, clip_config, monkeypatch):
    images = _images(3)
    _write_pairs(tmp_path, images, size=3)
    usual = Clip.prepare

    def prepare(self, image):
        if image.width == 61:
            raise MemoryError
        return usual(self, image)

    monkeypatch.setattr(Clip, "prepare", prepare)
    rows, _, rejects = _run(_unit(tmp_path, clip_config), tmp_path)
    assert rows.column("key").to_pylist() == ["web/0/0000", "web/0/0002"]
    assert [(row["key"], row["reason"]) for row in rejects] == [("web/0/0001", "unreadable_image")]


def test_left_to_itself_a_processor_with_tiles_computes_in_bf16(clip_config):
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    assert flags is not None
    clip = load_clip(dataclasses.replace(clip_config, precision="auto"), torch.device("cpu"))
    assert clip.precision == ("bf16" if "amx_bf16" in flags[1].split() else "fp32")


def test_precisions(tmp_path, clip_config):
    images = _images(12)
    expected = _direct(clip_config, images)
    _write_pairs(tmp_path, images, size=12)
    for precision, least in (("fp32", 0.9999), ("bf16", 0.995), ("fp16", 0.9995)):
        config = dataclasses.replace(clip_config, precision=precision)
        clip = load_clip(config)
        assert next(clip.model.parameters()).dtype == {"fp32": torch.float32, "bf16": torch.bfloat16}.get(
            precision, torch.float16
        )
        _, vectors, _ = _run(_unit(tmp_path, config), tmp_path)
        np.testing.assert_allclose(np.linalg.norm(vectors.astype(np.float64), axis=1), 1, atol=1e-3)
        assert least < _cosines(vectors, expected).min() <= 1.001, precision


class SmallMemory:
    """A Clip whose device takes only so many images at once, and some images never."""

    def __init__(self, clip, most, never=()):
        self._clip, self._most, self._never = clip, most, never
        self.sizes = []

    def __getattr__(self, name):
        return getattr(self._clip, name)

    def encode_images(self, pixels):
        self.sizes.append(len(pixels))
        if len(pixels) > self._most or any(int(image[0, 0, 0]) in self._never for image in pixels):
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore lines")
        return self._clip.encode_images(pixels)


@pytest.fixture
def fresh(monkeypatch):
    """What earlier batches taught about the memory is forgotten."""
    monkeypatch.setattr(embedding, "_fitting", {})


def _decoded(count):
    for row in range(count):
        pixels = np.zeros((64, 64, 3), np.uint8)
        pixels[0, 0, 0] = row
        pixels[8:40, row : row + 9] = 200
        yield row, pixels, None


def test_a_batch_that_does_not_fit_is_halved_until_it_does(clip_config, fresh, capsys):
    clip = load_clip(clip_config)
    small = SmallMemory(clip, 5)
    good, vectors, bad = embed_pixels(small, _decoded(40), 16)
    assert (good, bad) == (list(range(40)), [])
    assert small.sizes == [16, 8, *[4] * 10]  # and stays halved
    plain = embed_pixels(clip, _decoded(40), 16)[1]
    np.testing.assert_allclose(vectors.astype(np.float32), plain.astype(np.float32), atol=2e-3)
    assert capsys.readouterr().err.count("out of GPU memory") == 2
    small.sizes.clear()
    embed_pixels(small, _decoded(8), 16)
    assert small.sizes == [4, 4]  # the process has learnt it


def test_an_image_that_fails_alone_is_a_reject(clip_config, fresh):
    small = SmallMemory(load_clip(clip_config), 64, never=(3, 9))
    good, vectors, bad = embed_pixels(small, _decoded(12), 4)
    assert good == [0, 1, 2, 4, 5, 6, 7, 8, 10, 11]
    assert len(vectors) == 10
    assert [(row, reason) for row, reason, _ in bad] == [(3, "out_of_gpu_memory"), (9, "out_of_gpu_memory")]
    assert bad[0][2] == "CUDA out of memory. Tried to allocate 2 GiB"


def test_other_errors_are_not_swallowed(clip_config):
    class Broken(SmallMemory):
        def encode_images(self, pixels):
            raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        embed_pixels(Broken(load_clip(clip_config), 9), _decoded(3), 2)


def test_vectors_that_are_no_directions_are_rejects(clip_config):
    class Odd(SmallMemory):
        def encode_images(self, pixels):
            found = self._clip.encode_images(pixels)
            for row, image in enumerate(pixels):
                found[row] = {2: np.nan, 4: np.inf, 5: 0.0}.get(int(image[0, 0, 0]), found[row])
            return found

    good, vectors, bad = embed_pixels(Odd(load_clip(clip_config), 99), _decoded(7), 3)
    assert good == [0, 1, 3, 6]
    assert np.isfinite(vectors).all()
    assert [(row, reason) for row, reason, _ in bad] == [(n, "embedding_not_finite") for n in (2, 4, 5)]


def test_images_that_cannot_be_read_are_rejects_with_their_keys(tmp_path, clip_config):
    images = _images(9)
    images[0], images[5] = b"no image", images[5][:200]
    _write_pairs(tmp_path, images)
    rows, vectors, rejects = _run(_unit(tmp_path, clip_config, batch_size=2), tmp_path)
    kept = [0, 5]
    assert rows.column("key").to_pylist() == [f"web/0/{n:04d}" for n in range(9) if n not in kept]
    assert [(r["key"], r["stage"], r["reason"]) for r in rejects] == [
        (f"web/0/{n:04d}", "embed_images", "unreadable_image") for n in kept
    ]
    expected = _direct(clip_config, [image for n, image in enumerate(images) if n not in kept])
    assert _cosines(vectors, expected).min() > 0.9999


def test_all_images_bad_leaves_an_empty_part(tmp_path, clip_config):
    _write_pairs(tmp_path, [b"no", b"image"])
    rows, vectors, rejects = _run(_unit(tmp_path, clip_config), tmp_path)
    assert (rows.num_rows, vectors.shape[0], len(rejects)) == (0, 0, 2)


def test_another_checkpoint_on_an_executor_is_refused(tmp_path, clip_config):
    _write_pairs(tmp_path, _images(2))
    unit = _unit(tmp_path, clip_config)
    unit = dataclasses.replace(unit, payload=(*unit.payload[:3], "sha256:0000000000000000"))
    with pytest.raises(UserError, match="is another file than on the driver"):
        embed_unit(unit, str(tmp_path / "image_embeddings"), "recipe")


@pytest.mark.slow
def test_the_job_goes_on_where_it_was_stopped(spark, tmp_path, clip_config, capsys):
    images = _images()
    _write_pairs(tmp_path, images)
    config = CocuConfig(workspace=str(tmp_path), clip=clip_config, spark=SparkConfig(units_per_wave=2))
    victim = tables.read_manifest(str(tmp_path), "pairs").files[-1]
    kept = tmp_path / "kept"
    Path(victim).rename(kept)
    with pytest.raises(UserError, match="the manifest names this file and it is gone"):
        embed_images.run(spark, config)  # the last of four units fails
    done = harness.committed_units(tmp_path, "image_embeddings")
    assert 1 <= done <= 3
    assert tables.find_manifest(str(tmp_path), "image_embeddings") is None
    kept.rename(victim)
    capsys.readouterr()
    manifest = embed_images.run(spark, config)
    assert f"goes on; {done} of 4 units are done" in capsys.readouterr().out
    rows = harness.table_rows(tmp_path, "image_embeddings")
    assert rows.column("key").to_pylist() == [f"web/0/{n:04d}" for n in range(COUNT)]
    vectors = column_to_vectors(rows.column("embedding"))
    assert _cosines(vectors, _direct(clip_config, images)).min() > 0.9999
    assert manifest.rows == COUNT
    embed_images.run(spark, config)
    assert "nothing to do" in capsys.readouterr().out


def _by_unit(unit, folder, recipe):
    """As on two hosts of which one has a GPU: every other unit is computed in bf16 where it may choose."""
    address, clip, *more = unit.payload
    if clip.precision == "auto":
        clip = dataclasses.replace(clip, precision="bf16" if unit.name.endswith(("1", "3")) else "fp32")
    return embed_unit(dataclasses.replace(unit, payload=(address, clip, *more)), folder, recipe)


def test_two_precisions_in_a_table_are_refused_and_the_first_is_gone_on_with(
    spark, tmp_path, clip_config, monkeypatch, capsys
):
    images = _images()
    _write_pairs(tmp_path, images)
    monkeypatch.setattr(embed_images, "embed_unit", _by_unit)
    config = CocuConfig(workspace=str(tmp_path), clip=clip_config)
    with pytest.raises(UserError) as refused:  # all in one wave: nothing is committed
        embed_images.run(spark, config)
    assert re.fullmatch(
        r"embed_images: clip.precision=auto gave fp32 \(unit web/0-00000 on host \S+\) and bf16 \(unit web/0-00001 on "
        r"host \S+\), and a table holds one precision; write clip.precision=fp32 or clip.precision=bf16",
        str(refused.value),
    )
    assert harness.committed_units(tmp_path, "image_embeddings") == 0
    config.spark.units_per_wave = 2  # two waves of one are under way: one is first
    with pytest.raises(
        UserError, match="committed before.*, or run again to go on in (fp32|bf16)"
    ) as refused:
        embed_images.run(spark, config)
    settled = re.search("go on in (fp32|bf16)", str(refused.value))[1]
    assert harness.committed_units(tmp_path, "image_embeddings") >= 1
    capsys.readouterr()
    manifest = embed_images.run(spark, config)
    assert f"goes on in {settled}, as it was begun" in capsys.readouterr().out
    assert manifest.extra["precision"] == settled
    assert [record.extra for record in manifest.units] == [{"precision": settled}] * 4
    clip = load_clip(dataclasses.replace(clip_config, precision=settled))
    vectors = column_to_vectors(harness.table_rows(tmp_path, "image_embeddings").column("embedding"))
    decoded = [clip.prepare(Image.open(io.BytesIO(image))) for image in images]
    _, expected, _ = embed_pixels(clip, ((n, pixels, "") for n, pixels in enumerate(decoded)), 64)
    np.testing.assert_allclose(vectors.astype(np.float32), expected.astype(np.float32), atol=1e-3)
