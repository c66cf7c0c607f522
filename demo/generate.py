"""Write the demo's source data: shards with captions that leave things out, the truth, evaluation scenes.

python -m demo.generate --out FOLDER --pairs 2400 --eval-scenes 120 --seed 0
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from configs.errors import UserError, run_entry
from configs.paths import home_path
from configs.processors import cores
from demo.samples import BROKEN_KINDS, ODD_KINDS
from demo.shards import Entry, write_shard
from demo.voc import CLASSES, prepare_folders, write_scenes
from demo.world.captions import concept_forms

__all__ = ["Parameters", "generate", "main", "plan_shards"]

MARKER = "_generated.json"
_PAIRS_A_SHARD = 400
_SCENES_A_TASK = 30
_SAME_KEY = "same_key"


@dataclass(frozen=True)
class Parameters:
    """What decides every byte of the output, together with the source of this package."""

    pairs: int = 2400
    eval_scenes: int = 120
    seed: int = 0


_NOT_OUTPUT = {
    "__main__.py", "clip_data.py", "clip_quality.py", "gap.py", "rankings.py", "scene_pictures.py", "segmentation.py", "steps.py",
    "train_clip.py", "train_groupvit.py",
}  # fmt: skip


def _source_fingerprint() -> str:
    """Hash of the modules that decide what is drawn and written."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        if path.name not in _NOT_OUTPUT:
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def plan_shards(parameters: Parameters) -> list[list[Entry]]:
    """Which sample stands where: ``pairs`` valid ones (a few in odd formats) and the broken ones between them.

    The last entry of the last shard is the one that the cut tar loses.
    """
    shards = max(1, round(parameters.pairs / _PAIRS_A_SHARD))
    rng = np.random.default_rng((parameters.seed, 99))
    kinds = ["plain"] * parameters.pairs
    for place, kind in zip(rng.permutation(parameters.pairs), ODD_KINDS, strict=False):
        kinds[place] = kind
    for kind in BROKEN_KINDS:
        kinds.insert(int(rng.integers(1, len(kinds))), kind)
    kinds.insert(int(rng.integers(12, min(len(kinds), 100))), _SAME_KEY)
    kinds.append("cut_tar")
    plan = []
    for shard, numbers in enumerate(np.array_split(np.arange(len(kinds)), shards)):
        keys = [f"{shard:05d}{sample:04d}" for sample in range(len(numbers))]
        entries = [Entry(key, int(n), kinds[n]) for key, n in zip(keys, numbers, strict=True)]
        plan.append(list(_with_repeated_key(entries)))
    return plan


def _with_repeated_key(entries: list[Entry]) -> Iterator[Entry]:
    """The sample of kind "same_key" carries the key of the first plain sample of its shard, not its neighbour's."""
    first = next(entry.key for entry in entries if entry.kind == "plain")
    for entry in entries:
        yield Entry(first, entry.number, entry.kind) if entry.kind == _SAME_KEY else entry


def _one_thread() -> None:
    cv2.setNumThreads(1)


def _submit(
    pool: ProcessPoolExecutor, folder: Path, parameters: Parameters
) -> tuple[list[Future], list[Future]]:
    plan = plan_shards(parameters)
    shards = [
        pool.submit(write_shard, folder / "shards", number, parameters.seed, entries, number == len(plan) - 1)
        for number, entries in enumerate(plan)
    ]
    scenes = [
        pool.submit(
            write_scenes,
            folder,
            parameters.seed,
            range(start, min(start + _SCENES_A_TASK, parameters.eval_scenes)),
        )
        for start in range(0, parameters.eval_scenes, _SCENES_A_TASK)
    ]
    return shards, scenes


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n")


