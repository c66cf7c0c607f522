"""find_duplicates through Spark: the table against all cosines, however it is cut, killed on the way, and what obeys it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from scipy.sparse.csgraph import connected_components

from configs.errors import UserError
from configs.loading import load_config
from spark_jobs import find_duplicates, select_pairs
from spark_jobs.engine import commits
from spark_jobs.engine.entry import next_command
from storage import tables
from storage.selection import read_selected
from storage.vectors import vectors_to_column
from tests.curation.index.test_distinct import beside
from tests.curation.synthetic import make_corpus
from tests.spark_jobs.workspaces import write_table

SIMILARITY, PART = 0.96, 60
CORPORA = {"web": 500, "mine": 220}


def write_images(workspace: Path, part_rows: int, scored: bool = True, added: int = 0) -> dict[str, list]:
    """Embeddings of two corpora: exact copies, noisy ones and chains, within and across them; keys fall as rows rise."""
    rng = np.random.default_rng(0)
    corpus = make_corpus(sum(CORPORA.values()), d=24, groups=200, noise=1.0)
    vectors = corpus.vectors.astype(np.float64)
    vectors[510:530] = vectors[20:40]  # of the other corpus
    for row in range(40, 60):
        vectors[row + 500] = beside(vectors[row], 0.98, rng)
    for row in range(100, 130):
        vectors[row + 50] = beside(vectors[row], 0.975, rng)
        vectors[row + 470] = beside(vectors[row + 50], 0.975, rng)
    vectors[300:340] = [beside(vectors[7], 0.99, rng) for _ in range(40)]
    vectors = np.concatenate([vectors, vectors[200 : 200 + added]]).astype(np.float16)
    # Half the photos are wide; the scores are few.
    scores = rng.integers(0, 4, len(vectors)).astype(np.float32) / 4
    wide = rng.random(len(vectors)) < 0.5
    keys, images, pairs, start = [], {}, {}, 0
    for name, count in {**CORPORA, "mine": CORPORA["mine"] + added}.items():
        own = [f"{name}/00000/{9999 - number:05d}" for number in range(count)]
        for begin in range(0, count, part_rows):
            some, part = own[begin : begin + part_rows], f"{name}/00000-{begin // part_rows:05d}"
            rows = slice(start + begin, start + begin + len(some))
            images[part] = pa.table({"key": some, "embedding": vectors_to_column(vectors[rows], 24)})
            if scored:
                images[part] = images[part].append_column("image_text_score", pa.array(scores[rows]))
            sizes = [[200 if one else 100 for one in wide[rows]], [100] * len(some)]
            pairs[part] = pa.table({"key": some, "width": sizes[0], "height": sizes[1]})
        keys += own
        start += count
    write_table(workspace, "image_embeddings", "embed_images", images, f"images{part_rows}{scored}{added}")
    manifest = write_table(workspace, "pairs", "ingest", pairs, "pairs")
    manifest.settings["ingest"] = {"short_side": 256}
    tables.write_manifest(manifest)
    cosines = vectors.astype(np.float64) @ vectors.astype(np.float64).T
    np.fill_diagonal(cosines, -1)
    labels = connected_components(cosines > SIMILARITY, directed=False)[1].tolist()
    if not scored:
        scores[:] = 0
    order = sorted(range(len(keys)), key=lambda row: (-scores[row], keys[row]))
    members = {label: [row for row in order if labels[row] == label] for label in dict.fromkeys(labels)}
    groups = [rows for rows in members.values() if len(rows) > 1]
    return {"keys": keys, "groups": groups, "wide": wide, "scores": scores, "nearest": cosines.max(axis=1)}


def config_of(workspace: Path, *options: str):
    sources = json.dumps([{"name": name, "path": "unused"} for name in CORPORA])
    return load_config(None, [f"workspace={workspace}", f"corpora={sources}", *options])


def found(spark, workspace: Path, *options: str) -> pa.Table:
    config = config_of(workspace, *options)
    find_duplicates.check(config)
    return tables.read_parts(find_duplicates.run(spark, config))


@pytest.fixture(scope="module")
def truth(tmp_path_factory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("images")
    return folder, write_images(folder, PART)


@pytest.fixture(scope="module")
def table(spark, truth) -> pa.Table:
    return found(spark, truth[0])


def test_the_table_is_what_all_cosines_say(truth, table):
    folder, wanted = truth
    keys = wanted["keys"]
    assert 60 < len(wanted["groups"]) < 120
    assert max(map(len, wanted["groups"])) > 40
    expected = {}
    for number, rows in enumerate(wanted["groups"]):
        for place, row in enumerate(rows):
            expected[row] = {
                "key": keys[row],
                "group": number,
                "place": place,
                "representative": keys[rows[0]],
            }
    rows = table.drop_columns(["similarity"]).to_pylist()
    assert rows == [expected[row] for row in sorted(expected)]
    near = [wanted["nearest"][row] for row in sorted(expected)]
    np.testing.assert_allclose(table.column("similarity").to_numpy(), near, atol=1e-6)
    manifest = tables.read_manifest(str(folder), "duplicates")
    images = tables.read_manifest(str(folder), "image_embeddings")
    assert [part.name for part in manifest.parts] == [part.name for part in images.parts]
    assert manifest.rows_in == len(keys)
    assert manifest.extra["largest"] == max(map(len, wanted["groups"]))
    # Nothing else is left.
    assert sorted(path.name for path in folder.iterdir()) == [
        "duplicates",
        "image_embeddings",
        "metrics",
        "pairs",
    ]


def test_a_second_run_does_nothing(spark, truth, table, capsys):
    assert found(spark, truth[0]).equals(table)
    text = capsys.readouterr().out
    assert f"duplicates is complete ({len(table)} rows); nothing to do" in text
    assert "images are in" in text


def test_parts_tasks_splits_and_lists_change_nothing(spark, table, tmp_path, monkeypatch):
    write_images(tmp_path, 37)
    monkeypatch.setattr(find_duplicates, "_LEAST_TASKS", 3)
    budget = sum(CORPORA.values()) * (24 * 2 + 8) / 1.5 / 1e9
    every = (
        "index.target_recall=1"  # of what is planted to find the number of lists, which the same lists tell
    )
    assert found(spark, tmp_path, "index.kind=ivf", "index.nlist=9", f"index.memory_gb={budget}", every).equals(table)  # fmt: skip


class Stop(Exception):
    """In the place of a kill."""


def test_a_run_that_was_cut_short_goes_on(spark, table, tmp_path, monkeypatch, capsys):
    write_images(tmp_path, PART)
    stop_at = {"duplicate_parts": 1, "duplicate_links": 2, "duplicates": 1}
    commit, done = commits.tables.commit_wave, dict.fromkeys(stop_at, 0)

    def commit_wave(manifest, *given):
        commit(manifest, *given)
        if manifest.table in done:
            done[manifest.table] += 1
            if done[manifest.table] == stop_at[manifest.table]:
                raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(commits.tables, "commit_wave", commit_wave)
        for _ in stop_at:
            with pytest.raises(Stop):
                found(spark, tmp_path, "spark.units_per_wave=4")
        capsys.readouterr()
        assert found(spark, tmp_path, "spark.units_per_wave=4").to_pylist() == table.to_pylist()
    text = capsys.readouterr().out
    assert "duplicate_links is complete" in text
    assert "goes on; 2 of 13 units are done" in text
    assert not list(tmp_path.glob("duplicate_*"))


def test_one_of_each_is_kept_that_no_other_filter_removes(spark, truth, table, tmp_path, capsys):
    folder, wanted = truth
    for name in ("image_embeddings", "pairs", "duplicates"):
        (tmp_path / name).symlink_to(folder / name)
    keys, number = wanted["keys"], len(wanted["keys"])
    goes = {"long_image": wanted["wide"], "low_score": wanted["scores"] < 0.25}
    for names, options in (
        ((), []),
        (("low_score", "long_image"), ["filters.max_aspect=1.5", "filters.min_score=0.25"]),
    ):
        others = np.any([np.zeros(number, bool), *(goes[name] for name in names)], axis=0)
        kept = {row for row in range(number) if not others[row]}
        for group in wanted["groups"]:
            kept -= set([row for row in group if not others[row]][1:])
        config = config_of(tmp_path, "filters.duplicates=one", "overwrite=[selection]", *options)
        select_pairs.check(config)
        selection = select_pairs.run(spark, config)
        assert tables.read_parts(selection).column("key").to_pylist() == [keys[row] for row in sorted(kept)]
        reasons = {row["key"]: row["reason"] for row in tables.read_rejects(selection).to_pylist()}
        expected = {
            keys[row]: next((name for name in names if goes[name][row]), "duplicate_image")
            for row in set(range(number)) - kept
        }
        assert reasons == expected
        assert read_selected(config, "image_embeddings").rows == len(kept)
        lines = {line.split()[0]: line.split() for line in selection.extra["text"].splitlines()}
        copies = sum(len(group) - 1 for group in wanted["groups"])
        only = sum(reason == "duplicate_image" for reason in expected.values())
        assert lines["duplicate_image"][1:] == [str(copies), f"{copies / number:.1%}", str(only)]
        assert lines["left"][1] == str(len(kept))
        if not names:
            continue
        capsys.readouterr()
        shown = config_of(tmp_path, "filters.duplicates=one", "filters.show=true", *options)
        select_pairs.run(spark, shown)
        assert capsys.readouterr().out.strip() == selection.extra["text"]


def test_images_that_were_added_are_compared_with_all(spark, tmp_path):
    """And where no image has a score the smallest key stands for a group."""
    write_images(tmp_path, PART, scored=False)
    found(spark, tmp_path)
    option = "filters.duplicates=one"
    select_pairs.run(spark, config_of(tmp_path, option))
    before = tables.read_manifest(str(tmp_path), "image_embeddings")
    wanted = write_images(tmp_path, PART, scored=False, added=30)
    for name in ("image_embeddings", "pairs"):
        manifest = tables.read_manifest(str(tmp_path), name)
        manifest.extra["grown_from"] = [before.recipe if name == "image_embeddings" else "pairs"]
        tables.write_manifest(manifest)
    with pytest.raises(UserError, match="made of other image_embeddings .* run find_duplicates again"):
        select_pairs.check(config_of(tmp_path, option))
    rows = found(spark, tmp_path).to_pylist()
    assert len(rows) == sum(map(len, wanted["groups"]))
    first = {min(wanted["keys"][row] for row in group) for group in wanted["groups"]}
    assert (
        {row["key"] for row in rows if row["place"] == 0} == first == {row["representative"] for row in rows}
    )
    kept = len(wanted["keys"]) - sum(len(group) - 1 for group in wanted["groups"])
    assert select_pairs.run(spark, config_of(tmp_path, option)).rows == kept


def test_what_is_refused_and_said(truth, table, tmp_path, monkeypatch, capsys):
    folder = truth[0]
    option = "filters.duplicates=one"
    with pytest.raises(
        UserError, match=r"similarity=0.96, and the configuration says 0.9; .*overwrite=\[duplicates\]"
    ):
        select_pairs.check(config_of(folder, option, "duplicates.similarity=0.9"))
    write_images(tmp_path, PART)
    with pytest.raises(UserError, match="needs the table 'duplicates', .*; run find_duplicates first"):
        select_pairs.check(config_of(tmp_path, option))
    for key in ("duplicates.similarity", "archives.duplicate_similarity"):
        for value in ("1", "0", "-0.5"):
            with pytest.raises(UserError, match=f"{key} is a cosine above 0 and up to 0.999, found .*0.96"):
                config_of(tmp_path, f"{key}={value}")
    with pytest.raises(UserError, match="filters.duplicates is 'two'; it must be one of keep, one"):
        config_of(tmp_path, "filters.duplicates=two")
    assert "duplicates" not in config_of(tmp_path, "filters.min_side=5").filters.settings
    config = config_of(folder, option)
    assert "find_duplicates.py" in next_command("embed_images", config, ["-c", "x"])
    assert next_command("find_duplicates", config, [option]).endswith(f"select_pairs.py {option}")
    plain = config_of(folder, "filters.min_side=9")
    assert "select_pairs.py" in next_command("embed_images", plain, [])
    assert next_command("find_duplicates", plain, []).endswith(f"select_pairs.py {option}")
    lines = find_duplicates.plan(config).splitlines()
    assert next(line for line in lines if "find_duplicates " in line and "complete" in line)
    monkeypatch.setattr(sys, "argv", ["find_duplicates.py", "--help"])
    with pytest.raises(SystemExit):
        find_duplicates.main()
    text = capsys.readouterr().out
    assert "duplicates.similarity=0.96" in text
    assert max(map(len, text.splitlines())) <= 125
