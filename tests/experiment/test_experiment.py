"""The whole experiment, small: real scenes, Spark, trainings and evaluations; then a second run that finds it done."""

import json
import subprocess
import sys
from pathlib import Path

from PIL import Image

from storage import tables

ROOT = Path(__file__).parents[2]
METHODS = ("caption-nouns", "truth")


def _experiment(workspace: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    common = [
        f"workspace={workspace}", f"experiment.methods=[{','.join(METHODS)}]", "experiment.losses=[ours]",
        "experiment.seeds=[4]", "experiment.points=2", "experiment.scenes=40", "experiment.eval_scenes=4",
        "concepts.min_count=2", "train.model=tiny", "train.model_options={context_length: 32}", "train.epochs=2",
        "train.batch_size=16", "experiment.stride=64", "spark.master=local[2]",
    ]  # fmt: skip
    command = [sys.executable, "-m", "experiment", "--config", "configs/experiment.yaml", *common, *overrides]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400)


def test_a_small_experiment_ends_with_a_comparison_and_is_not_run_twice(tmp_path):
    out = tmp_path / "ws" / "experiment"
    done = _experiment(tmp_path / "ws")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    rows = json.loads((out / "report" / "experiment.json").read_text())
    assert {row["method"] for row in rows} == set(METHODS)
    pairs = tables.read_manifest(str(out / "tables" / "truth"), "training_set").rows
    assert pairs >= 40
    for method in METHODS:
        points = [row for row in rows if row["method"] == method]
        assert [row["seed"] for row in points] == [4, 4]
        assert points[-1]["images"] == 2 * pairs  # every row twice, under every method
        assert points[0]["images"] < points[1]["images"]
        for row in points:
            assert 0 <= row["miou"] <= row["oracle_miou"] <= 100
            assert 0 < row["tagging_map"] <= 100
            assert set(row) == {
                "method", "losses", "seed", "step", "images", "miou", "miou_things", "miou_grounds", "accuracy",
                "oracle_miou", "tagging_map",
            }  # fmt: skip
    text = (out / "report" / "experiment.md").read_text()
    assert "| nouns of the caption (GroupViT) |" in text
    assert (out / "report" / "curves.png").stat().st_size > 5000
    assert Image.open(out / "report" / "scenes-ours.png").width > 500
    checkpoint = sorted((out / "runs" / "truth-ours-4" / "training").glob("step-*.pt"))[-1]
    before = checkpoint.stat().st_mtime_ns
    again = _experiment(tmp_path / "ws")
    assert again.returncode == 0, again.stderr[-2000:]
    assert "2 runs, 2 finished before" in again.stdout
    assert checkpoint.stat().st_mtime_ns == before
