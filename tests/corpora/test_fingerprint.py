"""Every file that decides rows is in the fingerprint: added, gone, replaced or rewritten, it shows."""

from __future__ import annotations

import os
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.schema import CorpusConfig
from corpora.fingerprint import fingerprint, image_stamps
from corpora.shards import list_shards
from tests.corpora.ingest_inputs import jpeg, members, write_tar


def _write(folder):
    """A corpus of every format: {format: (path, image_root, a file that decides rows, one to add)}."""
    for name in ("files/0/a.jpg", "files/b.jpg", "images/deep/a.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(jpeg())
    write_tar(folder / "tars/0.tar", members("0", jpeg(), "a caption"))
    pq.write_table(pa.table({"image": [jpeg()], "caption": ["x"]}), folder / "0.parquet")
    (folder / "t.tsv").write_text("image\tcaption\ndeep/a.jpg\ta dog\n")
    (folder / "zips").mkdir()
    with zipfile.ZipFile(folder / "zips/0.zip", "w") as archive:
        archive.writestr("a.jpg", jpeg())


CASES = {
    "a tar": ("webdataset", "tars", "", "tars/0.tar"),
    "a Parquet file": ("parquet", "*.parquet", "", "0.parquet"),
    "a file of a folder": ("files", "files", "", "files/0/a.jpg"),
    "a file of the root": ("files", "files", "", "files/b.jpg"),
    "a table": ("table", "t.tsv", "images", "t.tsv"),
    "an image that a table names": ("table", "t.tsv", "images", "images/deep/a.jpg"),
    "YFCC's table": ("yfcc14m", "t.tsv", "zips", "t.tsv"),
    "a zip": ("yfcc14m", "t.tsv", "zips", "zips/0.zip"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_file_that_is_another_one_shows(tmp_path, case):
    _write(tmp_path)
    kind, path, root, file = CASES[case]
    image_root = str(tmp_path / root) if root else ""
    column = {"caption_column": "caption", "image_column": "image"}
    corpus = CorpusConfig("x", kind, str(tmp_path / path), image_root, **column)

    def now():
        return fingerprint(list_shards(corpus), image_stamps([corpus]))

    chosen = tmp_path / file
    data, stat = chosen.read_bytes(), chosen.stat()
    first = now()
    assert now() == first
    os.utime(chosen, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000_000))  # rewritten with as many bytes
    assert now() != first
    chosen.write_bytes(data + b"\n")
    os.utime(chosen, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # grown, and its time set back
    assert now() != first
    chosen.write_bytes(data)
    os.utime(chosen, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert now() == first
    if "table" not in case:
        chosen.with_name(f"new{chosen.suffix}").write_bytes(data)
        assert now() != first
