"""peer_embed: clip-retrieval's own inference (PyPI) on the same tars, model and core, in turn with ingest and embed_images.

clip-retrieval wants other versions than this project, so it lives in an environment of its own (docs/performance.md
says how it can share torch with this one):

    python -m venv /tmp/peer && /tmp/peer/bin/pip install clip-retrieval
    python -m tests.benchmarks.bench_peer_embed --peer /tmp/peer/bin/python [--images 256] [--rounds 3]

Without ``--peer`` (or ``COCU_PEER_PYTHON``) it says so and measures nothing.

Both read tars of COCO photos (``COCU_REAL_DATA``; else made ones of 640 x 480) and write normalised fp16 vectors of the
images, by the same open_clip checkpoint with random weights (to clip-retrieval: ``open_clip:NAME/PATH``). On a CPU that one
computes in fp32, ours in what ``clip.precision: auto`` comes to (bf16 on a processor with AMX); ``--precision fp32`` has both in
fp32, as the entry ``peer_embed_fp32``. With ``--text`` they embed the captions, too (ours as ``embed.text_score``), as the entry
``peer_embed_text``. Ours are the two real jobs on ``local[1]``: ingest also checks, cleans and stores the pairs, clip-retrieval
stores vectors and captions alone.

Everything is bound to one core (the idlest), and seconds are of the processor, of all processes of a side. Start-up is
left out on both sides alike: in its turn a side does a small tar and then the large one, and what counts is the large one
less the small one, which has every fixed cost of a call in it, too. Models are loaded by another small tar before; ours
in every turn, as Spark ends Python workers that waited for a minute. clip-retrieval gets the batches that ours has, and no
workers beside its process (its defaults: 256 and 4); the two processes that write its statistics are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one core, in BLAS too

import numpy as np
import psutil

from configs.schema import CocuConfig, CorpusConfig, EmbedConfig, IngestConfig, SparkConfig
from spark_jobs import embed_images, ingest
from spark_jobs.engine.session import open_session
from storage import tables
from storage.vectors import column_to_vectors
from tests.benchmarks.bench_embed import write_model
from tests.benchmarks.bench_ingest import pictures
from tests.benchmarks.record import Entry, record
from tests.corpora.ingest_inputs import members, write_tar

_SMALL = 16
_PEER = """
import json, os, sys
from importlib import import_module
from importlib.metadata import version
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
main, worker = (import_module(f"clip_retrieval.clip_inference.{name}") for name in ("main", "worker"))
class Nothing:
    def __init__(self, *_, **__): pass
    def __call__(self, *_): pass
    start = end = __call__
main.LoggerReader = worker.LoggerWriter = Nothing
print(version("clip-retrieval"), file=answers, flush=True)
for line in sys.stdin:
    main.main(**json.loads(line))
    print("done", file=answers, flush=True)
"""


def samples(count: int) -> tuple[list[tuple[bytes, str]], str]:
    """Photos with captions, again from the first where there are not enough, and what they are."""
    folder = Path(os.environ.get("COCU_REAL_DATA") or ".") / "coco-captions-masks"
    if not (folder / "pairs.jsonl").is_file():
        return [
            (image, "a caption of a photo") for image in pictures(count, 640)
        ], "made pictures of 640 x 480"
    lines = (folder / "pairs.jsonl").read_text(encoding="utf-8").splitlines()
    known = [json.loads(line) for line in lines[:count]]
    found = [((folder / "images" / one["file"]).read_bytes(), one["captions"][0]) for one in known]
    return [found[number % len(found)] for number in range(count)], "COCO photos"


def tree_seconds(process: int | None = None) -> float:
    """Processor seconds of a process (this one) and all below it, those that ended included."""
    here = psutil.Process(process)
    times = [process.cpu_times() for process in (here, *here.children(recursive=True))]
    return sum(one.user + one.system + one.children_user + one.children_system for one in times)


def turn(side: Callable[[Path, str], list[float]], small: Path, large: Path, name: str) -> list[float]:
    """Seconds of each part of a side's work that the images of the large tar take beyond those of the small one."""
    fixed = side(small, f"{name}-small")
    whole = side(large, f"{name}-large")
    return [more - less for more, less in zip(whole, fixed, strict=True)]


def our_side(given: argparse.Namespace, work: Path) -> Callable[[Path, str], list[float]]:
    """Ingests and embeds a tar; seconds of both jobs."""
    config = CocuConfig(
        clip=write_model(given.model, work / "model.safetensors", given.precision),
        ingest=IngestConfig(threads=1),
        embed=EmbedConfig(threads=1, text_score=given.text),
        spark=SparkConfig(master="local[1]"),
    )
    session = open_session(config)

    def side(tar: Path, name: str) -> list[float]:
        config.workspace = str(work / f"ours-{name}")
        config.corpora = [CorpusConfig("bench", "webdataset", str(tar))]
        marks = [tree_seconds()]
        for job in (ingest, embed_images):
            job.run(session, config)
            marks.append(tree_seconds())
        return [after - before for before, after in pairwise(marks)]

    return side