def _write_truth(folder: Path, records: list[dict[str, object]]) -> dict[str, int]:
    """truth.jsonl of the valid samples, broken.json of the others; counts by reason.

    The cut tar is the shard's fault: its entry has the shard's key and an empty sample name.
    """
    reasons = {**BROKEN_KINDS, _SAME_KEY: "duplicate_key", "cut_tar": "truncated_shard"}
    broken = [
        {"key": _rejected_key(record), "kind": record["kind"], "reason": reasons[str(record["kind"])]}
        for record in records
        if record["kind"] in reasons
    ]
    with (folder / "truth.jsonl").open("w") as truth:
        for record in records:
            if record["kind"] not in reasons:
                truth.write(json.dumps(record) + "\n")
    _write_json(folder / "broken.json", broken)
    return dict(Counter(str(entry["reason"]) for entry in broken))


def _rejected_key(record: dict[str, object]) -> str:
    key = str(record["key"])
    return key[: key.rindex("/") + 1] if record["kind"] == "cut_tar" else key


def _build(folder: Path, parameters: Parameters, processes: int) -> dict[str, int]:
    (folder / "shards").mkdir(parents=True)
    prepare_folders(folder, parameters.eval_scenes)
    _write_json(folder / "concepts.json", concept_forms())
    _write_json(folder / "classes.json", list(CLASSES))
    context = multiprocessing.get_context("spawn")
    start, done = time.perf_counter(), 0
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_one_thread) as pool:
        shards, scenes = _submit(pool, folder, parameters)
        for future in as_completed([*shards, *scenes]):
            result = future.result()
            done += result if isinstance(result, int) else len(result)
            rate = done / (time.perf_counter() - start)
            print(f"  drawn {done:,} scenes, {rate:,.0f} a second", flush=True)
        return _write_truth(folder, [record for shard in shards for record in shard.result()])


def _finished(out: Path, wanted: dict[str, object]) -> bool:
    marker = out / MARKER
    if marker.exists():
        return json.loads(marker.read_text())["wanted"] == wanted
    if out.exists() and any(out.iterdir()):
        raise UserError(
            f"--out {out} is a folder with other things in it: name a new one, or one that demo.generate wrote"
        )
    return False


def generate(out: Path, parameters: Parameters, processes: int | None = None) -> bool:
    """Write everything into ``out``; returns False when it was already there.

    The data are drawn into a neighbouring folder that replaces ``out`` when complete, so that ``out`` never
    holds a part of them. A folder written with other parameters or by another version is replaced.
    """
    wanted: dict[str, object] = {**asdict(parameters), "source": _source_fingerprint()}
    if _finished(out, wanted):
        print(f"demo data: nothing to do, {out} is complete", flush=True)
        return False
    start = time.perf_counter()
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    broken = _build(partial, parameters, processes or cores())
    _write_json(partial / MARKER, {"wanted": wanted, "broken": broken})
    if out.exists():
        shutil.rmtree(out)
    partial.rename(out)
    seconds = time.perf_counter() - start
    print(
        f"demo data: {parameters.pairs:,} pairs, {sum(broken.values())} broken samples, "
        f"{parameters.eval_scenes} evaluation scenes in {seconds:.1f} s -> {out}",
        flush=True,
    )
    return True


def main(argv: list[str]) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="demo.generate", description="Draw the demo's scenes and write them as img2dataset-style shards."
    )
    parser.add_argument(
        "--out", type=home_path, required=True, help="folder to write (replaced if demo.generate wrote it)"
    )
    parser.add_argument(
        "--pairs", type=int, default=Parameters.pairs, help="valid pairs (default %(default)s)"
    )
    parser.add_argument("--eval-scenes", type=int, default=Parameters.eval_scenes, help="default %(default)s")
    parser.add_argument("--seed", type=int, default=Parameters.seed, help="default %(default)s")
    parser.add_argument("--processes", type=int, help="default: one a core")
    options = parser.parse_args(argv)
    if options.pairs < 20 or options.eval_scenes < 0 or options.seed < 0:
        raise UserError("--pairs must be at least 20, --eval-scenes and --seed at least 0")
    generate(options.out, Parameters(options.pairs, options.eval_scenes, options.seed), options.processes)


if __name__ == "__main__":
    run_entry(main)
