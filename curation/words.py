"""Words of captions: tokens, and the folding of plural into singular."""

from __future__ import annotations

import re
from functools import lru_cache

from lemminflect import getAllLemmas
from textblob.en import tag

__all__ = ["fold", "fold_phrase", "tokens"]

_TOKEN = re.compile(r"[^\W_]+(?:[-'][^\W_]+)*")
_QUOTES = str.maketrans({"’": "'", "‘": "'", "`": "'", "‐": "-", "‑": "-", "–": " ", "—": " "})
# Where the dictionaries' first answer is not the thing one sees.
_IRREGULAR = {
    "people": "person",
    "leaves": "leaf",
    "feet": "foot",
    "glasses": "glasses",
    "sunglasses": "sunglasses",
}


def tokens(text: str) -> list[str]:
    """Lower-case words in order; inner hyphens and apostrophes stay, a possessive 's goes."""
    words = _TOKEN.findall(text.lower().translate(_QUOTES))
    return [word[:-2] if word.endswith("'s") and len(word) > 2 else word for word in words]


@lru_cache(maxsize=1 << 18)
def fold(word: str) -> str:
    """The singular of a lower-case noun; other words stay as they are."""
    known = _IRREGULAR.get(word)
    if known is not None:
        return known
    # Only what may be a plural is looked up: children, men and mice besides words in s.
    lemmas = getAllLemmas(word, upos="NOUN").get("NOUN", ()) if word.isascii() and word.isalpha() else ()
    if not lemmas or word in lemmas[:1]:
        return word
    if len(lemmas) > 1:
        for lemma in lemmas:
            if tag(lemma)[:1] and tag(lemma)[0][1].startswith("NN"):
                return lemma
    return lemmas[0]


def fold_phrase(phrase: str) -> str:
    """A concept's comparable form: every word folded."""
    return " ".join(fold(word) for word in tokens(phrase))
