"""Captions as people read them: no HTML is left, and nothing that only looks like it is taken."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.schema import CorpusConfig, IngestConfig
from corpora.captions import clean_caption
from tests.corpora.ingest_inputs import ingest, jpeg, write_tar

TEXTS = {
    "a dog &amp; a cat on the grass": "a dog & a cat on the grass",
    "a &quot;red&quot; car near a house": 'a "red" car near a house',
    "a&nbsp;boat on the water": "a boat on the water",
    "a bird &lt;3 flowers": "a bird <3 flowers",
    "a dog &#39;smiles&#39; at a man": "a dog 'smiles' at a man",
    "a dog &#x27;smiles": "a dog 'smiles",
    "salt &amp;amp; pepper &amp;lt;3": "salt & pepper <3",
    "rock &amp roll &quot": 'rock & roll "',
    "a house<br>with a tree<BR/>and <b>bold</b> words": "a house with a tree and bold words",
    '<a href="http://x.y?a=1&b=2" target=_blank>Paris</a>': "Paris",
    "&lt;p class=&quot;x&quot;&gt;a paragraph&lt;/p&gt;": "a paragraph",
    "a cat<!-- by the\nway --> sleeps": "a cat sleeps",
    # what stays
    "<PERSON> with a hat": "<PERSON> with a hat",
    "<start> of a race": "<start> of a race",
    "AT&T and R&D; cats &notes": "AT&T and R&D; cats &notes",
    "1 < 2 > 0 and <3": "1 < 2 > 0 and <3",
    "&unknown; words": "&unknown; words",
    "http://x.y/?a=1&lt=2": "http://x.y/?a=1&lt=2",
}


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("kind", [str, bytes])
def test_html_is_resolved_and_nothing_else(text, kind):
    value = text.encode() if kind is bytes else text
    assert clean_caption(value, IngestConfig()) == TEXTS[text]


def test_entities_do_not_count_against_the_limit():
    text = "&quot;" * 30
    assert clean_caption(text, IngestConfig(max_caption_chars=20)) == '"' * 20


def test_all_formats_alike(tmp_path):
    raw, expected = "a dog &amp;amp; a cat<br>outside", "a dog & a cat outside"
    (tmp_path / "files/0").mkdir(parents=True)
    (tmp_path / "files/0/0.jpg").write_bytes(jpeg())
    (tmp_path / "files/0/0.txt").write_text(raw)
    write_tar(tmp_path / "txt.tar", [("0.jpg", jpeg()), ("0.txt", raw.encode())])
    write_tar(tmp_path / "json.tar", [("0.jpg", jpeg()), ("0.json", json.dumps({"caption": raw}).encode())])
    pq.write_table(pa.table({"image": [jpeg()], "caption": [raw]}), tmp_path / "0.parquet")
    (tmp_path / "t.tsv").write_text(f"image\tcaption\nfiles/0/0.jpg\t{raw}\n")
    for kind, path in [
        ("files", "files"),
        ("webdataset", "*.tar"),
        ("parquet", "0.parquet"),
        ("table", "t.tsv"),
    ]:
        found = ingest(
            CorpusConfig("x", kind, f"{tmp_path}/{path}", image_root=str(tmp_path)), tmp_path / kind
        )
        assert {row["caption"] for row in found.pairs} == {expected}, kind
