from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import weakref
import zipfile
import zipimport

from spark_jobs.engine.waves import map_units
from spark_jobs.engine.worker_imports import forget_zip_importers, freeze_modules
from storage.units import Unit


def test_zips_are_read_no_more_and_still_imported_from(tmp_path, monkeypatch):
    archive = tmp_path / "shipped.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for name in (
            "shipped_a/__init__",
            "shipped_a/first",
            "shipped_a/inner/__init__",
            "shipped_a/inner/late",
        ):
            file.writestr(f"{name}.py", f"NAME = {name!r}")
    monkeypatch.syspath_prepend(str(archive))
    assert importlib.import_module("shipped_a.first").NAME == "shipped_a/first"
    read = []
    whole = zipimport._read_directory
    monkeypatch.setattr(zipimport, "_read_directory", lambda path: read.append(path) or whole(path))
    importlib.invalidate_caches()
    assert read.count(str(archive)) >= 2, "this Python reads a zip again for each package inside"
    assert forget_zip_importers() >= 2
    read.clear()
    importlib.invalidate_caches()
    assert read == []
    assert importlib.import_module("shipped_a.inner.late").NAME == "shipped_a/inner/late"
    assert str(archive) not in read

    # An archive that comes later is found, as PySpark means its call to see to.
    added = tmp_path / "added.zip"
    with zipfile.ZipFile(added, "w") as file:
        file.writestr("shipped_b.py", "NAME = 'b'")
    sys.path.insert(0, str(added))
    importlib.invalidate_caches()
    assert importlib.import_module("shipped_b").NAME == "b"


def test_a_worker_meets_its_next_task_without_them(spark):
    def look(_unit: Unit) -> str:
        finders = [str(finder) for finder in sys.path_importer_cache.values()]
        return json.dumps([os.getpid(), sum("zipimporter" in finder for finder in finders)])

    units = [Unit(str(number), 0) for number in range(8)]
    first = [json.loads(line) for line in map_units(spark, units, look)]
    later = [json.loads(line) for line in map_units(spark, units, look)]
    known = {process for process, _ in first}
    assert [found for process, found in later if process in known]
    assert {found for process, found in later if process in known} == {0}


def test_what_modules_bring_along_is_collected_no_more_and_garbage_still_is(tmp_path, monkeypatch):
    class Thing:
        pass

    def leave_a_cycle() -> weakref.ref[Thing]:
        thing = Thing()
        thing.self = thing
        return weakref.ref(thing)

    (tmp_path / "brought.py").write_text("KEPT = [[number] for number in range(1000)]")
    monkeypatch.syspath_prepend(str(tmp_path))
    gc.disable()  # what it collects by itself is not what is asked here
    try:
        old = leave_a_cycle()
        importlib.import_module("brought")
        assert freeze_modules()
        assert old() is None, "garbage is not kept for ever"
        frozen = gc.get_freeze_count()
        assert frozen > 1000
        assert len(gc.get_objects()) < 1000
        assert not freeze_modules(), "nothing was imported"
        late = leave_a_cycle()
        gc.collect()
        assert late() is None
        assert gc.get_freeze_count() <= frozen
    finally:
        gc.enable()
        gc.unfreeze()


def test_a_worker_collects_little_after_a_task(spark):
    """Torch is loaded in the first task, and its objects are looked through once."""

    def look(_unit: Unit) -> str:
        import torch  # noqa: F401

        return json.dumps([os.getpid(), len(gc.get_objects()), gc.get_freeze_count()])

    units = [Unit(str(number), 0) for number in range(8)]
    first = [json.loads(line) for line in map_units(spark, units, look)]
    later = [json.loads(line) for line in map_units(spark, units, look)]
    known = {process for process, *_ in first}
    found = [counts for process, *counts in later if process in known]
    assert found
    for collected, frozen in found:
        assert frozen > 50_000
        assert collected < frozen / 5
