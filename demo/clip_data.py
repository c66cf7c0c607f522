"""Pictures and texts for training and judging the tiny CLIP: scenes as its own transform shows them."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from demo.samples import CAPTION_STREAM
from demo.world.captions import concept_forms, full_caption, singular_forms, write_caption
from demo.world.scenes import LABELS, MINIMUM_SHARE, Scene, make_scene

__all__ = [
    "TEST_STREAM",
    "TRAIN_STREAM",
    "SceneSet",
    "draw_set",
    "draw_view",
    "label_prompts",
    "neutral_texts",
    "write_texts",
]

TRAIN_STREAM, TEST_STREAM = 11, 12
"""Second part of these scenes' seeds; the demo's pairs and evaluation scenes have others (demo.samples)."""

_CHUNK = 250


@dataclass(frozen=True)
class SceneSet:
    """pictures (n, side, side, 3) uint8; visible (n, labels) bool; counts (n, labels) uint8 of instances; n captions.

    A caption is what the demo's pairs have: one or two things named, the rest left out.
    """

    pictures: np.ndarray
    visible: np.ndarray
    counts: np.ndarray
    captions: list[str]


def draw_view(seed: tuple[int, ...], side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, str]:
    """A scene through CLIP's eyes: short side resized to ``side`` (bicubic), middle cut out; truth of that part.

    Returns the picture (side, side, 3) uint8, visible (labels,) bool, counts (labels,) uint8 and the caption.
    """
    scene = make_scene(seed)
    rows, columns = scene.mask.shape
    short = min(rows, columns)
    top, left = (rows - short) // 2, (columns - short) // 2
    square = scene.image[top : top + short, left : left + short]
    picture = np.asarray(Image.fromarray(square).resize((side, side), Image.Resampling.BICUBIC))
    areas = np.bincount(scene.mask[top : top + short, left : left + short].ravel(), minlength=len(LABELS))
    visible = areas >= MINIMUM_SHARE * short * short
    counts = np.array([scene.counts.get(label, 1) for label in LABELS], np.uint8)
    caption, _ = write_caption(scene, np.random.default_rng((*seed, CAPTION_STREAM)))
    return picture, visible, counts, caption


def _draw_chunk(seed: int, stream: int, first: int, last: int, side: int) -> SceneSet:
    cv2.setNumThreads(1)
    views = [draw_view((seed, stream, number), side) for number in range(first, last)]
    pictures, visible, counts, captions = zip(*views, strict=True)
    return SceneSet(np.stack(pictures), np.stack(visible), np.stack(counts), list(captions))


def draw_set(seed: int, stream: int, scenes: int, side: int, processes: int) -> SceneSet:
    """``scenes`` views of a stream, drawn by ``processes`` processes."""
    starts = range(0, scenes, _CHUNK)
    jobs = [(seed, stream, start, min(start + _CHUNK, scenes), side) for start in starts]
    if processes == 1:
        parts = [_draw_chunk(*job) for job in jobs]
    else:
        with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
            parts = list(pool.map(_draw_chunk, *zip(*jobs, strict=True)))
    return SceneSet(
        np.concatenate([part.pictures for part in parts]),
        np.concatenate([part.visible for part in parts]),
        np.concatenate([part.counts for part in parts]),
        [caption for part in parts for caption in part.captions],
    )


def write_texts(
    rng: np.random.Generator, visible: np.ndarray, counts: np.ndarray
) -> tuple[list[str], np.ndarray]:
    """One full caption a row of ``visible`` (n, labels), and what each names, (n, labels) bool."""
    texts, named = [], np.zeros_like(visible)
    for row in range(len(visible)):
        present = np.flatnonzero(visible[row])
        areas = {LABELS[i]: 1 for i in present}
        scene = Scene(_NOTHING, _NOTHING, areas, {LABELS[i]: int(counts[row, i]) for i in present})
        text, labels = full_caption(scene, rng)
        texts.append(text)
        named[row, [LABELS.index(label) for label in labels]] = True
    return texts, named


_NOTHING = np.zeros((0, 0), np.uint8)


_NEUTRAL_WORDS = (
    *(
        "photo",
        "picture",
        "view",
        "day",
        "fine day",
        "distance",
        "today",
        "weekend",
        "mood",
        "moment",
        "memory",
    ),
    *(
        "holiday",
        "album",
        "pair",
        "couple",
        "front",
        "number",
        "kind",
        "part",
        "time",
        "thing",
        "idea",
        "image",
    ),
)


def neutral_texts(rng: np.random.Generator, tokenizer: object, number: int) -> list[str]:
    """Texts that say nothing about any scene: general words, and words drawn from the whole token table."""
    forms = {word for words in concept_forms().values() for form in words for word in form.split()}
    texts = []
    while len(texts) < number:
        if len(texts) % 2:
            word = _NEUTRAL_WORDS[int(rng.integers(len(_NEUTRAL_WORDS)))]
        else:
            word = tokenizer.decode([int(rng.integers(320, 49_000))]).strip()
        if word and word not in forms and word.removesuffix("s") not in forms:
            texts.append(f"a photo of a {word}" if rng.random() < 0.7 else word)
    return texts


def label_prompts(rng: np.random.Generator | None = None, labels: Sequence[str] = LABELS) -> list[str]:
    """ "a photo of a {word}" for every label: the label itself, or with ``rng`` any of its words."""
    forms = [singular_forms(label) for label in labels]
    words = [words[0 if rng is None else int(rng.integers(len(words)))] for words in forms]
    return [f"a photo of a {word}" for word in words]
