"""Words of captions: tokens, and the folding of plural into singular."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from lemminflect import getAllLemmas
from textblob.en import lexicon, tag

__all__ = ["fold", "fold_phrase", "lemmas", "match_words", "pieces", "tokens"]

_WORD = r"[^\W_]+(?:[-'][^\W_]+)*"
_TOKEN = re.compile(_WORD)
# A word, or a mark that ends a phrase: any punctuation, and a hyphen between spaces.
_PIECE = re.compile(rf"{_WORD}|[^\w\s'-]|(?<!\w)-+(?!\w)")
_QUOTES = str.maketrans({"’": "'", "‘": "'", "`": "'", "´": "'", "‐": "-", "‑": "-", "–": " - ", "—": " - "})
_LOOSE_POSSESSIVE = re.compile(r"(?<=\w) 's\b")  # "the man 's hat", as tokenised captions have it
# Where the dictionaries' first answer is not the thing one sees. Garments and tools that are plural only
# would otherwise become "short" and "pant".
_IRREGULAR = {"people": "person", "leaves": "leaf", "feet": "foot"} | {
    word: word
    for word in (
        "glasses sunglasses eyeglasses shorts pants jeans trousers overalls tights leggings pajamas pyjamas scissors "
        "goggles binoculars pliers tongs tweezers headphones earphones clothes sports graffiti fireworks bleachers "
        "rapids woods stairs species series headquarters dice does has is was as us its this his thus"
    ).split()
}


def _plain(text: str) -> str:
    lowered = text.lower()
    if lowered.isascii():
        return lowered
    return unicodedata.normalize("NFKC", lowered.translate(_QUOTES)).replace("\u00ad", "")


def tokens(text: str) -> list[str]:
    """Lower-case words in order; inner hyphens and apostrophes stay, a possessive 's goes."""
    plain = _plain(text)
    words = _TOKEN.findall(plain)
    if "'" not in plain:
        return words
    words = _TOKEN.findall(_LOOSE_POSSESSIVE.sub("'s", plain))
    return [word[:-2] if word.endswith("'s") and len(word) > 2 else word for word in words]


def pieces(text: str) -> list[list[str]]:
    """The words of :func:`tokens` in runs: punctuation and possessives end a run, as no phrase crosses them."""
    runs: list[list[str]] = [[]]
    for piece in _PIECE.findall(_LOOSE_POSSESSIVE.sub("'s", _plain(text))):
        if not piece[0].isalnum():
            runs.append([])
        elif piece.endswith("'s") and len(piece) > 2:
            runs[-1].append(piece[:-2])
            runs.append([])
        else:
            runs[-1].append(piece)
    return [run for run in runs if run]


@lru_cache(maxsize=1 << 18)
def lemmas(word: str, kind: str) -> tuple[str, ...]:
    """The dictionary forms of a word as NOUN or VERB; none if it is never one."""
    return tuple(getAllLemmas(word, upos=kind).get(kind, ())) if word.isascii() and word.isalpha() else ()


@lru_cache(maxsize=1 << 18)
def fold(word: str) -> str:
    """The singular of a lower-case noun; other words stay as they are. Of a hyphenated word, the last part's."""
    known = _IRREGULAR.get(word)
    if known is not None:
        return known
    before, hyphen, last = word.rpartition("-")
    if hyphen:
        return before + hyphen + fold(last)
    found = lemmas(word, "NOUN")
    if not found:
        return _stripped(word)
    if word in found[:1]:
        return word
    if len(found) > 1:
        for lemma in found:
            if tag(lemma)[:1] and tag(lemma)[0][1].startswith("NN"):
                return lemma
    return found[0]


def _stripped(word: str) -> str:
    """For plurals that the dictionary lacks ("pans", "ashcans"): without the s, if that leaves a noun."""
    stem = word[:-1]
    if not word.endswith("s") or len(stem) < 3 or stem[-1] in "sui" or lexicon.get(word, "NNS") != "NNS":
        return word
    known = lexicon.get(stem, "").startswith("NN") or stem in lemmas(stem, "NOUN")
    return stem if known else word


def fold_phrase(phrase: str) -> str:
    """A concept's comparable form: every word folded."""
    return " ".join(fold(word) for word in tokens(phrase))


@lru_cache(maxsize=1 << 18)
def _parts(word: str) -> tuple[str, ...]:
    return tuple(fold(part) for part in word.split("-"))


def match_words(text: str) -> list[str]:
    """The folded words that texts are compared by: parts of hyphenated words are words.

    So "t-shirt", "T shirts" and "t-shirts" are the same, and "tree-lined" names a tree.
    """
    if "-" not in text and text.isascii():
        return [fold(word) for word in tokens(text)]
    return [part for word in tokens(text) for part in _parts(word)]
