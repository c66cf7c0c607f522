"""What an experiment runs: the texts differ, all else is equal; what cannot be is said before any work."""

import pytest

from configs.errors import UserError
from configs.loading import load_config
from configs.schema import CocuConfig
from experiment.plan import LOSSES, METHODS, output_folder, plan_runs
from experiment.results import differences, last_points, losses_table, table
from models.groupvit_config import GroupViTConfig


def _config(*overrides):
    return load_config("configs/experiment.yaml", list(overrides))


def test_runs_of_one_seed_and_losses_differ_in_texts_alone(tmp_path):
    runs = plan_runs(_config(f"workspace={tmp_path}"), rows=8000)
    assert len(runs) == len(METHODS) * 2 * 3
    assert len({run.name for run in runs}) == len(runs)
    for seed in (0, 1, 2):
        for losses in ("paper", "ours"):
            chosen = [dict(item.split("=", 1) for item in run.overrides) for run in runs if (run.seed, run.losses) == (seed, losses)]  # fmt: skip
            differing = {
                key for values in chosen for key in values if len({other.get(key) for other in chosen}) > 1
            }
            assert differing == {"workspace", "train.output", "train.sampling", "train.temperature"}
            assert {values["train.seed"] for values in chosen} == {str(seed)}


def test_an_ablation_changes_one_thing_at_a_time(tmp_path):
    """From the paper's form to what the demo's preset and configuration have."""
    kinds = ["paper-form", *(name for name in LOSSES if "+" in name)]
    config = _config(
        f"workspace={tmp_path}", "experiment.methods=[cluster]", f"experiment.losses=[{','.join(kinds)}]"
    )
    form, *others = (run for run in plan_runs(config, 100) if run.seed == 0)
    assert len(others) == 6
    changes = [set(run.overrides) - set(form.overrides) - {f"train.output={run.folder}/training"} for run in others]  # fmt: skip
    assert [len(change) for change in changes] == [1] * 6
    together = load_config("configs/experiment.yaml", [change for one in changes for change in one]).train
    wanted = _config().train
    assert (together.negatives, together.match, together.reduction) == (
        wanted.negatives, wanted.match, wanted.reduction
    )  # fmt: skip
    preset = GroupViTConfig.preset("demo")
    assert together.model_options == {
        name: getattr(preset, name) for name in ("stem", "assign_gain", "assign_centred")
    }
    paper = load_config("configs/experiment.yaml", form.overrides).train
    defaults, losses = GroupViTConfig(), CocuConfig().train
    assert paper.model_options == {
        name: getattr(defaults, name) for name in ("stem", "assign_gain", "assign_centred")
    }
    assert (paper.negatives, paper.match, paper.reduction) == (
        losses.negatives,
        losses.match,
        losses.reduction,
    )


def test_checkpoints_are_spread_over_the_steps(tmp_path):
    runs = plan_runs(_config(f"workspace={tmp_path}", "experiment.points=4", "train.epochs=10"), rows=1000)
    # 8 steps an epoch of 1000 rows by 128
    assert all("train.save_steps=20" in run.overrides for run in runs)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("experiment.methods=[cocu]", "cocu is not one of caption, caption-nouns"),
        ("experiment.seeds=[]", "write at least one"),
        ("experiment.losses=[]", "nothing is not one of paper, ours"),
    ],
)
def test_what_there_is_none_of_is_said(tmp_path, override, said):
    with pytest.raises(UserError, match=said):
        plan_runs(_config(f"workspace={tmp_path}", override), rows=10)


def test_a_store_is_no_place_for_runs():
    with pytest.raises(UserError, match="folders of this machine"):
        output_folder(_config("workspace=s3a://bucket/experiment"))


def _row(method, seed, step, miou, tagging=50.0):
    figures = dict.fromkeys(("miou_things", "miou_grounds", "accuracy", "oracle_miou"), 1.0)
    return {"method": method, "losses": "ours", "seed": seed, "step": step, "images": step * 128, "miou": miou,
            "tagging_map": tagging, **figures}  # fmt: skip


def test_differences_are_paired_by_seed_at_the_last_point():
    rows = [_row("caption-nouns", 0, 10, 3.0), _row("caption-nouns", 0, 20, 5.0), _row("caption-nouns", 1, 20, 9.0),
            _row("cluster", 0, 20, 8.0), _row("cluster", 1, 20, 10.0), _row("cluster", 2, 20, 99.0)]  # fmt: skip
    last = last_points(rows)
    assert sorted(row["miou"] for row in last) == [5.0, 8.0, 9.0, 10.0, 99.0]
    assert differences(last, "cluster", "ours", "miou") == [3.0, 1.0]
    text = table(rows, "ours")
    assert "39.0 (8.0 to 99.0)" in text
    assert "+3.0, +1.0" in text
    rows += [{**_row("cluster", seed, 20, miou), "losses": "paper"} for seed, miou in ((0, 6.0), (1, 12.5))]
    lines = losses_table(rows, "cluster", ["paper", "ours"]).splitlines()
    assert lines[0].startswith("| losses | mIoU |")
    assert lines[2].startswith("| paper | 9.2 (6.0 to 12.5) |")
    assert lines[3].startswith("| ours | 39.0 (8.0 to 99.0) |")
    assert lines[3].endswith("| +2.0, -2.5 | +0.0, +0.0 |")
