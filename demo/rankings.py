"""The paper's ranking and ours side by side on the drawn scenes, against what they really show.

Both rank from the index that the run has built, in this process: the demo's few thousand pairs take seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from configs.schema import ArchivesConfig
from curation.archives import build_archives
from curation.csr import Csr
from curation.index import OpenIndex, open_index
from curation.moments import concept_sums, image_moments
from curation.probe import Probe, fit_chosen, left_out_of, left_out_share
from demo.gap import measure_gap
from evaluation.semantic_gap.labels import LabelMatcher, read_synonyms
from evaluation.semantic_gap.truth import read_pictures
from storage import tables
from storage.vectors import column_to_vectors

__all__ = ["RANKINGS", "compare_rankings", "examples_of"]

RANKINGS = ("paper", "calibrated")
_EXAMPLES, _SHOWN = 12, 5


def compare_rankings(
    workspace: str, truth_path: Path, concepts_path: Path, options: ArchivesConfig
) -> dict[str, Any]:
    """Measures of demo.gap by ranking, and some pairs with what each finds.

    Args:
        workspace: local, with image_embeddings, pair_concepts, pairs and an index. options: ``top`` is used.

    Returns:
        {"rankings": {ranking: measures}, "examples": [{key, caption, visible, paper, calibrated}]}, the last two
        lists of [concept, whether it is visible].
    """
    ranked = _rank_both(workspace, options.top)
    measured = {name: measure_gap(found.items(), truth_path, concepts_path) for name, found in ranked.items()}
    pairs = tables.read_parts(tables.read_manifest(workspace, "pairs"), ["key", "caption"])
    captions = dict(zip(*(pairs.column(name).to_pylist() for name in ("key", "caption")), strict=True))
    return {"rankings": measured, "examples": examples_of(ranked, captions, truth_path, concepts_path)}


def _rank_both(workspace: str, top: int) -> dict[str, dict[str, list[str]]]:
    """ranking -> key -> concepts, best first."""
    images, words = (
        tables.read_parts(tables.read_manifest(workspace, name))
        for name in ("image_embeddings", "pair_concepts")
    )
    manifest = tables.read_manifest(workspace, "index")
    index = open_index(Path(workspace) / "index" / manifest.extra["folder"])
    keys = images.column("key").combine_chunks()
    vectors = column_to_vectors(images.column("embedding"))
    captions = Csr.from_list_array(words.column("concept_ids"))
    probe = _probe(keys, vectors, captions, index)
    ranked = {}
    for ranking in RANKINGS:
        options = ArchivesConfig(ranking=ranking, top=top, clusters=False)
        found = build_archives(keys, vectors, index, options, probe=probe)
        lists = (found.column(name).to_pylist() for name in ("key", "concepts"))
        ranked[ranking] = dict(zip(*lists, strict=True))
    return ranked


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
