"""Nouns and noun phrases of a caption."""

from __future__ import annotations

from curation.text.readings import readings
from curation.text.words import fold, pieces

__all__ = ["noun_phrases"]

# Plain adjective and noun that together are one thing.
_FIXED = frozenset(
    "hot dog,hot air balloon,black bear,brown bear,polar bear,red fox,red panda,high chair,high heel,soft drink,"
    "red wine,white wine,blue jay,great dane,french fry,hard hat,double decker,double decker bus,double bed,hot tub,"
    "hot chocolate,black board,white board,green bean,golden retriever,open fire,wet suit,wide receiver,"
    "flat screen,high school,fast food,light bulb,top hat,light fixture".split(",")
)
_NEVER_FIRST = frozenset("style type kind size someone something anything nothing middle top lot".split())


def noun_phrases(caption: str, max_words: int = 4) -> list[str]:
    """Nouns and noun phrases of a caption, singular, lower case, in order, each once.

    A phrase is up to ``max_words`` words that follow each other without punctuation: nouns, with at most one
    adjective in front ("wooden kitchen table", "kitchen table" and "table", not "wooden kitchen");
    adjectives of colour, size, number and judgement make none ("green grass" is grass).
    """
    found: dict[str, None] = {}
    for run in pieces(caption):
        _phrases_of_run(run, max_words, found)
    return list(found)


def _phrases_of_run(words: list[str], max_words: int, found: dict[str, None]) -> None:
    kinds = readings(words)
    folded = [fold(word) if kind == "N" else word for word, kind in zip(words, kinds, strict=True)]
    for end, kind in enumerate(kinds):
        if kind != "N" or len(folded[end]) < 2:
            continue
        found[folded[end]] = None
        for start in range(end - 1, max(-1, end - max_words), -1):
            if kinds[start] not in "NAGP" or folded[start] in _NEVER_FIRST:
                break
            phrase = " ".join(folded[start : end + 1])
            if kinds[start] != "P" or phrase in _FIXED:
                found[phrase] = None
            if kinds[start] != "N":
                break
