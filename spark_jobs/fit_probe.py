"""Job 4: image_embeddings, pair_concepts -> probe/. What the images themselves say of each concept.

For every concept a ridge regression of "the caption names it" on the image's embedding, all from one pass over the
corpus (`curation/probe/`). How strongly it is drawn towards 0 is chosen on left-out pairs; `probe.json` has the curve.
Executors map the folder: a host holds one copy whatever the number of its Python workers.
"""

from __future__ import annotations

from typing import Any

from pyspark.sql import SparkSession

from configs.errors import UserError
from configs.schema import CocuConfig
from curation.probe import FORMAT, Probe, left_out_share, write_probe
from spark_jobs.engine.folders import FolderJob, build_folder, place_folder, placed_folder
from spark_jobs.engine.units import units_of
from spark_jobs.engine.versions import check_executors
from spark_jobs.mining.probe_pass import fit_on_spark
from spark_jobs.planning import plan_text
from storage import tables
from storage.selection import read_selected
from storage.tables import Manifest

__all__ = ["check", "main", "plan", "planned", "run"]

HELP = """\
Fit the probe of the calibrated ranking: reads image_embeddings and pair_concepts, writes probe/.

The probe estimates for every concept the chance that a caption of an image names it, by ridge regression on all pairs
of the retrieval corpus (index.corpora). Its one constant is chosen on pairs that are left out of the fit. archives
with archives.ranking=paper or compat do without it."""


def check(config: CocuConfig) -> None:
    """What can be wrong before Spark starts."""
    for name in ("image_embeddings", "concepts", "pair_concepts"):
        tables.read_manifest(config.workspace, name)


def folder_job(config: CocuConfig) -> FolderJob:
    """What is to be built."""
    images = read_selected(config, "image_embeddings")
    captions = tables.read_manifest(config.workspace, "pair_concepts")
    return FolderJob(
        job="fit_probe",
        table="probe",
        settings={"corpora": sorted(config.index.corpora), "format": FORMAT},
        inputs=[images, captions],
        keep=True,
    )


def run(session: SparkSession, config: CocuConfig) -> Manifest:
    """Fit the probe, or find that it is there.

    Raises:
        UserError: one of other tables is there and ``overwrite`` is not set; another run is at work; no images.
    """
    images = read_selected(config, "image_embeddings")
    captions = tables.read_manifest(config.workspace, "pair_concepts")
    job = folder_job(config)
    manifest, built = build_folder(config, job, lambda: _fit(session, config, images, captions, job.recipe))
    if built:
        print(f"fit_probe: {_summary(manifest)}, {manifest.seconds:.1f} s", flush=True)
    else:
        print(f"fit_probe: the probe is complete ({_summary(manifest)}); nothing to do", flush=True)
    return manifest


def _fit(
    session: SparkSession, config: CocuConfig, images: Manifest, captions: Manifest, recipe: str
) -> tuple[str, dict[str, Any]]:
    """Where the probe is, relative to `probe/`, and its probe.json."""
    concepts = tables.read_manifest(config.workspace, "concepts").rows
    units = units_of(images, [captions], config.index.corpora)
    rows = sum(unit.rows for unit in units)
    if not rows:
        raise UserError("there is nothing to fit a probe to: image_embeddings has no rows of index.corpora")
    check_executors(session)
    workspace = config.workspace

    def store(probe: Probe) -> str:
        return place_folder(workspace, "probe", recipe, lambda folder: write_probe(folder, probe))

    return placed_folder(fit_on_spark(session, units, concepts, left_out_share(rows, concepts), store))


def _summary(manifest: Manifest) -> str:
    facts = manifest.extra["probe"]
    chosen = (
        f"rho {facts['rho']:g} of {len(facts['curve'])}, chosen on {facts['left_out_pairs']:,} left-out pairs"
        if facts["curve"]
        else f"rho {facts['rho']:g}, as no pair could be left out"
    )
    return f"{facts['concepts']:,} concepts from {facts['rows']:,} pairs, {chosen}"


def planned(config: CocuConfig) -> list[FolderJob]:
    """What is to be built, once the tables that are read are there."""
    return [folder_job(config)]


def plan(config: CocuConfig) -> str:
    """What `--plan` prints."""
    return plan_text(config, "fit_probe", [("fit_probe", planned)])


def main() -> None:
    """Entry of spark-submit."""
    from spark_jobs.engine.entry import job_entry

    job_entry("fit_probe", HELP, ["index"], check, run, plan)


if __name__ == "__main__":
    from spark_jobs.fit_probe import (
        main as entry,  # by its import name, so that executors find the task's function
    )

    entry()
