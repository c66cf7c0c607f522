"""What a word is by itself, before its neighbours are looked at: the word lists and the tagger's lexicon."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files

from textblob.en import lexicon

from curation.text.words import fold, lemmas

__all__ = ["is_being", "listed", "sort_of", "word_list"]

_HERE = files("curation.text")  # a folder, or inside of cocu.zip on executors


def word_list(name: str) -> list[str]:
    """The words of a file beside this one; lines that begin with # are notes."""
    lines = (_HERE / name).read_text(encoding="utf-8").splitlines()
    return [word for line in lines if not line.startswith("#") for word in line.split()]


_NEVER = frozenset(
    "s t re ve ll m d whilst while via etc vs i does indoors outdoors onstage underwater".split()
) | frozenset(word_list("web_words.txt"))
_ALWAYS = frozenset("t-shirt goal yoga sushi broccoli graffiti top-hat".split())
# Words in -ing that are things; any other one is an action and names nothing by itself.
_ING_THINGS = frozenset(
    "clothing railing ceiling wedding awning lighting bedding piping tubing housing dwelling stocking frosting "
    "topping siding molding outcropping plumbing lightning pudding plaything roofing earring seating flowering "
    "offspring wiring scaffolding fencing decking".split()
)
_ING_THINGS_OR_DEEDS = frozenset(
    "building painting drawing crossing landing carving icing dressing stuffing flooring clearing gathering "
    "covering marking etching engraving coloring".split()
)


@lru_cache(maxsize=1 << 18)
def sort_of(word: str) -> str:
    """What the word alone decides.

    X never a noun, N always, A an adjective of kind, P plain adjective, G activity, I thing in -ing or deed,
    D and S a deed in its base form and in -s that is a thing as well, L a lot, V only a verb, H a hyphenated
    word that ends in a noun, W none of these.
    """
    if word in _NEVER or any(letter.isdigit() for letter in word):
        return "X"
    if fold(word) in _ALWAYS or word in _ING_THINGS:
        return "N"
    if word in ("lot", "lots"):
        return "L"
    if word in _ING_THINGS_OR_DEEDS:
        return "I"
    if word in listed("plain_adjectives.txt"):
        return "P"
    return _sort_by_form(word)


def _sort_by_form(word: str) -> str:
    last = word.rpartition("-")[2]
    if word in listed("participles.txt") or (last != word and last in ("covered", "lined", "shaped")):
        return "A"
    if last != word and lexicon.get(last, "").startswith("NN"):
        return "H"
    verb = lemmas(word, "VERB")
    if word.endswith("ing") and verb and word not in verb[:1]:
        return "G"
    if word not in lexicon and verb and not lemmas(word, "NOUN"):
        return "V"
    deed = next((lemma for lemma in verb if lemma in listed("deeds.txt")), "")
    if deed and word in (deed, f"{deed}s", f"{deed}es", f"{deed[:-1]}ies"):
        return "D" if word == deed else "S"
    return "W"


@lru_cache(maxsize=1 << 18)
def is_being(word: str) -> bool:
    """A person, an animal, or a group of them: somebody who does things."""
    return fold(word) in listed("beings.txt")


@lru_cache(maxsize=8)
def listed(name: str) -> frozenset[str]:
    """The set of a word list's words."""
    return frozenset(word_list(name))
