"""Which words of a caption are nouns there.

The tagger is Pattern's lexicon and rules as TextBlob ships them: it works offline with what its wheel holds.
It knows words rather than sentences, so verbs of captions ("a dog jumps") come out as nouns and things
("a sink", "teddy bear", "train tracks") as verbs. What stands around a word mends that: determiners,
prepositions, agreement, and whether the noun before it is somebody who can do what the word says.
"""

from __future__ import annotations

from functools import lru_cache

from textblob.en import tag

from curation.text.word_sorts import is_being, listed, sort_of
from curation.text.words import fold, lemmas

__all__ = ["readings"]

_SINGULAR = frozenset("a an another each every one".split())
_PLAIN_THINGS = frozenset({"orange", "light", "square", "interior"})  # plain adjectives and things
_DEED_THINGS = frozenset("drink swing slide shop stand catch display fish splash sign".split())
# Activities that begin names more often than they are done.
_STRONG = frozenset(
    "parking living dining swimming bathing vending ironing rocking sewing folding washing".split()
)
_BE = frozenset("is are was were be been being am isn't aren't".split())
# Determiners that stand for somebody as well ("another watches").
_SOMEBODY = frozenset("another all both each others that this these those who which".split())
_SUBORDINATE = frozenset("as while that who which when where because if to than like".split())
_ADVERBS = frozenset("inside outside nearby around down up off out over behind underneath".split())
_PLACES = ("DT", "PRP$", "CD")
_COLOURS = frozenset(
    "red green blue yellow orange purple pink brown black white grey gray tan gold silver beige".split()
)


def readings(words: list[str]) -> str:
    """One letter for each word of a run without punctuation, lower case.

    N noun, A adjective and G activity that may begin a phrase, P plain adjective, X other.
    """
    labels = [*map(_label, words), "."]
    kinds = ""
    subject = False  # a singular noun that "a" began: a plural after it is its verb
    for place, word in enumerate(words):
        kind = _kind(words, labels, place, kinds, subject)
        if kind == "X":
            subject = word in _SINGULAR
        kinds += kind
    return kinds


def _kind(words: list[str], labels: list[str], place: int, kinds: str, subject: bool) -> str:
    word, label, sort = words[place], labels[place], sort_of(words[place])
    before = kinds[-1:] or "X"
    if sort in "XNA":
        return sort
    if sort == "W" and label.startswith("NN"):
        return "X" if place and _is_verb(words, labels, place, before, subject) else "N"
    goes_on = labels[place + 1].startswith(("NN", "JJ"))
    if sort == "P":
        return _plain_or_thing(word, before, goes_on)
    if sort == "I":
        return "X" if _is_done(words, labels, place, before) else "N"
    if sort == "G":
        goes_on = goes_on or words[place + 1 : place + 2] == ["can"]
        return "G" if goes_on and _begins_a_name(words, labels, place, before) else "X"
    if sort == "L":  # "parking lot", but "a lot of"
        return "N" if before in "GN" or (before in "AP" and words[place + 1 : place + 2] != ["of"]) else "X"
    if sort in "DS":
        return _deed_or_thing(words, labels, place, kinds, subject)
    if sort == "H" and not goes_on:
        return "N"
    if label.startswith(("VB", "JJ", "MD")) and _is_thing_here(words, labels, place, before):
        if goes_on and (label == "JJ" or (label == "VB" and before != "N")):
            return "A" if label == "JJ" else "G"
        return "N"
    return "A" if label == "JJ" else "X"


def _plain_or_thing(word: str, before: str, goes_on: bool) -> str:
    if word in ("top", "tops"):  # "tank top"
        return "N" if before == "N" else "P"
    return "N" if word in _PLAIN_THINGS and not goes_on else "P"


def _is_done(words: list[str], labels: list[str], place: int, before: str) -> bool:
    """A word in -ing is what somebody does: "is painting", "a man crossing the street"."""
    if labels[place + 1] in ("DT", "PRP$", "PRP") or not place:
        return place > 0 or labels[1] in ("DT", "PRP$", "PRP")
    previous = words[place - 1]
    if previous in _BE or (before == "N" and is_being(previous)):
        return " ".join(words[place - 1 : place + 1]) != "pedestrian crossing"
    return previous == "and" and words[place - 2].endswith("ing")


