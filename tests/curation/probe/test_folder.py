"""The probe on disk: mapped as it was written, and what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from configs.errors import UserError
from curation.probe import Probe, open_probe, write_probe
from tests.curation.synthetic import make_corpus, probe_of


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> tuple[Path, Probe]:
    fitted = probe_of(make_corpus(120, d=16, concepts=30))
    probe = replace(fitted, facts={"rho": 1.0, "rows": 120})
    folder = tmp_path_factory.mktemp("probe") / "probe"
    write_probe(folder, probe)
    return folder, probe


def test_it_is_mapped_as_it_was_written(written):
    folder, probe = written
    opened = open_probe(folder, check="full")
    for name in ("mean", "weights", "biases", "counts", "naming"):
        assert getattr(opened, name).tobytes() == getattr(probe, name).tobytes()
        assert isinstance(getattr(opened, name), np.memmap)
    assert (opened.facts["rho"], opened.facts["rows"], opened.facts["concepts"]) == (1.0, 120, 30)
    assert not folder.with_name("probe.building").exists()


def damaged(written: tuple[Path, Probe], tmp_path: Path) -> Path:
    return Path(shutil.copytree(written[0], tmp_path / "copy"))


def test_a_missing_a_shortened_and_an_altered_file_are_each_one_error(written, tmp_path):
    copy = damaged(written, tmp_path)
    weights = (copy / "weights.npy").read_bytes()
    (copy / "weights.npy").write_bytes(weights[:-4])
    with pytest.raises(UserError, match=r"weights\.npy has .* bytes"):
        open_probe(copy)
    (copy / "weights.npy").write_bytes(weights[:-1] + b"\x55")
    open_probe(copy)
    with pytest.raises(UserError, match=r"weights\.npy has another checksum"):
        open_probe(copy, check="full")
    (copy / "weights.npy").unlink()
    with pytest.raises(UserError, match=r"weights\.npy is missing"):
        open_probe(copy)


def test_no_probe_and_another_versions_say_what_to_run(written, tmp_path):
    with pytest.raises(UserError, match="run fit_probe first"):
        open_probe(tmp_path)
    copy = damaged(written, tmp_path)
    facts = json.loads((copy / "probe.json").read_text())
    (copy / "probe.json").write_text(json.dumps({**facts, "format": "cocu-probe-9"}))
    with pytest.raises(UserError, match="cocu-probe-9"):
        open_probe(copy)
    for text, message in (
        ("{}", "is no description of probe files; run fit_probe again"),
        ("{", r"probe\.json: not valid JSON: .*; run fit_probe again"),
        (json.dumps({**facts, "d": 3}).replace('"d"', '"D"'), "lacks d; run fit_probe again"),
    ):
        (copy / "probe.json").write_text(text)
        with pytest.raises(UserError, match=message):
            open_probe(copy)
