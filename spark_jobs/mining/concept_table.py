"""The table `concepts`: the vocabulary with its text embeddings and their cosines with the corpus' images.

Mean and spread of each concept's cosine, which the calibrated ranking needs, follow exactly from the images' mean
vector and second-moment matrix: E<t,x> = <t, mu>, E<t,x>^2 = t' M t.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import SparkSession

from configs.errors import UserError
from configs.loading import to_plain
from configs.overwrite import may_replace
from configs.schema import CocuConfig
from curation.moments import cosine_statistics
from curation.text import vocabulary
from models.clip import clip_settings
from spark_jobs.engine.commits import build_table
from spark_jobs.engine.concept_vectors import embed_texts, given_vectors
from spark_jobs.engine.session import gpu_profile
from spark_jobs.engine.table_job import TableJob
from spark_jobs.engine.units import finish_unit
from spark_jobs.mining.counting import choose_concepts, lines_of
from spark_jobs.mining.merging import merge_synonyms
from spark_jobs.mining.moments import image_moments
from storage import tables
from storage.growth import grew
from storage.selection import read_selected
from storage.tables import Manifest
from storage.units import Unit, UnitRecord
from storage.vectors import vectors_to_column

__all__ = ["build_concepts", "concepts_job", "digest", "kept_concepts"]

_CHUNK = 1024  # concepts a task embeds


def concepts_job(config: CocuConfig) -> TableJob:
    """What is to be built; its units are found by counting."""
    pairs = read_selected(config, "pairs")
    images = read_selected(config, "image_embeddings")
    options = config.concepts
    settings: dict[str, Any] = to_plain(options)
    if options.merge == "none":
        del settings["merge"]  # tables of before there were merges stay what they are
    for name in ("vocabulary", "stop_words", "embeddings"):
        if settings[name]:
            settings[name] = digest(settings[name])
    settings["word_lists"] = vocabulary.word_lists_digest()
    if not options.embeddings:
        settings["clip"] = clip_settings(config.clip)
        settings["prompt"] = config.clip.prompt
    return TableJob(
        job="mine_concepts",
        table="concepts",
        settings=settings,
        inputs={"pairs": pairs.recipe, "image_embeddings": images.recipe},
        units=(),
        task=concept_unit,
        what="concepts",
        whole=True,  # the rows are the concepts' ids
    )


def build_concepts(session: SparkSession, config: CocuConfig) -> Manifest:
    """Choose the vocabulary and embed it, or find that it is there; says what it shares with benchmarks.

    Once mined it stays when pairs are added, or else all that is made with it would have to be made again.
    """
    pairs = read_selected(config, "pairs")
    images = read_selected(config, "image_embeddings")
    options = config.concepts
    merges: list[dict[str, Any]] = []

    kept = kept_concepts(config)
    if kept is not None:
        print(
            f"mine_concepts: {kept.rows:,} concepts stay as they were mined before pairs were added; "
            "overwrite=true mines again, and makes anew what is made with them",
            flush=True,
        )
        return kept

    def units() -> list[Unit]:
        chosen = choose_concepts(session, config, pairs)
        if options.merge == "synonyms":
            chosen, merges[:] = merge_synonyms(session, config, pairs, images, chosen)
            shown = ", ".join(f"{entry['concept']} -> {entry['into']}" for entry in merges[:10])
            print(f"mine_concepts: {len(merges):,} words merged into others: {shown or 'none'}", flush=True)
        found = image_moments(session, images)
        moments = session.sparkContext.broadcast((found.mean, found.second))  # d x d: 2 MB for d = 512
        print(f"mine_concepts: {len(chosen):,} concepts; cosines over {found.rows:,} images", flush=True)
        lines = lines_of(chosen, options.vocabulary) if options.embeddings else None
        result = []
        for start in range(0, len(chosen), _CHUNK):
            part = slice(start, start + _CHUNK)
            given = (options.embeddings, lines[part]) if lines else None
            payload = (start, chosen[part], config.clip, given, moments)
            result.append(Unit(f"concepts/{start // _CHUNK:05d}", len(chosen[part]), payload))
        return result

    def finish(manifest: Manifest) -> None:
        if options.merge == "synonyms":
            manifest.extra["merges"] = merges
        names = tables.read_parts(manifest, ["concept"]).column("concept").to_pylist()
        manifest.extra["benchmark_classes"] = {
            name: {"held": held, "classes": classes}
            for name, (held, classes, _) in vocabulary.leak_report(names).items()
        }

    job = replace(concepts_job(config), units=units, profile=gpu_profile(session), finish=finish)
    manifest = build_table(session, config, job)
    leaks = manifest.extra.get("benchmark_classes", {})
    text = ", ".join(f"{name} {entry['held']}/{entry['classes']}" for name, entry in leaks.items())
    print(f"mine_concepts: benchmark class names in the vocabulary: {text}", flush=True)
    return manifest


def kept_concepts(config: CocuConfig) -> Manifest | None:
    """The vocabulary of before pairs were added; None where there is none, or ``overwrite`` admits another."""
    inputs = [read_selected(config, "pairs"), read_selected(config, "image_embeddings")]
    done = tables.find_manifest(config.workspace, "concepts")
    if done is None or may_replace(config.overwrite, "concepts") or not grew(done, inputs):
        return None
    settings = concepts_job(config).settings
    same_inputs = done.inputs == {table.table: table.recipe for table in inputs}
    if same_inputs or json.dumps(done.settings, sort_keys=True) != json.dumps(settings, sort_keys=True):
        return None
    return done


def concept_unit(unit: Unit, folder: str, recipe: str) -> UnitRecord:
    """Embed some concepts and measure their cosines with the corpus (runs on an executor)."""
    start, entries, clip, given, moments = unit.payload
    mean, second = moments.value
    names = [concept for concept, _ in entries]
    texts = given_vectors(*given) if given else embed_texts(names, clip)
    if texts.shape[1] != len(mean):
        raise UserError(
            f"the concepts' text embeddings have {texts.shape[1]} dimensions and the images' {len(mean)}: "
            f"concepts and images need the same CLIP"
        )
    average, spread = cosine_statistics(texts, mean, second)
    table = pa.table(
        {
            "concept_id": pa.array(np.arange(start, start + len(names), dtype=np.int32)),
            "concept": names,
            "count": pa.array([count for _, count in entries], pa.int64()),
            "embedding": vectors_to_column(texts.astype(np.float16), texts.shape[1]),
            "cosine_mean": pa.array(average),
            "cosine_std": pa.array(spread),
        }
    )
    return finish_unit(unit, folder, recipe, table)


def digest(path: str) -> str:
    """What stands for a file of the user's in a recipe.

    Raises:
        UserError: no such file.
    """
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file (named in the section concepts)")
    with open(path, "rb") as stream:
        return "sha256:" + hashlib.file_digest(stream, "sha256").hexdigest()[:16]
