"""Which metadata file goes with which vectors, and what their rows say, however the files were written."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.errors import UserError
from configs.schema import CorpusConfig
from corpora.captions import Problem
from corpora.delimited import parse_rows, split_fields
from corpora.embedding_files import paired_files
from corpora.readers.metadata_rows import read_metadata


def _corpus(folder, path, metadata, **options):
    return CorpusConfig("ready", "embeddings", f"{folder}/{path}", metadata=f"{folder}/{metadata}", **options)


def _pairs(folder, path, metadata, files):
    for file in files.split():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()
    found = paired_files(_corpus(folder, path, metadata))
    return [tuple(file.removeprefix(f"{folder}/") for file in pair) for pair in found]


EVERY = " ".join(f"v/img_emb_{n}.npy m/metadata_{n:02d}.parquet" for n in range(11))
TOGETHER = {
    "padded and not": ("v/*.npy", "m/*.parquet", EVERY, [("img_emb_2", "metadata_02"), ("img_emb_10", "metadata_10")]),
    "brace ranges": (
        "v/img_emb_{0..10}.npy",
        "m/metadata_{00..10}.parquet",
        EVERY,
        [("img_emb_2", "metadata_02"), ("img_emb_10", "metadata_10")],
    ),
    "a number that all share": (
        "v/*.npy",
        "m/*.parquet",
        "v/laion2b-9.npy v/laion2b-10.npy m/part-09-of-20.parquet m/part-10-of-20.parquet",
        [("laion2b-9", "part-09-of-20"), ("laion2b-10", "part-10-of-20")],
    ),
    "words": ("v/*.npy", "m/*.parquet", "v/b.npy v/a.npy m/a.parquet m/b.parquet", [("a", "a"), ("b", "b")]),
    "folders": (
        "v/*/0.npy",
        "m/*/0.parquet",
        "v/x/0.npy v/y/0.npy m/y/0.parquet m/x/0.parquet",
        [("x/0", "x/0"), ("y/0", "y/0")],
    ),
    "words in braces go by their place": (
        "v/{b,a}.npy",
        "m/{second,first}.parquet",
        "v/a.npy v/b.npy m/first.parquet m/second.parquet",
        [("b", "second"), ("a", "first")],
    ),
    "one and one": ("v/2020.npy", "m/v2.parquet", "v/2020.npy m/v2.parquet", [("2020", "v2")]),
    "one and one that a glob found": ("v/*.npy", "m/*.parquet", "v/emb_0.npy m/all.parquet", [("emb_0", "all")]),
}  # fmt: skip


@pytest.mark.parametrize("name", TOGETHER)
def test_files_are_paired_by_number(tmp_path, name):
    path, metadata, files, expected = TOGETHER[name]
    found = _pairs(tmp_path, path, metadata, files)
    assert len(found) == files.count(".npy")
    stems = [(vectors[2:].removesuffix(".npy"), rows[2:].removesuffix(".parquet")) for vectors, rows in found]
    assert [pair for pair in stems if pair in expected] == expected
    if name in ("padded and not", "brace ranges"):
        assert stems == [(f"img_emb_{n}", f"metadata_{n:02d}") for n in range(11)]


APART = {
    "other numbers": ("v/*.npy", "m/*.pq", "v/0.npy v/1.npy m/1.pq m/2.pq", "no metadata file has the number of .*v/0.npy; there are 1.pq, 2.pq"),
    "other ranges": ("v/{0..1}.npy", "m/{1..2}.pq", "v/0.npy v/1.npy m/1.pq m/2.pq", "no metadata file has the number of .*v/0.npy"),
    "counts": ("v/*.npy", "m/*.pq", "v/0.npy v/1.npy m/0.pq", r"2 .npy files \(.*\) and 1 metadata files"),
    "one of another number": ("v/*.npy", "m/*.pq", "v/emb_0.npy m/meta_1.pq", "no metadata file has the number of .*emb_0.npy; there are meta_1.pq"),
    "equal numbers": ("v/*.npy", "m/*.pq", "v/1.npy v/01.npy m/1.pq m/01.pq", "of equal numbers, so that it is open"),
    "other words": ("v/*.npy", "m/*.pq", "v/a.npy v/b.npy m/c.pq m/d.pq", "no metadata file has the number of"),
}  # fmt: skip


@pytest.mark.parametrize("name", APART)
def test_files_that_may_not_belong_together_are_refused(tmp_path, name):
    path, metadata, files, message = APART[name]
    with pytest.raises(UserError, match=message) as caught:
        _pairs(tmp_path, path, metadata, files)
    assert "\n" not in str(caught.value)


def _rows(folder, name, data, **options):
    (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    corpus = _corpus(folder, "x.npy", name, key_column="key", **options)
    return read_metadata(corpus, f"{folder}/{name}")


def test_a_quote_at_the_beginning_of_a_tsv_field_is_a_character(tmp_path):
    text = 'key\tcaption\n001\t"A dog" he said\n002\ta 5" nail\n003\t"unbalanced at start\n004\ta cat\n'
    found = _rows(tmp_path, "m.tsv", text)
    assert found.keys == ["001", "002", "003", "004"]
    assert found.captions == ['"A dog" he said', 'a 5" nail', '"unbalanced at start', "a cat"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl"])
def test_rows_however_the_file_was_saved(tmp_path, end, mark, suffix):
    lines = {
        "csv": ["key,caption", "2020-01-01,a dog", '12,"one, two"'],
        "tsv": ["key\tcaption", "2020-01-01\ta dog", "12\tone, two"],
        "jsonl": ['{"key": "2020-01-01", "caption": "a dog"}', '{"caption": "one, two", "key": 12}'],
    }[suffix]
    found = _rows(tmp_path, f"m.{suffix}", mark + (end.join(lines) + 2 * end).encode())
    assert (found.keys, found.captions) == (["2020-01-01", "12"], ["a dog", "one, two"])


def test_surplus_fields_belong_to_a_last_caption_and_are_a_reject_before_another_column(tmp_path):
    found = _rows(tmp_path, "m.csv", "key,caption\n1,a dog, a cat, and a bird\n2\n3,x y z\n")
    assert found.keys == ["1", None, "3"]
    assert [found.captions[0], found.captions[2]] == ["a dog, a cat, and a bird", "x y z"]
    assert found.captions[1].reason == "malformed_row"
    found = _rows(tmp_path, "n.tsv", "caption\tkey\na dog\ton grass\t1\na cat\t2\n")
    assert isinstance(found.captions[0], Problem)
    assert found.captions[0].detail == "3 fields of 2"
    assert (found.keys, found.captions[1]) == ([None, "2"], "a cat")


WRONG = {
    "m.jsonl": ('{"key": "1", "caption": "a"}\n{"key"\n', "m.jsonl, line 2: is not JSON"),
    "l.jsonl": ('{"key": "1", "caption": "a"}\n["b"]\n', "l.jsonl, line 2: is no JSON object"),
    "m.csv": ("key,caption\n1,caf\xe9\n".encode("latin-1"), r"m.csv, line 2: is not UTF-8 \(byte 0xe9\)"),
    "m.tsv": ("key\tcaption\n1\ta\n".encode("utf-16"), "m.tsv: is UTF-16 text; save it as UTF-8"),
    "n.csv": ("key,caption,caption\n1,a,b\n", "caption_column=caption is the name of two columns in"),
    "e.csv": ("", "caption_column=caption is not in"),
}


@pytest.mark.parametrize("name", WRONG)
def test_damaged_metadata_is_one_sentence(tmp_path, name):
    data, message = WRONG[name]
    with pytest.raises(UserError, match=message) as caught:
        _rows(tmp_path, name, data)
    assert "\n" not in str(caught.value)


def test_doubled_columns_of_a_parquet_file_are_refused_only_where_they_matter(tmp_path):
    arrays = [pa.array(["1"]), pa.array(["a"]), pa.array(["b"])]
    for name, columns in {"bad": ["key", "caption", "caption"], "fine": ["x", "caption", "x"]}.items():
        pq.write_table(pa.Table.from_arrays(arrays, columns), tmp_path / f"{name}.parquet")
    with pytest.raises(
        UserError, match="is the name of two columns in .*bad.parquet; columns: key, caption, c"
    ):
        read_metadata(_corpus(tmp_path, "x.npy", "x", key_column="key"), f"{tmp_path}/bad.parquet")
    assert read_metadata(_corpus(tmp_path, "x.npy", "x"), f"{tmp_path}/fine.parquet").captions == ["a"]


def test_tsv_fields_against_a_character_by_character_parser():
    """Random tables of tabs, quotes and letters, against the rule spelled out naively."""
    source = np.random.default_rng(11)
    for _ in range(3000):
        line = "".join(source.choice(list('ab""\t'), size=source.integers(0, 14)))
        assert split_fields(line, "\t") == _naive_fields(line), line


def _naive_fields(line: str) -> list[str]:
    fields, place = [], 0
    while True:
        end = _end_of_quoted(line, place)
        if end is not None:
            fields.append(line[place + 1 : end - 1].replace('""', '"'))
        else:
            end = line.find("\t", place) if "\t" in line[place:] else len(line)
            fields.append(line[place:end])
        if end == len(line):
            return fields
        place = end + 1


def _end_of_quoted(line: str, start: int) -> int | None:
    """Where a field in quotes that begins here ends, if one does."""
    if line[start : start + 1] != '"':
        return None
    place = start + 1
    while place < len(line):
        if line[place : place + 2] == '""':
            place += 2
        elif line[place] == '"':
            return place + 1 if place + 1 == len(line) or line[place + 1] == "\t" else None
        else:
            place += 1
    return None


def test_quoted_fields_of_a_tsv_may_hold_line_breaks():
    text = 'caption\tkey\n"two\nlines, one ""quote"""\t1\nplain\t2\n'
    assert parse_rows(text, "\t")[1:] == [['two\nlines, one "quote"', "1"], ["plain", "2"]]
