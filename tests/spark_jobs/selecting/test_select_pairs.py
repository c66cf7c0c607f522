"""Scores, filters, and the steps that obey a selection."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.errors import UserError
from configs.loading import load_config
from configs.schema import ClipConfig, EmbedConfig, FilterConfig
from corpora.ingest_shard import pairs_schema
from models.clip import clip_fingerprint, load_clip
from spark_jobs import pipeline, select_pairs
from spark_jobs.embed_images import embed_unit
from spark_jobs.selecting.filters import uid_numbers
from storage import tables
from storage.selection import read_selected
from storage.units import Unit
from storage.vectors import column_to_vectors, vectors_to_column
from tests import harness
from tests.corpora.ingest_inputs import jpeg
from tests.spark_jobs.workspaces import link_tables, write_table

UIDS = [f"{number * 7919:016x}{number:016x}" for number in range(8)]
# size, score, caption, and by which filters below a pair goes
ROWS = [
    ((200, 150), 0.31, "a dog near a tree", ()),
    ((200, 150), 0.05, "a small house on the hill", ("low_score",)),
    ((100, 90), 0.40, "two boats and a bridge", ("small_image",)),
    ((500, 130), 0.35, "the river in the evening", ("long_image",)),
    ((130, 500), 0.02, "a horse runs over the field", ("low_score", "long_image")),
    ((200, 150), 0.33, "Zwei kleine Hunde spielen im Garten hinter dem Haus", ("other_language",)),
    ((200, 150), float("nan"), "a clock and a chair", ("low_score", "not_listed")),
    ((200, 150), 0.28, "a bicycle in front of a train", ()),
]
ORDER = ["low_score", "small_image", "long_image", "other_language", "not_listed"]


@pytest.fixture
def workspace(tmp_path):
    """Tables of these rows in two parts; row 3 of pairs is one that could not be embedded, and is no row above."""
    pairs, images = {}, {}
    for part, numbers in (("web/0-00000", range(5)), ("web/0-00001", range(5, 8))):
        rows = [
            (f"web/0/{n}", "web", b"", ROWS[n][2], *ROWS[n][0], UIDS[n] if n != 7 else UIDS[n].upper())
            for n in numbers
        ]
        lost = [("web/0/lost", "web", b"", "x", 1, 1, None)] if part.endswith("0") else []
        columns = zip(*[*rows[:2], *lost, *rows[2:]], strict=True)
        schema = pairs_schema(["uid"])
        pairs[part] = pa.table([list(column) for column in columns], schema=schema)
        images[part] = pa.table(
            {
                "key": [f"web/0/{n}" for n in numbers],
                "embedding": vectors_to_column(np.eye(len(numbers), 8), 8),
                "image_text_score": pa.array([ROWS[n][1] for n in numbers], pa.float32()),
            }
        )
    manifest = write_table(tmp_path, "pairs", "ingest", pairs, "pairs")
    manifest.settings["ingest"] = {"columns": ["uid"], "short_side": 256}
    tables.write_manifest(manifest)
    write_table(tmp_path, "image_embeddings", "embed_images", images, "images")
    listed = np.array(
        [tuple(uid_numbers([uid])[0]) for n, uid in enumerate(UIDS) if n not in (2, 6)], "u8,u8"
    )
    np.save(tmp_path / "a.npy", np.sort(listed))
    pq.write_table(pa.table({"uid": [UIDS[2], None]}), tmp_path / "b.parquet")
    return tmp_path


def _config(workspace, *options):
    filters = [
        "filters.min_score=0.28", "filters.min_side=120", "filters.max_aspect=3", "filters.languages=[en]",
        f"filters.uids=[{workspace}/a.npy,{workspace}/b.parquet]",
    ]  # fmt: skip
    return load_config(None, [f"workspace={workspace}", *filters, *options])


def _built(config):
    """The selection by the job's own tasks, without Spark."""
    select_pairs.check(config)
    job = select_pairs.table_job(config)
    records = [job.task(unit, f"{config.workspace}/selection", job.recipe) for unit in job.units]
    manifest = tables.Manifest(
        "selection",
        config.workspace,
        job.job,
        job.recipe,
        job.settings,
        job.inputs,
        {},
        "0",
        "complete",
        records,
    )
    job.finish(manifest)
    tables.write_manifest(manifest)
    return manifest


