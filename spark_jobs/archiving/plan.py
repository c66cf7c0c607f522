"""What makes archives of vectors, wherever the vectors come from: a part of a table, or anybody's DataFrame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from configs.errors import UserError
from configs.schema import ArchivesConfig, CocuConfig
from curation.archives import build_archives
from curation.csr import Csr
from spark_jobs.archiving.neighbours import Place, placed_index, read_neighbours, task_threads
from spark_jobs.engine.index_cache import local_probe
from storage import tables
from storage.growth import grew
from storage.tables import Manifest

__all__ = ["Plan", "archives_here", "plan_of"]


@dataclass(frozen=True)
class Plan:
    """What every task needs: where index and probe are (workspace, folder, recipe), how to search and rank.

    ``nprobe``: lists of the index that a query visits.
    """

    index: Place
    probe: Place | None
    options: ArchivesConfig
    nprobe: int = 0


def plan_of(config: CocuConfig) -> tuple[Plan, Manifest, dict[str, str]]:
    """The plan that a configuration asks for, the index' manifest, and the recipes of index and probe.

    Raises:
        UserError: there is no index (or probe, where the ranking needs one), or one of other concepts than the captions'.
    """
    captions = tables.read_manifest(config.workspace, "pair_concepts")
    index = _of_captions(config.workspace, "index", captions)
    probe, inputs = None, {"index": index.recipe}
    if config.archives.ranking == "calibrated":
        probe = _of_captions(config.workspace, "probe", captions)
        inputs["probe"] = probe.recipe
    return Plan(_place(index), _place(probe) if probe else None, config.archives), index, inputs


def _of_captions(workspace: str, name: str, captions: Manifest) -> Manifest:
    """Index or probe, which must know the same concepts as the captions."""
    found = tables.read_manifest(workspace, name)
    grown = name == "probe" and grew(found, [captions])  # fitted before pairs were added, and kept
    if found.inputs.get("pair_concepts") != captions.recipe and not grown:
        raise UserError(
            f"{name}/ was built from another pair_concepts table; run {found.job} again with overwrite=[{name}]"
        )
    return found


def _place(manifest: Manifest) -> Place:
    return manifest.workspace, manifest.extra["folder"], manifest.recipe


def archives_here(
    plan: Plan,
    keys: pa.Array | pa.ChunkedArray,
    vectors: np.ndarray,
    own: Csr | None = None,
    searched: str | None = None,
) -> tuple[pa.RecordBatch, str]:
    """Archives of some pairs (on an executor), and the device on which their neighbours were searched.

    Args:
        plan: from the driver.
        keys: (n,) of the pairs; an image of that key in the index is not their neighbour.
        vectors: (n, d) float16 or float32, L2-normalised.
        own: concepts of the pairs' own captions, which are marked.
        searched: address of their part of ``archive_neighbours``, where the search was a stage of its own.
    """
    # What was searched for already needs no card.
    index, _ = placed_index(plan.index, "cpu" if searched else plan.options.device)
    index.nprobe = plan.nprobe
    probe = local_probe(*plan.probe) if plan.probe else None
    found = read_neighbours(searched) if searched else None
    archives = build_archives(keys, vectors, index, plan.options, own, task_threads(), probe, found)
    return archives, index.device
