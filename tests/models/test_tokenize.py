"""Token ids are open_clip's, also where a text is cut into pieces that were met before."""

from __future__ import annotations

import random

import pytest

from models.tokenize import _PLAIN, token_ids

# isort: split
from open_clip.tokenizer import SimpleTokenizer

BITS = [
    "'s", "'S", "'re", "'ll", "''", "'", "''s", "'vets", '"', "!!", ">", "=", "->", "~", "\\n", "\\u00e9", "[", "{", "#",
    "@", "1", "23", "dog", "Dogs", "CAT", "ing", " ", "  ", "%", "_", "`", "amp;", "lt;", ";)", "...", "start_of_text",
]  # fmt: skip
ODD = ["", " ", "a &amp; b", "a<b", "<start_of_text>", "caf\u00e9", "\u201cquoted\u201d", "\u5f69\u8272", "tab\there", "line\nbreak", "\u0130stanbul", "it\u2019s"]  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer():
    return SimpleTokenizer()


def test_ids_are_those_of_the_tokenizer_whatever_the_text(tokenizer):
    source = random.Random(0)
    made = ["".join(source.choice(BITS) for _ in range(source.randint(0, 14))) for _ in range(2000)]
    made += ["".join(chr(source.randint(32, 126)) for _ in range(source.randint(0, 60))) for _ in range(2000)]
    different = [text for text in (*made, *ODD) if token_ids(text).tolist() != tokenizer.encode(text)]
    assert different == []
    plain = sum(_PLAIN.fullmatch(text) is not None for text in made)
    assert 0.3 * len(made) < plain < len(made)  # both ways were gone


def test_a_plain_text_of_known_words_is_not_given_to_the_tokenizer(monkeypatch):
    before = token_ids("A dog, it's by the sea.").tolist()
    monkeypatch.setattr("models.tokenize._tokenizer", None)
    assert token_ids("A dog, it's by the sea.").tolist() == before
