"""The training sets that the methods share: curated once, ranked twice, and two more with other words.

``tables/calibrated`` is curated from the corpora. ``tables/paper`` shares its pairs, embeddings, concepts and index
(hard links) and ranks anew. ``tables/captions`` has empty archives: what a method without curation knows, also of its
negatives. ``tables/truth`` has the labels that the scenes really show.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from configs.errors import UserError
from configs.json_files import read_json_lines
from storage import tables
from storage.tables import Manifest

__all__ = ["read_truth", "replace_words", "share_curation"]

_RANKED = ("archives", "training_set", "training_set_webdataset")


def share_curation(source: Path, target: Path) -> None:
    """Give ``target`` all finished tables of ``source`` but those that hold a ranking; what is there stays."""
    target.mkdir(parents=True, exist_ok=True)
    for entry in sorted(source.iterdir()):
        place = target / entry.name
        if not entry.is_dir() or entry.name in _RANKED or place.exists():
            continue
        partial = target / f".{entry.name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(entry, partial, copy_function=_link)
        partial.rename(place)


def _link(source: str, target: str) -> None:
    # Tables are never written into: a link is as good as a copy. Other files (locks, manifests) are replaced whole.
    os.link(source, target)


def replace_words(source: Path, target: Path, words: Mapping[str, Sequence[str]], name: str) -> Manifest:
    """The training set of ``source`` in ``target``, its archives replaced by ``words`` (by key; none: empty).

    All of a row's words have one score and a cluster each, so that every draw is as likely as another.

    Args:
        name: of what stands in the archives, for the recipe.

    Raises:
        UserError: no training set, or a key that ``words`` does not know where it knows any.
    """
    old = tables.read_manifest(str(source), "training_set")
    settings = {**old.settings, "words": name}
    recipe = tables.make_recipe("experiment", settings, {"training_set": old.recipe})
    done = tables.find_manifest(str(target), "training_set")
    if done is not None and done.recipe == recipe:
        return done
    new = dataclasses.replace(
        old, workspace=str(target), recipe=recipe, settings=settings, inputs={"training_set": old.recipe}
    )
    for address, file in zip(old.files, (part.file for part in old.parts), strict=True):
        source_file = pq.ParquetFile(
            address
        )  # row groups stay as they are: the order of training is cut from them
        table = _with_words(source_file.read(), words)
        groups = source_file.metadata.row_group(0).num_rows
        tables.write_part(new.folder, file, table, table.schema, row_group_rows=groups)
    tables.write_manifest(new)
    return new


def _with_words(table: pa.Table, words: Mapping[str, Sequence[str]]) -> pa.Table:
    length = int(table.schema.field("archive_concepts").metadata[b"length"])
    rows = [list(_words_of(key, words))[:length] for key in table.column("key").to_pylist()]
    counts = [len(row) for row in rows]
    columns = {
        "archive_concepts": [row + [""] * (length - len(row)) for row in rows],
        "archive_scores": [[1.0] * count + [0.0] * (length - count) for count in counts],
        "archive_clusters": [[*range(count), *[-1] * (length - count)] for count in counts],
    }
    for column, values in columns.items():
        place = table.schema.get_field_index(column)
        field = table.schema.field(place)
        table = table.set_column(place, field, pa.array(values, field.type))
    return table


def _words_of(key: str, words: Mapping[str, Sequence[str]]) -> Sequence[str]:
    if not words:
        return ()
    if key not in words:
        raise UserError(f"experiment: the truth does not know the pair {key}; is it of another corpus?")
    return words[key]


def read_truth(path: Path) -> dict[str, list[str]]:
    """Key -> labels of report.truth, in order of their area.

    Raises:
        UserError: the file is not there, or a line is not as expected.
    """
    truth: dict[str, list[str]] = {}
    for where, row in read_json_lines(path, "report.truth"):
        if not isinstance(row.get("key"), str) or not isinstance(row.get("labels"), list):
            raise UserError(f"{where}: needs a key and a list of labels")
        truth[row["key"]] = [str(label) for label in row["labels"]]
    return truth