def test_each_pair_goes_by_its_first_filter(workspace):
    manifest = _built(_config(workspace))
    assert tables.read_parts(manifest).column("key").to_pylist() == ["web/0/0", "web/0/7"]
    rejects = {row["key"]: row["reason"] for row in tables.read_rejects(manifest).to_pylist()}
    assert rejects == {f"web/0/{n}": row[3][0] for n, row in enumerate(ROWS) if row[3]}
    assert manifest.rows_in == len(ROWS)
    lines = [line.split() for line in manifest.extra["text"].splitlines()[1:]]
    alone = {reason: sum(reason in row[3] for row in ROWS) for reason in ORDER}
    only = {reason: sum(row[3] == (reason,) for row in ROWS) for reason in ORDER}
    assert {line[0]: (int(line[1]), int(line[3])) for line in lines[:-2]} == {
        reason: (alone[reason], only[reason]) for reason in ORDER
    }
    assert lines[-1] == ["left", "2", "of", "8", "pairs"]


@pytest.mark.parametrize("number", range(5))
def test_each_filter_alone(workspace, number):
    whole = _config(workspace).filters
    names = [("min_score",), ("min_side",), ("max_aspect",), ("languages",), ("uids",)][number]
    config = _config(workspace)
    config.filters = FilterConfig(**{name: getattr(whole, name) for name in names})
    manifest = _built(config)
    assert manifest.rejects == {ORDER[number]: sum(ORDER[number] in row[3] for row in ROWS)}


def test_tables_are_read_through_the_selection(workspace):
    config = _config(workspace, "filters.languages=[]", "filters.min_side=0")
    _built(config)
    kept = [n for n, row in enumerate(ROWS) if not set(row[3]) & {"low_score", "long_image", "not_listed"}]
    for name, columns in (("pairs", ["caption"]), ("image_embeddings", None)):
        manifest = read_selected(config, name)
        assert manifest.rows == len(kept)
        assert manifest.recipe != tables.read_manifest(str(workspace), name).recipe
        rows = tables.read_parts(manifest, columns)
        assert rows.column_names == (columns or ["key", "embedding", "image_text_score"])
        if name == "pairs":
            assert rows.column("caption").to_pylist() == [ROWS[n][2] for n in kept]
        else:
            assert rows.column("key").to_pylist() == [f"web/0/{n}" for n in kept]
            assert column_to_vectors(rows.column("embedding")).shape == (len(kept), 8)
    plain = dataclasses.replace(config, filters=FilterConfig())
    assert read_selected(plain, "pairs").rows == len(ROWS) + 1
    other = dataclasses.replace(config, filters=FilterConfig(min_side=7))
    with pytest.raises(UserError, match=r"made by other filters .* overwrite=\[selection\]"):
        read_selected(other, "pairs")


