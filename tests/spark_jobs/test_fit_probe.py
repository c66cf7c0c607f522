"""fit_probe, and archives ranked with it: against a dense solve, on a second corpus, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pytest

from configs.errors import UserError
from configs.loading import load_config
from configs.schema import CocuConfig
from curation.probe import RHOS, Probe, open_probe
from spark_jobs import build_archives, build_index, fit_probe
from spark_jobs.engine import index_cache
from spark_jobs.engine.index_cache import local_probe
from storage import copies, tables
from tests.curation import naive
from tests.curation.synthetic import Corpus
from tests.spark_jobs.workspaces import link_tables, two_corpora, write_workspace

ROWS, OTHERS, CONCEPTS = 700, 60, 60


def corpora() -> dict[str, Corpus]:
    return two_corpora(ROWS, OTHERS, CONCEPTS)


@pytest.fixture(scope="module")
def tables_of(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    write_workspace(folder, corpora(), rows_per_part=120)
    return folder


@pytest.fixture
def workspace(tables_of, tmp_path) -> Path:
    return link_tables(tables_of, tmp_path)


def config_of(workspace: Path, *options: str) -> CocuConfig:
    sources = [{"name": name, "path": "unused"} for name in ("web", "mine")]
    base = [f"workspace={workspace}", f"corpora={json.dumps(sources)}", "index.corpora=[web]"]
    return load_config(None, [*base, "archives.corpora=[mine]", "archives.top=12", *options])


def probe_of(workspace: Path) -> Probe:
    manifest = tables.read_manifest(str(workspace), "probe")
    return open_probe(workspace / "probe" / manifest.extra["folder"], check="full")


def test_the_probe_is_ridge_regression_on_the_retrieval_corpus(spark, workspace, capsys):
    fit_probe.check(config_of(workspace))
    fit_probe.run(spark, config_of(workspace))
    said, found, web = capsys.readouterr().out, probe_of(workspace), corpora()["web"]
    assert found.facts["rows"] == ROWS
    assert found.facts["left_out_pairs"] == sum(map(bool, web.captions.to_lists()))
    curve = dict(map(tuple, found.facts["curve"]))
    assert tuple(curve) == RHOS
    assert curve[found.facts["rho"]] == max(curve.values())
    assert (
        f"rho {found.facts['rho']:g} of {len(RHOS)}, chosen on {found.facts['left_out_pairs']} left-out"
        in said
    )
    expected = naive.probe(
        web.vectors.astype(np.float64).tolist(), web.captions.to_lists(), CONCEPTS, found.facts["rho"]
    )
    np.testing.assert_allclose(found.weights, expected[:, :-1], atol=1e-4)
    np.testing.assert_allclose(found.biases, expected[:, -1], atol=1e-4)


def test_a_second_corpus_is_curated_against_the_firsts_index_and_probe(spark, workspace):
    config = config_of(workspace, "archives.clusters=false")
    fit_probe.run(spark, config)
    build_index.run(spark, config)
    build_archives.check(config)
    found = tables.read_parts(build_archives.run(spark, config))
    both, probe = corpora(), probe_of(workspace)
    web, mine = both["web"], both["mine"]
    images, captions = web.vectors.astype(np.float64), web.captions.to_lists()
    words = web.concept_embeddings.astype(np.float16).astype(np.float64)
    words /= np.linalg.norm(words, axis=1, keepdims=True)
    spread, average = web.cosine_std.astype(float), web.cosine_mean.astype(float)
    cosines = images @ words.T
    separation = naive.separations(captions, lambda t, row: cosines[row, t], average, spread)
    linear = np.concatenate([probe.weights, probe.biases[:, None]], axis=1)
    told = naive.naming(images.tolist(), captions, linear, probe.facts["rho"])
    assert found.num_rows == OTHERS
    for row in range(0, OTHERS, 5):
        anchor = mine.vectors[row].astype(np.float64)
        near = np.argsort(-(images @ anchor), kind="stable")[:128].tolist()
        own = words @ anchor
        expected = naive.calibrated(
            captions, near, images.tolist(), anchor.tolist(), range(CONCEPTS), lambda t, _, own=own: own[t],
            (average, spread, separation), linear, told, images.mean(axis=0).tolist(), (0.6, 0.4, 7.0, 18.0),
        )  # fmt: skip
        assert found.column("key")[row].as_py() == f"mine/00000/{row:06d}"
        scores = dict(expected)
        ids = found.column("concept_ids")[row].as_py()
        best = [score for _, score in expected[:12]]
        np.testing.assert_allclose(found.column("scores")[row].as_py(), best, atol=2e-2)
        np.testing.assert_allclose([scores[t] for t in ids], best, atol=2e-2)
        for concept, votes, places, chance in zip(
            ids, *(found.column(name)[row].as_py() for name in ("votes", "named_by", "probe")), strict=True
        ):
            assert votes == sum(concept in captions[j] for j in near)
            assert len(places) == min(3, votes)
            assert all(concept in captions[near[place]] for place in places)
            assert chance == pytest.approx(
                max(0.0, anchor @ linear[concept, :-1] + linear[concept, -1]), abs=1e-3
            )
    assert {len(keys) for keys in found.column("neighbours").to_pylist()} == {32}


def test_a_second_run_does_nothing_and_another_corpus_is_refused(spark, workspace, capsys):
    fit_probe.run(spark, config_of(workspace))
    before = probe_of(workspace).weights.tobytes()
    fit_probe.run(spark, config_of(workspace))
    assert "nothing to do" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"corpora was .*overwrite=\[probe\]"):
        fit_probe.run(spark, config_of(workspace, "index.corpora=[]"))
    fit_probe.run(spark, config_of(workspace, "index.corpora=[]", "overwrite=true"))
    assert probe_of(workspace).facts["rows"] == ROWS + OTHERS
    fit_probe.run(spark, config_of(workspace, "overwrite=true"))
    assert probe_of(workspace).weights.tobytes() == before  # the order in which tasks end changes nothing
    assert len(list((workspace / "probe" / "_parts").glob("*/*"))) == 1  # replaced ones are gone


def test_archives_without_the_probe_say_which_job_makes_it(spark, workspace):
    config = config_of(workspace, "archives.ranking=paper")
    build_index.run(spark, config)
    with pytest.raises(UserError, match=r"probe.*fit_probe"):
        build_archives.check(config_of(workspace))
    build_archives.check(config)
    assert build_archives.run(spark, config).rows == OTHERS


def test_a_probe_of_other_captions_is_refused(spark, workspace):
    config = config_of(workspace)
    fit_probe.run(spark, config)
    build_index.run(spark, config)
    manifest = tables.read_manifest(str(workspace), "probe")
    manifest.inputs["pair_concepts"] = "another"
    tables.write_manifest(manifest)
    with pytest.raises(UserError, match=r"probe/ was built from another pair_concepts.*fit_probe"):
        build_archives.run(spark, config)


def test_no_images_is_one_error(spark, tmp_path):
    empty = corpora()["web"]
    rows = np.zeros(0, int)
    nothing = Corpus(
        **{
            **vars(empty),
            "keys": pa.array([], pa.string()),
            "vectors": empty.vectors[:0],
            "captions": empty.captions.gather(rows),
        }
    )
    write_workspace(tmp_path, {"web": nothing, "mine": corpora()["mine"]})
    config = load_config(None, [f"workspace={tmp_path}", "corpora=[{name: web, path: unused}]"])
    tables_before = tables.read_manifest(str(tmp_path), "image_embeddings")
    tables_before.units = []
    tables.write_manifest(tables_before)
    with pytest.raises(UserError, match="nothing to fit a probe to"):
        fit_probe.run(spark, config)


def test_a_remote_probe_is_fetched_once_and_checked(spark, workspace, monkeypatch, tmp_path):
    fit_probe.run(spark, config_of(workspace))
    manifest = tables.read_manifest(str(workspace), "probe")
    remote = pafs.SubTreeFileSystem(str(workspace), pafs.LocalFileSystem())
    for module in (index_cache, copies):
        monkeypatch.setattr(module, "resolve", lambda address: (remote, address.removeprefix("elsewhere/")))
    monkeypatch.setenv("COCU_CACHE", str(tmp_path / "cache"))
    local_probe.cache_clear()
    try:
        place = ("elsewhere", manifest.extra["folder"], manifest.recipe)
        first = local_probe(*place).weights
        local_probe.cache_clear()
        again = local_probe(*place).weights
        assert str(first.filename).startswith(str(tmp_path / "cache"))
        assert (first.filename, first.tobytes()) == (again.filename, again.tobytes())
    finally:
        local_probe.cache_clear()
