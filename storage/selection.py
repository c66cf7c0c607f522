"""Selections: which rows of `pairs` and `image_embeddings` the later steps work on. Nothing of those is copied.

The table ``selection`` has the keys that filters have left, part for part. A table that is read under a selection is the
same manifest with other names of files: ``part.parquet#only=ADDRESS``, of which :func:`storage.part_files.read_file`
gives the rows whose keys are at that address, in their order. Its recipe is another one, too, so that whatever is built
from it is told from what is built from all rows.
"""

from __future__ import annotations

from dataclasses import replace

from configs.errors import UserError
from configs.schema import CocuConfig
from storage.addresses import join
from storage.growth import GROWN_FROM
from storage.manifest import Manifest, make_recipe
from storage.part_files import only
from storage.tables import read_manifest
from storage.units import Part, UnitRecord

__all__ = ["TABLE", "read_selected", "selected"]

TABLE = "selection"


def read_selected(config: CocuConfig, table: str) -> Manifest:
    """A finished table, under the selection if the configuration has filters.

    Raises:
        UserError: the table or the selection is not there, or the selection was made by other filters.
    """
    manifest = read_manifest(config.workspace, table)
    if not config.filters.active:
        return manifest
    selection = read_manifest(config.workspace, TABLE)
    if selection.settings.get("filters") != config.filters.settings:
        raise UserError(
            f"the selection in {config.workspace} was made by other filters than this configuration's; run "
            f"select_pairs again with overwrite=[{TABLE}]"
        )
    return selected(manifest, selection)


def selected(manifest: Manifest, selection: Manifest) -> Manifest:
    """``manifest`` with the rows that ``selection`` names.

    Raises:
        UserError: the selection lacks a part, so it was made of another table.
    """
    known = {part.name: part for part in selection.parts}

    def narrowed(part: Part) -> Part:
        keys = known.get(part.name)
        if keys is None:
            raise UserError(
                f"the selection has no part {part.name} of '{manifest.table}'; run select_pairs again with "
                f"overwrite=[{TABLE}]"
            )
        return Part(part.name, only(part.file, join(selection.folder, keys.file)), keys.rows)

    def of_unit(unit: UnitRecord) -> UnitRecord:
        # Its rows are others, which whoever looks for units that stand must see.
        made_of = make_recipe(
            "selected", {}, {"unit": unit.made_of or manifest.recipe, TABLE: selection.recipe}
        )
        return replace(unit, parts=tuple(narrowed(part) for part in unit.parts), made_of=made_of)

    recipe = make_recipe("selected", {}, {manifest.table: manifest.recipe, TABLE: selection.recipe})
    # What was built of all rows has not grown into what is built of some.
    extra = {name: value for name, value in manifest.extra.items() if name != GROWN_FROM}
    return replace(manifest, recipe=recipe, extra=extra, units=[of_unit(unit) for unit in manifest.units])
