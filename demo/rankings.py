"""The paper's ranking and ours side by side on the drawn scenes, against what they really show.

The paper merges no words (`concepts.merge`): where the run did, its formula is shown both with the vocabulary as mined
and with that of the run. All rank in this process: the demo's few thousand pairs take seconds.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from configs.schema import ArchivesConfig, CocuConfig
from curation.archives import build_archives
from curation.csr import Csr
from curation.index import (
    IndexWriter,
    OpenIndex,
    caption_cosines,
    choose_index,
    concept_table,
    lists_of,
    open_index,
    train,
)
from curation.moments import concept_sums, cosine_statistics, image_moments
from curation.probe import Probe, fit_chosen, left_out_of, left_out_share
from curation.text.extraction import Extractor
from demo.gap import measure_gap
from evaluation.semantic_gap.labels import LabelMatcher, read_synonyms
from evaluation.semantic_gap.truth import read_pictures
from models.clip import load_clip
from storage import tables
from storage.vectors import column_to_vectors

__all__ = ["MERGED_TOO", "compare_rankings", "examples_of"]

MERGED_TOO = "paper, words merged"
"""The paper's formula with the run's merged vocabulary: what differs from `calibrated` is the ranking alone."""

_EXAMPLES, _SHOWN = 12, 5


def compare_rankings(
    workspace: str, truth_path: Path, concepts_path: Path, config: CocuConfig
) -> dict[str, Any]:
    """Measures of demo.gap by ranking, and some pairs with what each finds.

    Args:
        workspace: local, with image_embeddings, concepts, pair_concepts, pairs and an index.
        config: ``archives.top`` and ``clip`` are used.

    Returns:
        {"rankings": {ranking: measures}, "examples": [{key, caption, visible, paper, calibrated}]}, the last two
        lists of [concept, whether it is visible]. Where words were merged, `paper` is the vocabulary as mined, and
        a third ranking is the paper's with that of the run.
    """
    pairs = tables.read_parts(tables.read_manifest(workspace, "pairs"), ["key", "caption"])
    captions = dict(zip(*(pairs.column(name).to_pylist() for name in ("key", "caption")), strict=True))
    ranked = _rank_all(workspace, captions, config)
    measured = {name: measure_gap(found.items(), truth_path, concepts_path) for name, found in ranked.items()}
    shown = {name: ranked[name] for name in ("paper", "calibrated")}
    return {"rankings": measured, "examples": examples_of(shown, captions, truth_path, concepts_path)}


def _rank_all(
    workspace: str, captions: Mapping[str, str], config: CocuConfig
) -> dict[str, dict[str, list[str]]]:
    """ranking -> key -> concepts, best first."""
    images, words = (
        tables.read_parts(tables.read_manifest(workspace, name))
        for name in ("image_embeddings", "pair_concepts")
    )
    manifest = tables.read_manifest(workspace, "index")
    index = open_index(Path(workspace) / "index" / manifest.extra["folder"])
    keys = images.column("key").combine_chunks()
    vectors = column_to_vectors(images.column("embedding"))
    probe = _probe(keys, vectors, Csr.from_list_array(words.column("concept_ids")), index)

    def ranked(ranking: str, index: OpenIndex) -> dict[str, list[str]]:
        options = ArchivesConfig(ranking=ranking, top=config.archives.top, clusters=False)
        found = build_archives(keys, vectors, index, options, probe=probe)
        return dict(zip(*(found.column(name).to_pylist() for name in ("key", "concepts")), strict=True))

    merges = tables.read_manifest(workspace, "concepts").extra.get("merges")
    if not merges:
        return {ranking: ranked(ranking, index) for ranking in ("paper", "calibrated")}
    with tempfile.TemporaryDirectory() as folder:
        gone = [merge["concept"] for merge in merges]
        texts = load_clip(config.clip).encode_texts([config.clip.prompt.replace("{}", word) for word in gone])
        told = [captions[key] for key in keys.to_pylist()]
        as_mined = _index_with(index, gone, texts, keys, vectors, told, Path(folder) / "index")
        return {
            "paper": ranked("paper", as_mined),
            MERGED_TOO: ranked("paper", index),
            "calibrated": ranked("calibrated", index),
        }


def _index_with(
    index: OpenIndex,
    words: Sequence[str],
    texts: np.ndarray,
    keys: pa.Array,
    vectors: np.ndarray,
    captions: Sequence[str],
    folder: Path,
) -> OpenIndex:
    """The same images indexed with further concepts; texts (n, d), their embeddings."""
    names = [*index.concepts.to_pylist(), *words]
    embeddings = np.concatenate([index.concept_embeddings, texts.astype(np.float32)])
    moments = image_moments(vectors)
    statistics = cosine_statistics(embeddings, moments.mean, moments.second)
    spec = choose_index(len(vectors), vectors.shape[1], kind="flat")
    trained = train(vectors[:0], spec)
    named = Extractor(names).extract(captions)
    with IndexWriter(
        folder, spec, trained, concept_table(pa.array(names), embeddings, *statistics)
    ) as writer:
        cosines = caption_cosines(vectors, named, embeddings)
        writer.add(keys, vectors, named, cosines, lists_of(trained, vectors))
        writer.finish()
    return open_index(folder)


def _probe(keys: pa.Array, vectors: Any, captions: Csr, index: OpenIndex) -> Probe:
    concepts = len(index.concepts)
    left_out = left_out_of(keys, vectors, captions, left_out_share(len(keys), concepts))
    return fit_chosen(image_moments(vectors), *concept_sums(vectors, captions).dense(concepts), left_out)


def examples_of(
    ranked: Mapping[str, Mapping[str, Sequence[str]]],
    captions: Mapping[str, str],
    truth_path: Path,
    concepts_path: Path,
) -> list[dict[str, Any]]:
    """The first pairs of the truth that were ranked, with their best five concepts by each ranking."""
    forms = read_synonyms(concepts_path)
    matcher = LabelMatcher(sorted(forms), forms)
    rows = []
    for picture in read_pictures(truth_path):
        if (
            len(rows) < _EXAMPLES
            and picture.labels
            and all(picture.key in found for found in ranked.values())
        ):
            visible = set(picture.labels)
            sides = {
                name: [
                    [concept, any(matcher.labels[label] in visible for label in matcher.of_concept(concept))]
                    for concept in found[picture.key][:_SHOWN]
                ]
                for name, found in ranked.items()
            }
            row = {
                "key": picture.key,
                "caption": captions.get(picture.key, ""),
                "visible": list(picture.labels),
            }
            rows.append({**row, **sides})
    return rows
