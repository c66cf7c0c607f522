"""Job 3: captions -> concepts, pair_concepts. The vocabulary V and E(y) of every caption.

Nouns and noun phrases are counted by Spark over the whole corpus (or a list is given), embedded by CLIP
with the prompt "a photo of a {}", and found again in every caption (`spark_jobs/mining/`).
"""

from __future__ import annotations

from pyspark.sql import SparkSession

from configs.schema import CocuConfig
from curation.text import vocabulary
from models.clip import check_clip
from spark_jobs.engine.concept_vectors import check_given
from spark_jobs.engine.table_job import TableJob
from spark_jobs.mining.caption_table import build_pair_concepts, pair_concepts_job
from spark_jobs.mining.concept_table import build_concepts, concepts_job, digest, kept_concepts
from spark_jobs.planning import plan_text
from storage import tables
from storage.tables import Manifest

__all__ = ["check", "check_options", "main", "plan", "planned", "run"]

HELP = """\
Find the concepts of the corpus: reads pairs and image_embeddings, writes concepts and pair_concepts.

Without concepts.vocabulary, nouns and noun phrases of the captions are counted over the whole corpus,
singular and plural folded, and those in at least concepts.min_count captions are kept. With it, the
file's lines are the vocabulary. concepts.hold_out=[voc,ade20k] keeps the class names of benchmarks out
(the list of the paper's authors holds 862 of them); the job always reports how many are in."""


def check(config: CocuConfig) -> None:
    """What can be wrong before Spark starts."""
    check_options(config)
    tables.read_manifest(config.workspace, "pairs")
    tables.read_manifest(config.workspace, "image_embeddings")


def check_options(config: CocuConfig) -> None:
    """What can be wrong in the section `concepts`, whatever tables there are."""
    options = config.concepts
    given = vocabulary.read_vocabulary(options.vocabulary) if options.vocabulary else []
    if options.embeddings:
        check_given(options.embeddings, options.vocabulary, len(given))
    else:
        check_clip(config.clip)
    for path in (options.stop_words, options.embeddings):
        if path:
            digest(path)
    vocabulary.select([], hold_out=options.hold_out)  # raises for what is neither word nor benchmark


def run(session: SparkSession, config: CocuConfig) -> Manifest:
    """Build concepts, then pair_concepts."""
    concepts = build_concepts(session, config)
    return build_pair_concepts(session, config, concepts)


def planned(config: CocuConfig) -> list[TableJob]:
    """What is to be built; `pair_concepts` once the vocabulary is there."""
    if kept := kept_concepts(config):
        return [pair_concepts_job(config, kept)]
    first = concepts_job(config)
    concepts = tables.find_manifest(config.workspace, "concepts")
    known = concepts is not None and concepts.recipe == first.recipe
    return [first, pair_concepts_job(config, concepts)] if known else [first]


def plan(config: CocuConfig) -> str:
    """What `--plan` prints."""
    return plan_text(config, "mine_concepts", [("mine_concepts", planned)])


def main() -> None:
    """Entry of spark-submit."""
    from spark_jobs.engine.entry import job_entry

    job_entry("mine_concepts", HELP, ["clip", "concepts"], check, run, plan)


if __name__ == "__main__":
    from spark_jobs.mine_concepts import (
        main as entry,  # by its import name, so that executors find the task's function
    )

    entry()