WRONG = {
    "score": (["filters.uids=[]"], "no_scores", "run embed_images with embed.text_score=true"),
    "side": (["filters.min_side=500"], "", "filters.min_side=500 is above ingest.short_side=256"),
    "column": (["filters.uid_column=id"], "", "needs the column 'id' in pairs; ingest with ingest.columns=\\[id\\]"),
    "language": (["filters.languages=[english]"], "", "'english' is not known; there are .*de, .*en"),
    "list": (["filters.uids=[{}/plain.npy]"], "", "plain.npy: neither a .npy of two uint64"),
    "gone": (["filters.uids=[{}/no.npy]"], "", "no.npy: no such file"),
    "none": (["filters.min_score=-1", "filters.min_side=0", "filters.max_aspect=0", "filters.languages=[]", "filters.uids=[]"], "", "no filter is set"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_mistakes(workspace, what):
    options, without, message = WRONG[what]
    np.save(workspace / "plain.npy", np.zeros(3))
    if without:
        rows = {
            "web/0-00000": pa.table({"key": ["web/0/0"], "embedding": vectors_to_column(np.eye(1, 8), 8)})
        }
        write_table(workspace, "image_embeddings", "embed_images", rows, "plain")
    config = _config(workspace, "filters.languages=[]", *[option.format(workspace) for option in options])
    with pytest.raises(UserError, match=message):
        select_pairs.check(config)


def test_filters_that_leave_nothing(workspace):
    with pytest.raises(UserError, match="the filters leave no pair"):
        _built(_config(workspace, "filters.min_score=0.99", "filters.languages=[]"))


def test_the_score_is_the_cosine_of_image_and_caption(tmp_path):
    clip_config = ClipConfig(*harness.write_tiny_clip(tmp_path / "clip"))
    images = [jpeg(60 + n, 90, n) for n in range(5)]
    images[2] = b"no image"
    captions = [f"a {word} near a tree" for word in harness.WORDS[:5]]
    keys = [f"web/0/{n}" for n in range(5)]
    columns = [keys, ["web"] * 5, images, captions, [1] * 5, [1] * 5]
    manifest = write_table(
        tmp_path, "pairs", "ingest", {"web/0-00000": pa.table(columns, schema=pairs_schema())}, "p"
    )
    payload = (manifest.files[0], clip_config, EmbedConfig(text_score=True), clip_fingerprint(clip_config))
    record = embed_unit(Unit("web/0-00000", 5, payload), f"{tmp_path}/image_embeddings", "r")
    rows = tables.read_file(f"{tmp_path}/image_embeddings/{record.parts[0].file}")
    assert rows.column("key").to_pylist() == [keys[n] for n in (0, 1, 3, 4)]
    texts = load_clip(clip_config).encode_texts([captions[n] for n in (0, 1, 3, 4)]).astype(np.float64)
    vectors = column_to_vectors(rows.column("embedding")).astype(np.float64)
    np.testing.assert_allclose(
        rows.column("image_text_score").to_numpy(), (vectors * texts).sum(axis=1), atol=1e-6
    )
    assert len(set(rows.column("image_text_score").to_pylist())) == 4


def _above_most(workspace) -> float:
    """A similarity that some ten pairs of images are above."""
    images = tables.read_parts(tables.read_manifest(str(workspace), "image_embeddings"), ["embedding"])
    vectors = column_to_vectors(images.column("embedding")).astype(np.float64)
    tenth = np.sort((vectors @ vectors.T)[np.triu_indices(len(vectors), 1)])[-10]
    return min(0.999, round(float(tenth), 5))


@pytest.mark.slow
def test_every_later_step_obeys(spark, curated, tmp_path):
    """Half of a curated corpus, one of each near-duplicate: the same tables as of a corpus that never had the others."""
    link_tables(curated.workspace, tmp_path)
    for name in ("concepts", "pair_concepts", "probe", "index", "archives", "training_set", "metrics"):
        (tmp_path / name).unlink()
    options = [
        f"workspace={tmp_path}",
        "filters.max_aspect=1.4",  # every other image is longer
        "filters.duplicates=one",
        f"duplicates.similarity={_above_most(curated.workspace)}",
    ]
    config = load_config(str(curated.folder / "config.yaml"), options)
    pipeline.check(config)
    assert "find_duplicates" in pipeline.plan(config)
    summary = pipeline.run(spark, config)
    selection = tables.read_manifest(str(tmp_path), "selection")
    kept = set(tables.read_parts(selection).column("key").to_pylist())
    assert 0 < selection.rejects["duplicate_image"] < 40
    assert 55 < len(kept) + selection.rejects["duplicate_image"] < 75
    assert summary["pairs_out"] == len(kept)
    assert summary["rejects"]["duplicate_image"] == selection.rejects["duplicate_image"]
    assert '<p class="soft">Duplicates: ' in (tmp_path / "report.html").read_text()
    captions = tables.read_parts(tables.read_manifest(str(tmp_path), "pair_concepts"))
    archives = tables.read_parts(tables.read_manifest(str(tmp_path), "archives"))
    assert set(captions.column("key").to_pylist()) == set(archives.column("key").to_pylist()) == kept
    assert {key for row in archives.column("neighbours").to_pylist() for key in row} <= kept
    index = tables.read_manifest(str(tmp_path), "index")
    assert index.extra["index"]["rows"] == len(kept)
    concepts = tables.read_parts(tables.read_manifest(str(tmp_path), "concepts"))
    counts = dict(
        zip(concepts.column("concept").to_pylist(), concepts.column("count").to_pylist(), strict=True)
    )
    texts = tables.read_parts(read_selected(config, "pairs"), ["caption"]).column("caption").to_pylist()
    for word, count in counts.items():
        assert count == sum(word in text for text in texts), word
