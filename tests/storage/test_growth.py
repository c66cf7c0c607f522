"""Which units stand, and what stands for a part's rows."""

from storage.growth import GROWN_FROM, content_of_parts, grew, lineage, mark, standing_units
from storage.manifest import Manifest
from storage.units import Part, UnitRecord


def _record(unit, made_of="", beside="", **extra):
    return UnitRecord(
        unit, (Part(f"{unit}-0", f"_parts/r/{unit}", 1),), 1, extra=extra, made_of=made_of, beside=beside
    )


def _manifest(table, recipe, records=(), **more):
    return Manifest(
        table, "ws", "job", recipe, {}, more.pop("inputs", {}), {}, "0", units=list(records), extra=more
    )


def test_a_mark_tells_job_settings_and_input():
    marks = {mark("a-1", {"x": 1}, "one"), mark("a-2", {"x": 1}, "one"), mark("a-1", {"x": 2}, "one"), mark("a-1", {"x": 1}, "two")}  # fmt: skip
    assert len(marks) == 4
    assert mark("a-1", {"x": 1}, "one") in marks


def test_units_stand_that_are_wanted_as_they_are():
    old = _manifest("t", "r", [_record("a", "1"), _record("b", "2"), _record("c", "3"), _record("d", "4", failed={}), _record("e")])  # fmt: skip
    wanted = {"a": "1", "b": "other", "d": "4", "e": ""}
    assert [record.unit for record in standing_units(old, wanted)] == ["a"]


def test_rows_seen_beside_another_index_are_others():
    one, two = (_manifest("t", "r", [_record("a", "1", beside)]) for beside in ("index1", "index2"))
    assert content_of_parts(one) != content_of_parts(two)
    unmarked, rebuilt = (_manifest("t", recipe, [_record("a")]) for recipe in ("r", "s"))
    assert content_of_parts(unmarked) != content_of_parts(
        rebuilt
    )  # nothing is known of its rows but the whole table


def test_lineage_goes_back_to_the_first():
    grown = _manifest("pairs", "three", **{GROWN_FROM: ["one", "two"]})
    assert lineage(grown) == ["one", "two", "three"]
    for recipe, expected in (("one", True), ("three", True), ("zero", False)):
        assert grew(_manifest("concepts", "c", inputs={"pairs": recipe}), [grown]) is expected
