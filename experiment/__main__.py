"""`make experiment`: does curation help, at equal data, pixels, batch and steps?"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from configs.arguments import parse_config
from configs.errors import UserError, run_entry
from configs.schema import CocuConfig
from experiment.figures import draw_classes, draw_curves
from experiment.gallery import draw_gallery
from experiment.plan import METHODS, OURS, TrainingTable, output_folder, plan_runs
from experiment.results import collect, losses_table, table, write_json
from experiment.runs import DONE, run_all, run_command
from experiment.tables import read_truth, replace_words, share_curation
from storage.tables import read_manifest

__all__ = ["HELP", "main"]

HELP = """\
Train the same model on the same pairs in the same order, with other texts beside the captions, and evaluate all.

  python -m experiment --config configs/experiment.yaml                     drawn scenes, some hours
  python -m experiment --config configs/experiment.yaml experiment.seeds=[0] 'experiment.losses=[ours]'   a look
  python -m experiment --config configs/cc3m.yaml experiment.scenes=0 \\
      'experiment.evaluate=[--benchmark,voc,--data,/data]' 'experiment.methods=[caption-nouns,cluster]'   your own

Curates the corpora (twice, by the paper's ranking and by ours), then trains every method with every kind of losses
and every seed. A run is a folder below experiment.output: one that is finished is not run again, one that was
interrupted goes on. Ends with report/experiment.md, experiment.json and figures."""


def main(argv: Sequence[str]) -> int:
    """Entry of the process."""
    config = parse_config(argv, "python -m experiment", HELP, ["experiment", "train"])
    if not config.workspace:
        raise UserError(
            "workspace is not set: name the experiment's folder, e.g. workspace=workspace/experiment"
        )
    out, common = output_folder(config), list(argv)
    plan_runs(config, 1)  # names that are none are said before any work
    if config.experiment.jobs:
        _train_all(config, out, common)
    _report(config, out)
    return 0


def _train_all(config: CocuConfig, out: Path, common: list[str]) -> None:
    """Scenes, tables, runs: what is there already is not done again."""
    if config.experiment.scenes:
        _draw_scenes(config, out)
    needed = dict.fromkeys(METHODS[name].table for name in config.experiment.methods)
    _curate(config, out / "tables" / OURS.name, OURS.ranking, common)
    for wanted in needed:
        _prepare(config, wanted, out / "tables", common)
    rows = read_manifest(str(out / "tables" / next(iter(needed)).name), "training_set").rows
    run_all(plan_runs(config, rows), common, config.experiment.jobs)


def _draw_scenes(config: CocuConfig, out: Path) -> None:
    options = config.experiment
    numbers = {"--pairs": options.scenes, "--eval-scenes": options.eval_scenes, "--seed": options.scene_seed}
    words = [str(word) for pair in numbers.items() for word in pair]
    run_command(["python", "-m", "demo.generate", "--out", str(out / "source"), *words])


def _prepare(config: CocuConfig, wanted: TrainingTable, tables: Path, common: list[str]) -> None:
    if wanted == OURS:
        return
    place, ours = tables / wanted.name, tables / OURS.name
    if wanted.words == "archives":
        share_curation(ours, place)
        _curate(config, place, wanted.ranking, common)
        return
    words = read_truth(Path(_truth(config))) if wanted.words == "truth" else {}
    replace_words(ours, place, words, wanted.words)


def _truth(config: CocuConfig) -> str:
    if config.experiment.scenes:
        return str(output_folder(config) / "source" / "truth.jsonl")
    if not config.report.truth:
        raise UserError(
            "experiment.methods: truth needs report.truth, JSON lines with key and labels of every pair; leave it out"
        )
    return config.report.truth


def _curate(config: CocuConfig, place: Path, ranking: str, common: list[str]) -> None:
    place.mkdir(parents=True, exist_ok=True)
    values = [f"workspace={place}", f"archives.ranking={ranking}"]
    if config.experiment.scenes:
        source = output_folder(config) / "source"
        values.append(f"report.truth={source / 'truth.jsonl'}")
        values.append(f"corpora=[{{name: demo, format: webdataset, path: '{source}/shards/*.tar'}}]")
    run_command(["spark-submit", "spark_jobs/pipeline.py", *common, *values])


def _report(config: CocuConfig, out: Path) -> None:
    """report/: experiment.json, experiment.md, curves.png, classes.png."""
    rows = collect(plan_runs(config, 1))
    if not rows:
        raise UserError("experiment: no run is measured yet; set experiment.jobs to 1 or more")
    folder = out / "report"
    folder.mkdir(parents=True, exist_ok=True)
    write_json(rows, folder / "experiment.json")
    draw_curves(rows, folder / "curves.png")
    methods, kinds = config.experiment.methods, config.experiment.losses
    if len(methods) == 1:
        parts = [f"## {METHODS[methods[0]].title}\n\n{losses_table(rows, methods[0], kinds)}\n"]
    else:
        parts = [f"## {kind} losses\n\n{table(rows, kind)}\n" for kind in kinds]
    constant = next((row["constant_miou"] for row in rows if row["constant_miou"] is not None), None)
    if constant is not None:
        parts.append(f"The best constant answer scores {constant:.1f} % mIoU.\n")
    if config.experiment.scenes:
        named = _named_shares(out / "source" / "truth.jsonl")
        method = next(
            (name for name in ("cluster", "cluster-paper") if name in config.experiment.methods), None
        )
        if method and "caption-nouns" in config.experiment.methods:
            draw_classes(rows, named, method, config.experiment.losses[-1], folder / "classes.png")
            parts.append("![gain by class](classes.png)\n")
        for kind in config.experiment.losses:
            if _draw_gallery(config, kind, out, folder / f"scenes-{kind}.png"):
                parts.append(f"![scenes, {kind} losses](scenes-{kind}.png)\n")
    parts.append("![measures against images seen](curves.png)\n")
    text = "\n".join(parts)
    (folder / "experiment.md").write_text(text, encoding="utf-8")
    print(f"\n{text}\nreport: {folder / 'experiment.md'}", flush=True)


def _draw_gallery(config: CocuConfig, losses: str, out: Path, path: Path) -> bool:
    """Unseen scenes by the last checkpoints of one seed; False where nothing with these losses is finished."""
    runs = [run for run in plan_runs(config, 1) if run.losses == losses and (run.folder / DONE).is_file()]
    if not runs:
        return False
    last = {
        METHODS[run.method].title.replace(" (", "\n("): run.folder / "training" / "last.pt"
        for run in runs
        if run.seed == runs[0].seed
    }
    draw_gallery(last, out / "source", path)
    return True


def _named_shares(truth: Path) -> dict[str, float]:
    """Label -> share of the pairs showing it whose caption names it."""
    shown, named = Counter[str](), Counter[str]()
    for line in truth.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        shown.update(row["labels"])
        named.update(label for label in row["labels"] if label in row["named"])
    return {label: named[label] / count for label, count in shown.items()}


if __name__ == "__main__":
    run_entry(main)
