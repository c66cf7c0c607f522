"""Captions sorted into buckets once are those that are found by reading the tables through."""

from __future__ import annotations

import zipfile
from dataclasses import replace

import numpy as np
import pytest

from configs.schema import CorpusConfig, IngestConfig
from corpora.readers import csv_table, yfcc_captions
from corpora.readers.open_shard import read_samples
from corpora.shards import list_shards
from spark_jobs.ingest import with_sorted_captions
from tests.corpora.ingest_inputs import jpeg


@pytest.fixture
def corpus(tmp_path):
    """Nine zips of photos of random names, and two tables that name them, others and some twice."""
    source = np.random.default_rng(4)
    names = ["".join(source.choice(list("0aF.é"), 6)).strip(".") + f"{n}" for n in range(90)]
    (tmp_path / "zips").mkdir()
    for zip_number in range(9):
        with zipfile.ZipFile(tmp_path / f"zips/{zip_number}.zip", "w") as archive:
            for name in names[zip_number::9]:
                archive.writestr(f"data/{name}.jpg", jpeg())
    rows = [f"x/{name}.jpg\tcaption of {name} {copy}\tin a second field" for copy in "ab" for name in names]
    rows += [f"x/other{n}.jpg\tno photo" for n in range(50)] + ["a line that is no row", ""]
    source.shuffle(rows)
    header, half = "file\tcaption", len(rows) // 2
    (tmp_path / "a.tsv").write_bytes(("\ufeff" + "\n".join([header, *rows[:half]])).encode())
    (tmp_path / "b.tsv").write_bytes("\r\n".join([header, *rows[half:]]).encode())
    return CorpusConfig("y", "yfcc14m", str(tmp_path / "*.tsv"), image_root=str(tmp_path / "zips"))


def _samples(shards):
    return [
        (shard.name, sample.name, sample.caption, sample.problem)
        for shard in shards
        for sample in read_samples(shard, IngestConfig())
    ]


@pytest.mark.parametrize("held", [1, 500, 64 << 20])
def test_the_same_captions_as_without_sorting(corpus, tmp_path, monkeypatch, held):
    monkeypatch.setattr(yfcc_captions, "_HELD_BYTES", held)
    shards = list_shards(corpus)
    expected = _samples(shards)
    assert len([caption for _, _, caption, _ in expected if caption]) == 90
    found = with_sorted_captions(shards, str(tmp_path / "sorted"))
    assert all(shard.buckets for shard in found)
    assert _samples(found) == expected


def test_each_table_is_read_once_however_many_zips_there_are(corpus, tmp_path, monkeypatch):
    opened = []
    usual = csv_table.read_lines

    def read_lines(address, *arguments, **options):
        opened.append(address)
        return usual(address, *arguments, **options)

    monkeypatch.setattr(yfcc_captions, "read_lines", read_lines)
    found = with_sorted_captions(list_shards(corpus), str(tmp_path / "sorted"))
    _samples(found)
    assert [address.rpartition("/")[2] for address in opened if address.endswith(".tsv")] == [
        "a.tsv",
        "b.tsv",
    ]
    opened.clear()
    assert (
        with_sorted_captions(list_shards(corpus), str(tmp_path / "sorted")) == found
    )  # they are there already
    assert opened == []


def test_buckets_that_are_gone_are_no_missing_captions(corpus, tmp_path):
    shard = replace(list_shards(corpus)[0], buckets=str(tmp_path / "gone"))
    with pytest.raises(RuntimeError, match="gone: the sorted captions are gone; run the job again"):
        _samples([shard])


def test_a_few_zips_read_the_tables_themselves(corpus, tmp_path):
    shards = list_shards(corpus)[:4]
    assert with_sorted_captions(shards, str(tmp_path / "sorted")) == shards
    assert not (tmp_path / "sorted").exists()
