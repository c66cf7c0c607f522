"""A synthetic corpus: clustered unit vectors, captions with concepts, and the index of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from curation.csr import Csr
from curation.index import (
    IndexWriter,
    OpenIndex,
    SearchTarget,
    caption_cosines,
    choose_index,
    concept_table,
    lists_of,
    open_index,
    train,
    tune,
)
from curation.moments import concept_sums, image_moments
from curation.probe import Probe, fit_chosen, left_out_of, left_out_share


@dataclass
class Corpus:
    keys: pa.Array
    vectors: np.ndarray
    captions: Csr
    concepts: pa.Array
    concept_embeddings: np.ndarray
    cosine_mean: np.ndarray
    cosine_std: np.ndarray

    def __len__(self) -> int:
        return len(self.vectors)


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def make_corpus(
    rows: int,
    d: int = 32,
    concepts: int = 200,
    per_caption: float = 4.0,
    groups: int | None = None,
    seed: int = 0,
    noise: float = 0.6,
    common: float = 0.0,
) -> Corpus:
    """Images lie around group centres; captions name concepts that are likely in their group.

    ``noise`` is the expected norm of an image's offset from its unit centre; ``common`` the length of a
    direction that all images share with all concepts, so that cosines are above 0 as CLIP's are.
    """
    rng = np.random.default_rng(seed)
    groups = groups or max(1, rows // 50)
    centres = unit(rng.normal(size=(groups, d)))
    group = rng.integers(groups, size=rows)
    offsets = noise / np.sqrt(d) * rng.standard_normal((rows, d), np.float32)
    vectors = unit(centres[group] + offsets + np.float32(common / np.sqrt(d))).astype(np.float16)
    embeddings = unit(rng.normal(size=(concepts, d)) + 0.5)
    lengths = np.minimum(rng.poisson(per_caption, size=rows), 12)
    anchor_of = np.repeat(np.arange(rows), lengths)
    # Half of a caption's concepts come from 20 of its group, half from anywhere.
    near = (group[anchor_of] * 7919 + rng.integers(20, size=len(anchor_of)) ** 2) % concepts
    ids = np.where(rng.random(len(anchor_of)) < 0.5, near, rng.integers(concepts, size=len(anchor_of)))
    pairs = np.unique(anchor_of * concepts + ids)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(pairs // concepts, minlength=rows))]).astype(
        np.int64
    )
    sample = vectors[:: max(1, rows // 1000)].astype(np.float32) @ embeddings.T
    return Corpus(
        keys=pa.array([f"corpus/{row // 1000:05d}/{row:09d}" for row in range(rows)]),
        vectors=vectors,
        captions=Csr(offsets, (pairs % concepts).astype(np.int32)),
        concepts=pa.array([f"concept {number}" for number in range(concepts)]),
        concept_embeddings=embeddings,
        cosine_mean=sample.mean(axis=0),
        cosine_std=sample.std(axis=0),
    )


def build(
    corpus: Corpus,
    folder: Path,
    kind: str = "flat",
    unit_rows: int = 250,
    neighbours: int = 8,
    memory_gb: float = 8.0,
    nlist: int = 0,
    nprobe: int = 0,
    queries: int = 200,
    target_recall: float = 0.99,
    train_rows: int = 0,
) -> OpenIndex:
    """The whole way: decide, train on a sample, fill unit by unit, join, open."""
    spec = choose_index(len(corpus), corpus.vectors.shape[1], memory_gb, kind, nlist, train_rows)
    sample = np.sort(np.random.default_rng(1).permutation(len(corpus))[: train_rows or spec.sample_rows])
    trained = train(corpus.vectors[sample], spec)
    table = concept_table(corpus.concepts, corpus.concept_embeddings, corpus.cosine_mean, corpus.cosine_std)
    with IndexWriter(folder, spec, trained, table) as writer:
        for start in range(0, len(corpus), unit_rows):
            part = slice(start, min(len(corpus), start + unit_rows))
            captions = corpus.captions.gather(np.arange(part.start, part.stop))
            vectors = corpus.vectors[part]
            cosines = caption_cosines(vectors, captions, corpus.concept_embeddings)
            writer.add(corpus.keys[part], vectors, captions, cosines, lists_of(trained, vectors))
        writer.finish()
    index = open_index(folder)
    index.nprobe = tune(index, SearchTarget(neighbours, nprobe, target_recall, queries)).nprobe
    return index


def probe_of(corpus: Corpus) -> Probe:
    """The probe of the whole corpus, fitted as the job does."""
    sums = concept_sums(corpus.vectors, corpus.captions).dense(len(corpus.concepts))
    share = left_out_share(len(corpus), len(corpus.concepts))
    left_out = left_out_of(corpus.keys, corpus.vectors, corpus.captions, share)
    return fit_chosen(image_moments(corpus.vectors), *sums, left_out)
