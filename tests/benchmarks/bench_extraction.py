"""How fast captions are mined and searched, and that the search does not slow down with the vocabulary.

Captions are made of the benchmarks' class names and common words, 8 to 16 words each, all different. Each rate
is the best of several rounds in one process on one core.

``python -m tests.benchmarks.bench_extraction [--captions 20000] [--rounds 3] [--out FILE.json]``
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from curation.sampling import draw_words, write_prompts
from curation.text.extraction import Extractor
from curation.text.vocabulary import benchmark_classes, count_batch
from tests.benchmarks.record import Entry, record

FILLER = (
    "a the two of on in near with and is playing standing red small green old large under over wooden".split()
)
SIZES = (1_000, 10_000, 100_000)
ARCHIVE, PROMPTS, BATCH = 16, 3, 4096


def captions(count: int, names: list[str], seed: int = 0) -> list[str]:
    """Texts in which every third word or so is a name of a thing, half of them plural."""
    source = random.Random(seed)
    things = [*names, *(f"{name}s" for name in names)]
    return [
        " ".join(
            source.choice(things) if source.random() < 0.35 else source.choice(FILLER)
            for _ in range(source.randint(8, 16))
        )
        for _ in range(count)
    ]


def vocabulary(size: int, names: list[str]) -> list[str]:
    """The names, then made-up phrases of which half begin with a name, as mined ones do."""
    source = random.Random(1)
    made = (f"{source.choice(names) if n % 2 else f'word{n}'} thing{n % 5000} {n}" for n in range(size))
    return [*names, *made][:size]


def best_rate(work: Callable[[], object], rows: int, rounds: int) -> float:
    """Rows a second of the fastest round; the first one, which fills the caches, is not counted."""
    work()
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return rows / min(seconds)


def sampling_rate(mode: str, rounds: int) -> float:
    """Rows a second of drawing the training texts."""
    random_numbers = np.random.default_rng(0)
    scores = np.sort(random_numbers.normal(1.5, 0.3, (BATCH, ARCHIVE)).astype(np.float32))[:, ::-1]
    clusters = random_numbers.integers(0, ARCHIVE // 2, (BATCH, ARCHIVE)).astype(np.int32)
    concepts = np.array([[f"concept {place}" for place in range(ARCHIVE)]] * BATCH, object)
    keys = [f"cc3m/00000/{row:09d}" for row in range(BATCH)]
    nouns, texts, templates = ["dog\ncat\ngrass\nsky"] * BATCH, ["a dog"] * BATCH, ["a photo of a {}."] * 80
    options = {"seed": 0, "epoch": 0, "k": PROMPTS, "mode": mode, "temperature": 0.1}

    def draw() -> None:
        words = draw_words(concepts, scores, clusters, nouns, keys, **options)
        write_prompts(words, texts, keys, seed=0, epoch=0, templates=templates)

    return best_rate(draw, BATCH, rounds)


def measure(count: int, rounds: int) -> dict[str, float]:
    """All rates, by what they are of."""
    names = list(dict.fromkeys(name for labels in benchmark_classes().values() for name in labels))
    texts = captions(count, names)
    array = pa.array(texts)
    rates = {"mined, captions/s": best_rate(lambda: count_batch(array), count, rounds)}
    for size in SIZES:
        extractor = Extractor(vocabulary(size, names))
        rates[f"searched for {size:,} concepts, captions/s"] = best_rate(
            lambda found=extractor: found.extract(array), count, rounds
        )
    for mode in ("cluster", "top", "caption-nouns"):
        rates[f"texts drawn by {mode}, rows/s"] = sampling_rate(mode, rounds)
    return rates


def main() -> None:
    """Measure, print, and write what was measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--captions", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    rates = measure(given.captions, given.rounds)
    for what, rate in rates.items():
        print(f"{what:45s} {rate:12,.0f}")
    few, many = (rates[f"searched for {size:,} concepts, captions/s"] for size in (min(SIZES), max(SIZES)))
    what = f"the same with {min(SIZES):,} concepts instead of {max(SIZES):,}"
    record(Entry("extraction", many, "captions/s", what, many / few, ">= 0.77"))
    if given.out:
        given.out.write_text(json.dumps(rates, indent=1) + "\n")


if __name__ == "__main__":
    main()
