"""How fast encoded rows become batches: a core's rate, where its time goes, and threads against processes.

Pictures are COCO photos where COCU_REAL_DATA is set, else made ones, scaled to a short side of 256 and 512
pixels and saved with quality 90. Rates a core are over processor time, so that a busy machine shows the same;
threads and processes are compared by the clock, beside a training loop that keeps Python's lock busy as one that
launches GPU kernels does.

``python -m tests.benchmarks.bench_decode [--images 192] [--seconds 1] [--rounds 5] [--out FILE.json]``
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import queue
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from models.pixels import MEAN, STD
from models.tokenize import _ids
from tests.training.rows import jpeg, picture, rows
from training.feed.augment import KINDS, Augmenter, AugmentOptions
from training.feed.batches import BatchMaker, BatchOptions
from training.feed.decode import CHUNK, DecodePool, decode_rows, open_rgb
from training.feed.texts import Draws, caption_tokens, draw_prompts

SIZES, SIDES = (112, 224), (256, 512)


def photos(count: int) -> list[Image.Image]:
    """Real ones, else smooth colours with noise (about the same bytes)."""
    folder = Path(os.environ.get("COCU_REAL_DATA", "")) / "coco-captions-masks" / "images"
    files = sorted(folder.glob("*.jpg"))[:count] if "COCU_REAL_DATA" in os.environ else []
    if files:
        return [Image.open(file).convert("RGB") for file in files]
    noise = np.random.default_rng(0).normal(0, 12, (480, 640, 3))
    smooth = (np.asarray(picture(seed, 640, 480), dtype=np.float32) for seed in range(count))
    return [Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8)) for pixels in smooth]


def encode(images: list[Image.Image], side: int) -> list[bytes]:
    """JPEGs with this short side."""
    scaled = (image.resize(_scaled(image.size, side), Image.Resampling.BICUBIC) for image in images)
    return [jpeg(image) for image in scaled]


def _scaled(size: tuple[int, int], side: int) -> tuple[int, int]:
    return round(size[0] * side / min(size)), round(size[1] * side / min(size))


def core_seconds(work: Callable[[], object], items: int, rounds: int = 3) -> float:
    """Processor seconds an item in the best round, after one that fills caches."""
    work()
    seconds = []
    for _ in range(rounds):
        start = time.thread_time()
        work()
        seconds.append(time.thread_time() - start)
    return min(seconds) / items


def stages(kind: str, size: int, jpegs: list[bytes]) -> dict[str, float]:
    """Images a core and second, and the share of each stage."""
    augmenter = Augmenter(AugmentOptions(kind, size, 0, MEAN, STD))
    plain = Augmenter(AugmentOptions(kind, size, 0, MEAN, STD))
    plain._rand_augment = None  # leaves crop, resize and flip
    keys, decoded = [str(n) for n in range(len(jpegs))], [open_rgb(data) for data in jpegs]
    out = np.empty((len(jpegs), size, size, 3), np.uint8)

    def augmented(one: Augmenter) -> Callable[[], object]:
        return lambda: [one(image, key, 0) for image, key in zip(decoded, keys, strict=True)]

    whole = core_seconds(lambda: decode_rows(augmenter, 0, keys, jpegs, out), len(jpegs))
    decode = core_seconds(lambda: [open_rgb(data) for data in jpegs], len(jpegs))
    crop = core_seconds(augmented(plain), len(jpegs))
    rest = core_seconds(augmented(augmenter), len(jpegs)) - crop if kind == "recipe" else 0.0
    total = decode + crop + rest
    return {
        "images_per_core_second": 1 / whole,
        "decode": decode / total,
        "crop_resize_flip": crop / total,
        "rand_augment_erase": rest / total,
    }


@contextmanager
def training_loop(rates: dict[str, float]) -> Iterator[None]:
    """A thread that does small tensor operations, each giving up Python's lock, as a step does; its rate."""
    stop, steps = threading.Event(), 0

    def run() -> None:
        nonlocal steps
        values = torch.zeros(64)
        while not stop.is_set():
            values = values * 0.5 + 1
            steps += 1

    thread = threading.Thread(target=run)
    start = time.perf_counter()
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        rates["loop_steps_per_second"] = steps / (time.perf_counter() - start)


def by_processes(options: AugmentOptions, count: int, jpegs: list[bytes], seconds: float) -> float:
    """Images a second of a pool, by the clock."""
    with DecodePool(options, count) as pool:
        return _rate(pool.submit, options, count, jpegs, seconds)