def their_side(
    given: argparse.Namespace, work: Path, process: subprocess.Popen[str]
) -> Callable[[Path, str], list[float]]:
    """``clip_inference`` of a tar, in a process that goes on; seconds."""
    options = {
        "input_format": "webdataset",
        "clip_model": f"open_clip:{given.model}/{work / 'model.safetensors'}",
        "enable_text": given.text,
        "batch_size": given.batch,
        "num_prepro_workers": given.workers,
    }

    def side(tar: Path, name: str) -> list[float]:
        request = {"input_dataset": str(tar), "output_folder": str(work / f"theirs-{name}"), **options}
        start = tree_seconds(process.pid)
        print(json.dumps(request), file=process.stdin, flush=True)
        if process.stdout.readline().strip() != "done":
            raise SystemExit("clip-retrieval stopped; what it said is above")
        return [tree_seconds(process.pid) - start]

    return side


def least_cosine(work: Path, name: str) -> float:
    """Of the two vectors of an image, each without the mean of its side's: random weights give all nearly the same.

    Raises:
        AssertionError: they are not of the same images.
    """
    manifest = tables.read_manifest(str(work / f"ours-{name}"), "image_embeddings")
    rows = tables.read_file(manifest.files[0], ["key", "embedding"])
    theirs = np.load(next((work / f"theirs-{name}" / "img_emb").glob("*.npy"))).astype(np.float32)
    names = tables.read_file(str(next((work / f"theirs-{name}" / "metadata").glob("*.parquet"))))
    keys = [key.rpartition("/")[2] for key in rows.column("key").to_pylist()]
    place = {Path(key).name: row for row, key in enumerate(names.column("image_path").to_pylist())}
    assert set(keys) == set(place)
    sides = (column_to_vectors(rows.column("embedding")).astype(np.float32), theirs[[place[k] for k in keys]])
    one, other = (vectors - vectors.mean(axis=0) for vectors in sides)
    cosines = (one * other).sum(axis=1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
    return float(cosines.min())


def main() -> None:
    """Measure both and record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--peer", default=os.environ.get("COCU_PEER_PYTHON"), help="Python with clip-retrieval"
    )
    parser.add_argument("--model", default="ViT-B-32", help="an open_clip model name")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=64, help="clip-retrieval's batch_size")
    parser.add_argument("--workers", type=int, default=0, help="clip-retrieval's num_prepro_workers")
    parser.add_argument(
        "--precision", default="auto", choices=["auto", "fp32"], help="of ours (clip.precision)"
    )
    parser.add_argument("--text", action="store_true", help="embed the captions, too")
    given = parser.parse_args()
    if not given.peer:
        print("peer_embed: skipped: --peer names no Python with clip-retrieval (see --help)")
        return
    busy = psutil.cpu_percent(1.0, percpu=True)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0), key=busy.__getitem__)})
    found, pictured = samples(_SMALL + given.images)
    files = [m for n, (image, caption) in enumerate(found) for m in members(f"{n:09d}", image, caption)]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        small = write_tar(work / "small/00000.tar", files[: 3 * _SMALL])
        large = write_tar(work / "large/00000.tar", files)
        own = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": ""}
        ours = our_side(given, work)
        with subprocess.Popen(
            [given.peer, "-c", _PEER], env=own, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            peer = f"clip-retrieval {process.stdout.readline().strip()}"
            theirs = their_side(given, work, process)
            theirs(small, "first")
            rounds = []
            for number in range(given.rounds):
                ours(small, f"first-{number}")
                rounds.append(
                    (turn(ours, small, large, str(number)), turn(theirs, small, large, str(number)))
                )
                print(f"round {number}: ours {rounds[-1][0]}, theirs {rounds[-1][1]} s", flush=True)
            process.stdin.close()
        precision = tables.read_manifest(str(work / "ours-0-large"), "image_embeddings").extra["precision"]
        print(f"least cosine of the two vectors of an image, centred: {least_cosine(work, '0-large'):.4f}")
    mine = statistics.median(sum(own) for own, _ in rounds)
    other = statistics.median(sum(their) for _, their in rounds)
    ratios = [sum(their) / sum(own) for own, their in rounds]
    for part, job in enumerate(("ingest", "embed_images")):
        print(
            f"{job}: {1e3 * statistics.median(own[part] for own, _ in rounds) / given.images:.1f} ms an image"
        )
    print(f"clip_inference: {1e3 * other / given.images:.1f} ms an image")
    what = (
        f"{peer} clip_inference, batches of {given.batch}, {given.workers} workers; {given.model}, ours in {precision}, one core, "
        f"{pictured}{', and their captions' if given.text else ''}"
    )
    spread = (max(ratios) - min(ratios)) / statistics.median(ratios)
    name = f"peer_embed{'_text' if given.text else ''}{'_fp32' if given.precision == 'fp32' else ''}"
    record(Entry(name, given.images / mine, "images/s", what, other / mine, "> 1", spread))


if __name__ == "__main__":
    main()