def _begins_a_name(words: list[str], labels: list[str], place: int, before: str) -> bool:
    """An activity before a noun is part of its name: "a climbing wall", but not "a boy climbing rocks"."""
    word = words[place]
    if not (word in listed("activities.txt") or labels[place].startswith("NN")):
        return False
    if is_being(words[place + 1]) or labels[place + 1].startswith("JJ"):
        return False
    if not place:
        return labels[0].startswith("NN") or word in _STRONG
    previous, label = words[place - 1], labels[place - 1]
    if before == "N":
        strong = word in _STRONG or labels[place].startswith("NN")
        return strong and not is_being(previous) and fold(previous) == previous
    if before in "AP" or label in _PLACES:
        return previous not in _SOMEBODY
    if label == "CC":
        return (word in _STRONG or labels[place].startswith("NN")) and not words[place - 2].endswith("ing")
    return previous not in _BE and previous not in _SUBORDINATE and label in ("IN", "VBG", "JJ", "VBN", "VBD")


def _deed_or_thing(words: list[str], labels: list[str], place: int, kinds: str, subject: bool) -> str:
    """A word that is a deed and a thing ("jump", "drinks") is a thing only where grammar leaves no choice."""
    before = kinds[-1:] or "X"
    goes_on = labels[place + 1].startswith("NN")
    thing = _is_deed_as_thing(words, labels, place, kinds, subject)
    if thing and goes_on and before != "N" and not labels[place].startswith("NN"):
        return "G"  # "swim trunks", "a stop sign"
    return "N" if thing else "X"


def _is_deed_as_thing(words: list[str], labels: list[str], place: int, kinds: str, subject: bool) -> bool:
    word = words[place]
    lemma = fold(word)
    if not lemmas(word, "NOUN"):
        return False
    before = kinds[-1:] or "X"
    if not place:
        return labels[0].startswith("NN") and labels[1].startswith("NN")  # "Play equipment"
    previous, label = words[place - 1], labels[place - 1]
    if before == "N":
        if is_being(previous) or fold(previous) != previous:
            return False
        return word == lemma or (word in ("drinks", "displays") and not subject)
    if before in "AP":
        return not _is_dressed_in(words, place - 1)
    if before == "G":
        return True
    if label in _PLACES:
        return previous not in _SOMEBODY and not (label == "CD" and word == lemma and previous != "one")
    if label == "CC":
        return lemma in _DEED_THINGS and kinds[-2:-1] == "N"
    if previous in _SUBORDINATE or previous in _BE:
        return False
    return (label == "IN" and previous not in _ADVERBS) or (label == "VBG" and word != lemma)


def _is_dressed_in(words: list[str], place: int) -> bool:
    """The plain adjectives that end here are colours that somebody wears: "a girl in red"."""
    while place > 0 and (words[place] in _COLOURS or words[place] == "and"):
        place -= 1
    return words[place] == "in"


def _is_thing_here(words: list[str], labels: list[str], place: int, before: str) -> bool:
    """A word tagged as verb or adjective stands where only a noun can: "a sink", "two bears", "train tracks"."""
    word, label = words[place], labels[place]
    found = lemmas(word, "NOUN")
    if not found or label == "VBG":
        return False
    previous, left, right = words[place - 1], labels[place - 1], labels[place + 1]
    if not place:
        return label in ("VB", "VBZ") and right in ("IN", "CC", ".", "NN", "NNS")
    if label in ("VBD", "VBN"):  # "a moped", "a saw"
        return word in found and (left in ("DT", "PRP$") or before == "P") and right[:2] not in ("NN", "JJ")
    if before == "N":
        if fold(previous) != previous:
            return False
        return label in ("VB", "VBP") or (not is_being(previous) and right not in (*_PLACES, "PRP", "VB"))
    if before in "AGP" or left in _PLACES:
        return previous not in _SOMEBODY
    if previous in _SUBORDINATE or previous in _BE or label == "MD":
        return False
    if left == "CC":
        return label in ("VB", "VBZ") and right in ("IN", "CC", ".")
    return left == "IN" or (left == "VBG" and label == "VBZ")


def _is_verb(words: list[str], labels: list[str], place: int, before: str, subject: bool) -> bool:
    """A word tagged as a noun is what the noun before it does, or was done ("has been split")."""
    word, previous = words[place], words[place - 1]
    if before != "N":
        return previous == "been" and word in lemmas(word, "VERB")
    if not lemmas(word, "VERB"):
        return False
    if fold(previous) != previous:  # "children smile"; names of things seldom begin with a plural
        return fold(word) == word
    if fold(word) == word:
        return False
    # "a dog jumps": two nouns after "a" would end in a singular
    return subject or labels[place + 1] in ("DT", "PRP$", "PRP")


@lru_cache(maxsize=1 << 18)
def _label(word: str) -> str:
    """The tagger's label; it looks at no neighbours, so that a word need be looked up but once."""
    return tag(word, tokenize=False)[0][1]