def by_threads(options: AugmentOptions, count: int, jpegs: list[bytes], seconds: float) -> float:
    """The same work in threads of this process."""
    augmenters: queue.SimpleQueue[Augmenter] = queue.SimpleQueue()
    for _ in range(count):
        augmenters.put(Augmenter(options))

    def work(*arguments: Any) -> None:
        augmenter = augmenters.get()
        decode_rows(augmenter, *arguments)
        augmenters.put(augmenter)

    with ThreadPoolExecutor(count) as pool:
        return _rate(lambda *arguments: pool.submit(work, *arguments), options, count, jpegs, seconds)


def _rate(
    submit: Callable[..., Any], options: AugmentOptions, count: int, jpegs: list[bytes], seconds: float
) -> float:
    keys = [str(n) for n in range(CHUNK)]
    outs = [np.empty((CHUNK, options.image_size, options.image_size, 3), np.uint8) for _ in range(3 * count)]
    chunks = itertools.cycle([jpegs[n : n + CHUNK] for n in range(0, len(jpegs) - CHUNK + 1, CHUNK)])
    waiting = [submit(0, keys, next(chunks), out) for out in outs]
    waiting[-1].result()  # all have started
    done, start, place = 0, time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        waiting[place].result()
        waiting[place] = submit(0, keys, next(chunks), outs[place])
        done, place = done + CHUNK, (place + 1) % len(waiting)
    rate = done / (time.perf_counter() - start)
    for task in waiting:
        task.result()
    return rate


def side_by_side(jpegs: list[bytes], seconds: float, rounds: int) -> dict[str, dict[str, float]]:
    """Threads and processes, alone and beside a training loop; medians of rounds that take turns."""
    options = AugmentOptions("recipe", 224, 0, MEAN, STD)
    ways = {"threads": by_threads, "processes": by_processes}
    found: dict[str, list[dict[str, float]]] = {}
    for _ in range(rounds):
        rates: dict[str, float] = {}
        with training_loop(rates):
            time.sleep(seconds)
        found.setdefault("loop alone", []).append(rates)
        for name, count in itertools.product(ways, (1, 2)):
            rates = {"images_per_second": ways[name](options, count, jpegs, seconds)}
            with training_loop(rates):
                rates["images_beside_loop"] = ways[name](options, count, jpegs, seconds)
            found.setdefault(f"{count} {name}", []).append(rates)
    return {
        name: {label: statistics.median(rates[label] for rates in all_rates) for label in all_rates[0]}
        for name, all_rates in found.items()
    }


def text_rates(count: int = 2048) -> dict[str, float]:
    """Rows a core and second: captions never seen, prompts never seen, prompts seen before."""
    table = rows(count, [b""] * count)

    def cold(work: Callable[[], object]) -> Callable[[], object]:
        return lambda: (_ids.cache_clear(), work())

    works = {
        "captions": cold(lambda: caption_tokens(table, 77)),
        "prompts": cold(lambda: draw_prompts(table, 0, Draws(), 77)),
        "prompts seen before": lambda: draw_prompts(table, 0, Draws(), 77),
    }
    return {name: 1 / core_seconds(work, count) for name, work in works.items()}


def start_and_stop(jpegs: list[bytes]) -> dict[str, float]:
    """Seconds from a new maker to its first batch of 32, and for closing it."""
    table: pa.Table = rows(32, jpegs[:32])
    list(BatchMaker(BatchOptions(workers=0)).batches([table], 0))  # tokenizer and caches
    maker = BatchMaker(BatchOptions(workers=2))
    start = time.perf_counter()
    batches = maker.batches([table] * 9, 0)
    next(batches)
    first = time.perf_counter()
    batches.close()
    return {"first_batch": first - start, "close": time.perf_counter() - first}


def main() -> None:
    """Measure, print, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=int, default=192)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each clocked measurement")
    parser.add_argument("--rounds", type=int, default=5, help="of clocked measurements, taking turns")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    images = photos(arguments.images)
    encoded = {side: encode(images, side) for side in SIDES}
    results: dict[str, Any] = {"stages": {}, "cores": os.cpu_count()}
    for side, size, kind in itertools.product(SIDES, SIZES, KINDS):
        found = stages(kind, size, encoded[side])
        results["stages"][f"{side} -> {size} {kind}"] = found
        shares = "  ".join(f"{name} {share:.0%}" for name, share in list(found.items())[1:])
        print(f"{side} -> {size} {kind:<6} {found['images_per_core_second']:7.0f} images/core/s   {shares}")
    results["side_by_side"] = side_by_side(encoded[256], arguments.seconds, arguments.rounds)
    results["texts_rows_per_core_second"] = text_rates()
    results["seconds"] = start_and_stop(encoded[256])
    for section in ("side_by_side", "texts_rows_per_core_second", "seconds"):
        print(section)
        for name, value in results[section].items():
            shown = value if isinstance(value, dict) else {"": value}
            print(f"  {name:<22}" + "  ".join(f"{label} {number:,.2f}" for label, number in shown.items()))
    if arguments.out:
        arguments.out.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
