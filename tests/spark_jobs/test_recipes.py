"""docs/recipes.md, run from top to bottom on a small corpus in the demo's place."""

from __future__ import annotations

import importlib
import re
import shlex
import shutil
import statistics

import pytest

from spark_jobs.engine.entry import check_workspace, parse_arguments
from storage import tables
from tests import harness

pytestmark = pytest.mark.slow
PAGE = harness.ROOT / "docs" / "recipes.md"


def _recipes() -> dict[str, list[tuple[str, str]]]:
    """Title -> its blocks, (kind, text)."""
    found = {}
    for section in PAGE.read_text(encoding="utf-8").split("\n## ")[1:]:
        title, _, body = section.partition("\n")
        found[title] = re.findall(r"^```(sh|python)\n(.*?)^```", body, re.MULTILINE | re.DOTALL)
    return found


def _run(words: list[str], spark) -> None:
    """What the shell would start, in this process and its Spark session."""
    if not any(word.startswith("workspace=") for word in words):
        words.append("workspace=workspace/demo")
    if words[:2] == ["python", "-m"]:
        assert importlib.import_module(words[2]).main(words[3:]) == 0
        return
    assert words[0] == "spark-submit"
    job = re.fullmatch(r"spark_jobs/(\w+)\.py", words[1])[1]
    module, plan = importlib.import_module(f"spark_jobs.{job}"), "--plan" in words
    config = parse_arguments([word for word in words[2:] if word != "--plan"], job, "", [])
    check_workspace(config, create=not plan)
    module.check(config)
    if plan:
        print(module.plan(config))
    else:
        module.run(spark, config)


def _median_score() -> float:
    images = tables.read_manifest("workspace/laion", "image_embeddings")
    return statistics.median(tables.read_parts(images, ["image_text_score"]).column(0).to_pylist())


def test_every_recipe(spark, curated, tmp_path, monkeypatch, capsys):
    recipes = _recipes()
    assert [int(title.partition(".")[0]) for title in recipes] == list(range(1, 13))
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "demo.yaml").symlink_to(curated.folder / "config.yaml")
    shutil.copytree(curated.folder / "source", tmp_path / "laion")
    shutil.copytree(curated.workspace, tmp_path / "workspace" / "demo")
    (tmp_path / "words.txt").write_text("\n".join(harness.WORDS[:9]))
    monkeypatch.chdir(tmp_path)
    key = tables.read_parts(tables.read_manifest("workspace/demo", "archives"), ["key"]).column(0)[7].as_py()
    shown = {}
    for title, blocks in recipes.items():
        if "last week" in title:
            shutil.copy2("laion/00001.parquet", "laion/00002.parquet")
        names: dict[str, object] = {}
        for kind, text in blocks:
            if kind == "python":
                exec(text, names)
                continue
            for line in text.splitlines():
                line = line.replace("demo/00000/000000040", key)
                if "min_score=0.28" in line:  # the corpus' model is untrained
                    line = line.replace("0.28", f"{_median_score():.6f}")
                _run(shlex.split(line), spark)
        shown[int(title.partition(".")[0])] = capsys.readouterr().out, names
    assert not (tmp_path / "workspace" / "mine").exists()
    assert "corpus web: 2 shards" in shown[1][0]
    assert re.search(r"time: \d+ s with 64 slots", shown[2][0])
    assert tables.read_manifest("workspace/mine-first-20", "pairs").rows == 20
    assert "pairs grows: 2 of 3 units stand, 1 to do" in shown[11][0]
    manifest = tables.read_manifest("workspace/laion", "pairs")
    pairs = tables.read_parts(manifest, parts=[part for part in manifest.parts if "/00002-" not in part.name])
    assert pairs.num_rows < manifest.rows == tables.read_manifest("workspace/laion", "image_embeddings").rows
    assert pairs.column("url").null_count == 0
    assert set(pairs.column("licence").to_pylist()) == {"CC BY", None}
    selection = tables.read_manifest("workspace/laion", "selection")
    assert 0 < selection.rows < pairs.num_rows
    assert shown[4][0].count(f"{selection.rows:,} of {pairs.num_rows:,} pairs") == 2  # foretold, and done
    assert key in shown[5][0]
    worst = [score for _, _, score in shown[6][1]["worst"]]
    assert len(worst) == 10
    before = tables.read_parts(tables.read_manifest(str(curated.workspace), "archives"), ["scores"]).column(0)
    assert worst == pytest.approx(sorted(row[0] for row in before.to_pylist() if row)[:10])
    assert tables.read_manifest("workspace/demo", "archives").settings["ranking"] == "paper"
    for file in ("training_set_open_clip/sizes.json", "training_set_hugging_face/README.md"):
        assert (tmp_path / "workspace" / "demo" / file).is_file()
    concepts = tables.read_parts(tables.read_manifest("workspace/demo", "concepts")).column("concept")
    assert concepts.to_pylist() == harness.WORDS[:9]
    duplicates = tables.read_manifest("workspace/demo", "duplicates")
    assert f"{duplicates.rows:,} of {duplicates.rows_in:,} images are in" in shown[12][0]
    assert re.search(rf"duplicate_image +{duplicates.rows - duplicates.extra['groups']:,} ", shown[12][0])
    assert "training_set" in shown[10][0]
    assert "complete since" in shown[10][0]
