"""build_index and build_archives on a small workspace: kinds, splits, corpora, devices, and what they refuse."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyspark.resource import ResourceProfileBuilder, TaskResourceRequests

from configs.errors import UserError
from configs.loading import load_config
from configs.schema import CocuConfig
from curation import index as faiss_index
from curation.index import open_index
from spark_jobs import build_archives, build_index
from spark_jobs.archiving import neighbours
from spark_jobs.engine import index_cache, waves
from spark_jobs.engine.commits import build_scratch
from spark_jobs.engine.index_cache import local_index
from spark_jobs.indexing import training
from storage import tables
from storage.copies import upload_folder
from storage.units import Unit
from tests.curation import naive
from tests.curation.synthetic import Corpus
from tests.spark_jobs.workspaces import link_tables, two_corpora, write_workspace

ROWS, OTHERS = 700, 150


def corpora() -> dict[str, Corpus]:
    return two_corpora(ROWS, OTHERS)


@pytest.fixture(scope="module")
def tables_of(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    write_workspace(folder, corpora(), rows_per_part=250)
    return folder


@pytest.fixture
def workspace(tables_of, tmp_path) -> Path:
    return link_tables(tables_of, tmp_path)


def config_of(workspace: Path, *options: str) -> CocuConfig:
    sources = [{"name": name, "path": "unused"} for name in ("web", "mine")]
    base = [
        f"workspace={workspace}",
        f"corpora={json.dumps(sources)}",
        "archives.top=12",
        "archives.ranking=paper",
        "index.train_rows=5000",
    ]
    return load_config(None, [*base, *options])


def archives(spark, workspace: Path, *options: str) -> pa.Table:
    config = config_of(workspace, *options)
    build_index.run(spark, config)
    return tables.read_parts(build_archives.run(spark, config))


def index_of(workspace: Path):
    manifest = tables.read_manifest(str(workspace), "index")
    return open_index(workspace / "index" / manifest.extra["folder"], check="full")


def test_archives_of_the_jobs_equal_the_formula(spark, workspace):
    found = archives(spark, workspace)
    both = corpora()
    vectors = np.concatenate([corpus.vectors for corpus in both.values()]).astype(np.float64)
    captions = [ids for corpus in both.values() for ids in corpus.captions.to_lists()]
    words = both["web"].concept_embeddings.astype(np.float16).astype(np.float64)
    words /= np.linalg.norm(words, axis=1, keepdims=True)
    cosines, similar = vectors @ words.T, vectors @ vectors.T
    np.fill_diagonal(similar, -np.inf)
    keys = found.column("key").to_pylist()
    assert len(keys) == len(set(keys)) == ROWS + OTHERS
    row_of = {key: row for row, key in enumerate(keys)}
    columns = {name: found.column(name).to_pylist() for name in ("neighbours", "concept_ids", "scores")}
    compared = 0
    for row in range(0, len(keys), 3):
        near = [row_of[key] for key in columns["neighbours"][row]]
        np.testing.assert_allclose(similar[row][near], np.sort(similar[row])[::-1][:8], atol=1e-3)
        expected = naive.paper(captions, near, lambda t, x, row=row: cosines[row if x is None else x, t])
        # Where a mean of cosines is near 0 the quotient is not determined by half-precision inputs.
        if all(abs(score) < 20 for _, score in expected):
            scores = [score for _, score in expected[:12]]
            np.testing.assert_allclose(columns["scores"][row], scores, rtol=2e-2, atol=2e-3)
            compared += 1
    assert compared > 200


@pytest.mark.parametrize(("kind", "verify"), [("flat", False), ("ivf", False), ("ivf", True)])
def test_an_index_above_a_hosts_budget_is_split_with_the_same_archives(
    spark, workspace, tmp_path_factory, monkeypatch, kind, verify
):
    """Lists to visit are found once, an exact search visits all; a run that is cut short goes on behind the last split."""
    searched, cut = {}, [2]

    def watched(session, config, job):
        split = job.settings.get("split")
        if split in cut:
            raise UserError("cut short")
        units = job.units if callable(job.units) else lambda: job.units
        begun = replace(job, units=lambda: searched.setdefault((job.table, split), list(units())))
        return build_scratch(session, config, begun)

    monkeypatch.setattr(neighbours, "build_scratch", watched)
    kind = f"index.kind={kind}"
    whole = archives(spark, workspace, kind)
    searched.clear()
    other = tmp_path_factory.mktemp("split")
    for table in ("pairs", "image_embeddings", "concepts", "pair_concepts"):
        (other / table).symlink_to(workspace / table)
    budget = (ROWS + OTHERS) * (32 * 2 + 8) / 2.5 / 1e9
    with pytest.raises(UserError, match="cut short"):
        archives(spark, other, kind, f"index.memory_gb={budget}")
    found_once = {("archive_visits", None)} if kind == "index.kind=ivf" else set()
    begun = {("archive_neighbours", 0), ("archive_neighbours_before", 1)}
    assert searched.keys() == found_once | begun
    searched.clear()
    cut.clear()
    split = archives(spark, other, kind, f"index.memory_gb={budget}", f"verify={str(verify).lower()}")
    assert (len(index_of(workspace).splits), len(index_of(other).splits)) == (1, 3)
    assert split.equals(whole)
    assert searched.keys() == {("archive_neighbours", 2)} | (begun if verify else set())
    members = [member for unit in searched["archive_neighbours", 2] for member in unit.payload[0]]
    assert len(members) > 3
    assert all((member.visits is not None) == bool(found_once) for member in members)
    assert all("archive_neighbours_before" in member.found for member in members)
    assert not [
        folder.name for folder in other.iterdir() if folder.name.startswith(("archive_n", "archive_v"))
    ]
    assert tables.read_manifest(str(other), "archives").rows == ROWS + OTHERS


def test_a_search_of_its_own_for_many_pairs_changes_no_archive(
    spark, workspace, tmp_path_factory, monkeypatch
):
    expected = archives(spark, workspace, "index.kind=ivf")
    other = tmp_path_factory.mktemp("apart")
    for table in ("pairs", "image_embeddings", "concepts", "pair_concepts"):
        (other / table).symlink_to(workspace / table)
    monkeypatch.setattr(neighbours, "_LEAST_TASKS", 2)
    assert archives(spark, other, "index.kind=ivf").equals(expected)


def test_copies_count_once_however_the_search_is_cut(spark, tmp_path_factory, monkeypatch):
    both = corpora()
    both["mine"].vectors[:100] = both["web"].vectors[:100]
    both["web"].vectors[300:340] = both["web"].vectors[299]  # more than twice as many as are looked for
    folder = tmp_path_factory.mktemp("copies")
    write_workspace(folder, both, rows_per_part=250)
    option = "archives.duplicate_similarity=0.99"
    tables_of = [link_tables(folder, tmp_path_factory.mktemp(name)) for name in ("whole", "split")]
    expected = archives(spark, tables_of[0], option)
    monkeypatch.setattr(neighbours, "_LEAST_TASKS", 2)
    budget = (ROWS + OTHERS) * (32 * 2 + 8) / 2.5 / 1e9
    assert archives(spark, tables_of[1], option, f"index.memory_gb={budget}").equals(expected)
    near = dict(
        zip(expected.column("key").to_pylist(), expected.column("neighbours").to_pylist(), strict=True)
    )
    assert {len(keys) for keys in near.values()} == {8}
    alike = {f"web/00000/{row:06d}" for row in range(299, 340)}
    assert max(len(alike.intersection(keys)) for keys in near.values()) == 1
    for row in range(100):
        assert near[f"mine/00000/{row:06d}"][0] == f"web/00000/{row:06d}"
    manifest = tables.read_manifest(str(tables_of[0]), "archives")
    assert manifest.settings["duplicate_similarity"] == 0.99
    plain = build_archives.table_job(config_of(tables_of[0]))
    assert (
        "duplicate_similarity" not in plain.settings
    )  # archives of before the option are the right ones still
    assert plain.recipe != manifest.recipe


def test_groups_of_a_search_keep_order_and_bounds():
    units = [Unit(f"web/{number:05d}", rows) for number, rows in enumerate([2500] * 300 + [10, 60_000])]
    groups = neighbours._groups(units, 8)
    assert [unit for group in groups for unit in group] == units
    assert len(groups) >= 16
    sizes = [sum(unit.rows for unit in group) for group in groups]
    assert max(sizes[:-1]) <= sum(unit.rows for unit in units) / 16
    many = [Unit(f"web/{number:05d}", 2500) for number in range(10_000)]
    assert max(sum(unit.rows for unit in group) for group in neighbours._groups(many, 8)) == 100_000
    assert max(sum(unit.rows for unit in group) for group in neighbours._groups(many, 128)) <= 2**23 / 129


def test_other_neighbours_and_another_recall_need_no_new_index(spark, workspace):
    archives(spark, workspace, "index.kind=ivf")
    built = tables.read_manifest(str(workspace), "index")
    options = ("index.kind=ivf", "archives.neighbours=20", "index.target_recall=0.9", "overwrite=true")
    found = archives(spark, workspace, *options)
    assert max(map(len, found.column("neighbours").to_pylist())) == 20
    again = tables.read_manifest(str(workspace), "index")
    assert (again.recipe, again.extra) == (built.recipe, built.extra)
    records = {
        path.name: json.loads(path.read_text()) for path in index_of(workspace).folder.glob("search-*")
    }
    assert {record["neighbours"] for record in records.values()} == {8, 20}


def test_inverted_lists_reach_their_recall_and_say_so(spark, workspace):
    found = archives(spark, workspace, "index.kind=ivf", "archives.corpora=[mine]")
    assert found.num_rows == OTHERS
    (record,) = index_of(workspace).folder.glob("search-*.json")
    search = json.loads(record.read_text())
    assert search["recall"] >= 0.99
    assert search["reached"]
    assert (search["neighbours"], search["queries"]) == (8, 500)
    described = json.loads((index_of(workspace).folder / "index.json").read_text())
    assert (described["kind"], described["rows"], described["d"]) == ("ivf", ROWS + OTHERS, 32)


def test_a_corpus_is_curated_against_anothers_index(spark, workspace):
    options = ("index.corpora=[web]", "archives.corpora=[mine]", "archives.neighbours=1", "archives.top=3")
    found = archives(spark, workspace, *options, "archives.clusters=false")
    assert all(key.startswith("mine/") for key in found.column("key").to_pylist())
    neighbours = found.column("neighbours").to_pylist()
    assert all(len(keys) == 1 and keys[0].startswith("web/") for keys in neighbours)
    assert max(map(len, found.column("concept_ids").to_pylist())) == 3
    assert index_of(workspace).rows == ROWS


def test_an_image_is_its_own_neighbour_only_where_that_is_asked_for(spark, workspace):
    without = archives(spark, workspace, "archives.corpora=[mine]")
    options = config_of(
        workspace, "archives.corpora=[mine]", "archives.include_anchor=true", "overwrite=true"
    )
    within = tables.read_parts(build_archives.run(spark, options))
    for table, own in ((without, False), (within, True)):
        pairs = zip(table.column("key").to_pylist(), table.column("neighbours").to_pylist(), strict=True)
        assert all((key in near) == own for key, near in pairs)
    options = config_of(workspace, "archives.corpora=[mine]", "archives.ranking=compat", "overwrite=true")
    compat = tables.read_parts(build_archives.run(spark, options))
    assert compat.column("scores").equals(within.column("scores"))


def test_captions_own_concepts_are_marked(spark, workspace):
    found = archives(spark, workspace, "archives.corpora=[mine]")
    own = corpora()["mine"].captions.to_lists()
    lists = zip(
        found.column("concept_ids").to_pylist(), found.column("in_caption").to_pylist(), own, strict=True
    )
    for ids, marks, caption in lists:
        assert marks == [concept in caption for concept in ids]


def test_without_a_gpu_the_job_says_that_it_runs_on_the_cpu(spark, workspace, capsys):
    archives(spark, workspace, "archives.corpora=[mine]")
    assert "build_archives: search on the CPU: " in capsys.readouterr().out
    assert tables.read_manifest(str(workspace), "archives").extra["searched_on"] == {"cpu": OTHERS}


def test_tasks_that_search_on_the_cpu_hold_no_gpu(spark, workspace, monkeypatch):
    """Executors have GPUs and no faiss-gpu: one task asks, the others take a core each and not a GPU each."""
    config = config_of(workspace, "archives.corpora=[mine]")
    build_index.run(spark, config)
    profile = ResourceProfileBuilder().require(TaskResourceRequests().cpus(1).resource("gpu", 1)).build
    monkeypatch.setattr(build_archives, "gpu_profile", lambda session: profile)
    asked = []

    def map_units(session, units, work, asked_for):  # local mode knows no profiles
        asked.append(asked_for)
        return waves.map_units(session, units, work)

    monkeypatch.setattr(build_archives, "map_units", map_units)
    monkeypatch.setattr(
        build_archives, "build_table", lambda session, config, job: (job.units(), job.profile)
    )
    units, left = build_archives.run(spark, config)
    assert (asked, left) == ([profile], None)
    assert [unit.name.partition("/")[0] for unit in units] == ["mine"]


def test_a_gpu_that_is_insisted_on_and_missing_is_one_error(spark, workspace):
    with pytest.raises(UserError, match=r"archives\.device is gpu, but .*archives\.device=cpu or auto"):
        archives(spark, workspace, "archives.device=gpu")
    assert tables.find_manifest(str(workspace), "archives") is None


def test_a_damaged_index_is_found_and_built_again(spark, workspace, capsys):
    archives(spark, workspace)
    folder = tables.read_manifest(str(workspace), "index").extra["folder"]
    file = workspace / "index" / folder / "offsets.npy"
    data = bytearray(file.read_bytes())
    verify = config_of(workspace, "verify=true")
    build_index.run(spark, verify)
    assert "index is verified" in capsys.readouterr().out
    data[-1] ^= 1
    file.write_bytes(data)
    again = build_index.run(spark, verify)
    assert "offsets.npy is damaged" in capsys.readouterr().out
    assert again.extra["folder"] != folder
    index_of(workspace)
    (workspace / "index" / again.extra["folder"] / "keys.arrow").unlink()
    third = build_index.run(spark, config_of(workspace, "verify=true"))
    assert "is gone" in capsys.readouterr().out
    # By its name it is built again though nothing is wrong with it.
    assert (
        build_index.run(spark, config_of(workspace, "overwrite=[index]")).extra["folder"]
        != third.extra["folder"]
    )


def test_a_second_run_does_nothing_and_other_settings_are_refused(spark, workspace, capsys):
    archives(spark, workspace)
    capsys.readouterr()
    archives(spark, workspace)
    assert capsys.readouterr().out.count("nothing to do") == 2
    with pytest.raises(UserError, match=r"ranking was \"paper\" and is now \"compat\".*overwrite=true"):
        archives(spark, workspace, "archives.ranking=compat")
    with pytest.raises(UserError, match=r"kind was \"auto\" and is now \"ivf\""):
        archives(spark, workspace, "index.kind=ivf")


def test_all_workers_of_a_host_share_one_copy(spark, workspace):
    """Every process that searches maps the same files, none holds them in memory of its own."""
    archives(spark, workspace, "index.kind=flat")
    manifest = tables.read_manifest(str(workspace), "index")
    place = (str(workspace), manifest.extra["folder"], manifest.recipe)

    def mapped(_: int) -> tuple[int, tuple[str, ...]]:
        index = local_index(*place)
        assert len(index.splits[0].lists) == index.rows
        lines = Path("/proc/self/maps").read_text().splitlines()
        return os.getpid(), tuple(sorted({line.split()[-1] for line in lines if "/index/" in line}))

    found = dict(spark.sparkContext.parallelize(range(8), 8).map(mapped).collect())
    (files,) = set(found.values())
    folder = os.path.realpath(index_of(workspace).folder)
    names = {os.path.relpath(os.path.realpath(file), folder) for file in files}
    assert {"rows-00000.npy", "keys.arrow", "cosines.npy", "concept_ids.npy"} <= names
    assert {segment["vectors"] for segment in manifest.extra["index"]["segments"]} <= names


def test_a_remote_index_is_fetched_once_and_checked_and_the_former_one_removed(
    spark, workspace, monkeypatch, tmp_path, store
):
    archives(spark, workspace)
    manifest = tables.read_manifest(str(workspace), "index")
    place = ("s3a://bucket/ws", manifest.extra["folder"], manifest.recipe)
    upload_folder(workspace / "index", tables.join(place[0], "index"))
    cache = tmp_path / "cache"
    monkeypatch.setenv("COCU_CACHE", str(cache))
    local_index.cache_clear()
    try:
        index = local_index(*place)
        assert index.folder.is_relative_to(cache)
        assert index.rows == ROWS + OTHERS
        vectors, others = (
            part["vectors"].removeprefix("../../") for part in manifest.extra["index"]["segments"]
        )
        fetched = [store.count("GET", name) for name in (vectors, others)]
        assert min(fetched) > 0
        local_index.cache_clear()
        assert local_index(*place).folder == index.folder
        assert [store.count("GET", name) for name in (vectors, others)] == fetched
        # As a process that was killed leaves it, in the middle of the vectors.
        cut_off = index.folder.with_name(f"{index.folder.name}.fetching")
        cut_off.mkdir()
        (cut_off / vectors.rpartition("/")[2]).write_bytes(b"cut off")
        (index.folder / vectors.rpartition("/")[2]).rename(tmp_path / "elsewhere.npy")
        other = "_parts/next/0"
        upload_folder(index_of(workspace).folder, tables.join(place[0], "index", other))
        local_index.cache_clear()
        newer = local_index(place[0], other, "next").folder
        assert store.count("GET", vectors) > fetched[0]
        assert store.count("GET", others) == fetched[1]  # a whole one is taken from the former folder
        assert [path for path in next(cache.iterdir()).iterdir() if path.is_dir()] == [newer]
    finally:
        local_index.cache_clear()


def test_a_killed_build_goes_on_with_what_it_trained(spark, workspace, monkeypatch):
    """The join was not reached: the next run neither trains nor encodes again."""
    config = config_of(workspace, "index.kind=ivf")
    with monkeypatch.context() as patch:
        patch.setattr(build_index, "_join", _killed)
        with pytest.raises(KeyboardInterrupt):
            build_index.run(spark, config)
    encoded = tables.read_manifest(str(workspace), "index_parts").files
    stamps = [Path(file).stat().st_mtime_ns for file in encoded]
    seen: list[list[int]] = []
    join = build_index._join

    def look(*arguments):
        seen.append([Path(segment.address).stat().st_mtime_ns for segment in arguments[3]])
        return join(*arguments)

    monkeypatch.setattr(training, "trained_on_sample", _killed)
    monkeypatch.setattr(build_index, "_join", look)
    build_index.run(spark, config)
    assert seen == [stamps]
    assert index_of(workspace).rows == ROWS + OTHERS
    assert [path.name for path in (workspace / "index" / "_parts").iterdir() if path.name == "trained"] == []


def test_parts_of_other_centroids_are_not_kept(spark, workspace, monkeypatch, tmp_path_factory):
    """What was trained is gone and training gives something else (another sample, another machine)."""
    calm = tmp_path_factory.mktemp("calm")
    for table in ("pairs", "image_embeddings", "concepts", "pair_concepts"):
        (calm / table).symlink_to(workspace / table)
    build_index.run(spark, config_of(calm, "index.kind=ivf"))
    config = config_of(workspace, "index.kind=ivf", "overwrite=true")
    with monkeypatch.context() as patch:
        patch.setattr(build_index, "_join", _killed)
        patch.setattr(training, "trained_on_sample", _trained_otherwise)
        with pytest.raises(KeyboardInterrupt):
            build_index.run(spark, config)
    (trained,) = (workspace / "index" / "_parts" / "trained").iterdir()
    trained.unlink()
    build_index.run(spark, config)
    assert checksums(workspace) == checksums(calm)
    assert "rows-00000.npy" in checksums(calm)


def checksums(workspace: Path) -> dict[str, int]:
    """Of all files of an index; the vectors' by the number of the segment, as their files have no names of their own."""
    facts = index_of(workspace).metadata
    names = {segment["vectors"]: f"segment {number}" for number, segment in enumerate(facts["segments"])}
    return {names.get(name, name): file["crc32"] for name, file in facts["files"].items()}


def _killed(*_arguments):
    raise KeyboardInterrupt


def _trained_otherwise(_session, _config, _groups, spec):
    vectors = np.random.default_rng(7).normal(size=(5000, spec.d)).astype(np.float16)
    return faiss_index.train(vectors, spec)


def test_a_cache_that_others_can_write_to_is_refused(tmp_path):
    folder = index_cache.private_folder(tmp_path)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert index_cache.private_folder(tmp_path) == folder
    folder.chmod(0o777)
    with pytest.raises(UserError, match="COCU_CACHE"):
        index_cache.private_folder(tmp_path)
    folder.chmod(0o700)
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="COCU_CACHE"):
        index_cache.private_folder(tmp_path)
