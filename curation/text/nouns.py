"""Nouns and noun phrases of a caption.

The tagger is Pattern's lexicon and rules as TextBlob ships them: it works offline with what its wheel holds.
It knows words rather than sentences, so verbs of captions ("a dog jumps") come out as nouns and things
("a sink", "teddy bear") as verbs; the rules here mend what grammar decides: agreement, determiners, endings.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files

from textblob.en import lexicon, tag

from curation.text.words import fold, lemmas, pieces

__all__ = ["noun_phrases", "plain_adjectives", "word_list"]

_HERE = files("curation.text")  # a folder, or inside of cocu.zip on executors
_SINGULAR = frozenset("a an another each every one".split())
_NEVER = frozenset("s t re ve ll m d whilst while via etc vs lot i".split())
_ALWAYS = frozenset("t-shirt goal yoga sushi broccoli graffiti top-hat".split())
# Words in -ing that are things; any other one is an action and names nothing by itself.
_ING_THINGS = frozenset(
    "building painting clothing railing ceiling wedding drawing awning crossing lighting bedding piping tubing "
    "housing dwelling landing stocking carving icing frosting topping dressing stuffing flooring siding molding "
    "outcropping clearing plumbing gathering lightning pudding plaything roofing earring seating flowering "
    "offspring wiring scaffolding fencing decking crossing covering marking etching engraving".split()
)
_PLAIN_THINGS = frozenset({"orange", "light", "square"})  # plain adjectives that are things as well
# Activities that begin the name of a thing though the tagger calls them verbs.
_ING_KINDS = frozenset(
    "swimming washing rocking ironing mixing sewing sleeping racing steering folding".split()
)
# After a singular noun these are what it does, not a second noun ("dog jumps", "street lights").
_DEEDS = frozenset(
    "jumps leaps smiles rides walks runs stands looks waits dances laughs skates races climbs plays poses rests kicks "
    "watches swings slides leans lies sits sleeps swims surfs skis fishes reads works talks drinks bites chases "
    "catches throws hits holds blows licks hikes crawls cheers pulls pushes tackles attempts drives drifts dives "
    "points stares dribbles shoots splashes spins flips grinds grazes perches sprays".split()
)
# Plain adjective and noun that together are one thing.
_FIXED = frozenset(
    "hot dog,hot air balloon,black bear,brown bear,polar bear,red fox,red panda,high chair,high heel,soft drink,"
    "red wine,white wine,blue jay,great dane,french fry,hard hat,double decker,double decker bus,double bed,hot tub,"
    "hot chocolate,black board,white board,green bean,golden retriever,open fire,wet suit,wide receiver".split(
        ","
    )
)


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
    kinds = _kinds(words)
    folded = [fold(word) if kind == "N" else word for word, kind in zip(words, kinds, strict=True)]
    for end, kind in enumerate(kinds):
        if kind != "N" or len(folded[end]) < 2:
            continue
        found[folded[end]] = None
        for start in range(end - 1, max(-1, end - max_words), -1):
            if kinds[start] not in "NAGP":
                break
            phrase = " ".join(folded[start : end + 1])
            if kinds[start] != "P" or phrase in _FIXED:
                found[phrase] = None
            if kinds[start] != "N":
                break


def _kinds(words: list[str]) -> str:
    """One letter a word: N noun, A adjective and G activity that may begin a phrase, P plain adjective, X other."""
    labels = [*_labels(words), "."]
    kinds = ""
    subject = False  # a singular noun that "a" began: a plural after it is its verb
    for place, word in enumerate(words):
        before = kinds[-1:] or "X"
        kind = _kind(words, labels, place, before)
        if kind == "N" and before == "N" and _is_verb(words, labels, place, subject):
            kind = "X"
        if kind == "X":
            subject = word in _SINGULAR
        kinds += kind
    return kinds


def _kind(words: list[str], labels: list[str], place: int, before: str) -> str:
    word, label = words[place], labels[place]
    sort = _sort(word)
    if sort in "XN":
        return sort
    goes_on = labels[place + 1].startswith(("NN", "JJ"))
    noun = label.startswith("NN")
    if sort == "P":
        return "N" if word in _PLAIN_THINGS and not goes_on else "P"
    if sort == "G":
        return "G" if goes_on and (noun or word in _ING_KINDS) else "X"
    if noun or (sort == "H" and not goes_on):
        return "N" if sort != "V" else "X"
    if label.startswith(("VB", "JJ")) and _is_thing_here(words, labels, place, before):
        if not goes_on:
            return "N"
        if label == "VB":  # "a stop sign"
            return "G"
    return "A" if label == "JJ" else "X"


@lru_cache(maxsize=1 << 18)
def _sort(word: str) -> str:
    """What the word alone decides: X never a noun, N always, P plain adjective, G activity, V only a verb,
    H a hyphenated word that ends in a noun, W none of these."""
    if word in _NEVER or any(letter.isdigit() for letter in word):
        return "X"
    if fold(word) in _ALWAYS or word in _ING_THINGS:
        return "N"
    if word in plain_adjectives():
        return "P"
    last = word.rpartition("-")[2]
    if last != word and lexicon.get(last, "").startswith("NN"):
        return "H"
    verb = lemmas(word, "VERB")
    if word.endswith("ing") and verb and word not in verb[:1]:
        return "G"
    return "V" if verb and word not in lexicon and not lemmas(word, "NOUN") else "W"


def _is_thing_here(words: list[str], labels: list[str], place: int, before: str) -> bool:
    """A word tagged as verb or adjective stands where only a noun can: "a sink", "two bears", "teddy bear"."""
    label = labels[place]
    if place == 0 or label in ("VBD", "VBN", "VBG") or not lemmas(words[place], "NOUN"):
        return False
    if before == "N":  # a verb after a singular noun would end in s
        return label in ("VB", "VBP") and fold(words[place - 1]) == words[place - 1]
    return before in "AP" or labels[place - 1] in ("DT", "PRP$", "CD")


def _is_verb(words: list[str], labels: list[str], place: int, subject: bool) -> bool:
    """A word tagged as a noun, after a noun, is what that noun does."""
    word, previous = words[place], words[place - 1]
    if not lemmas(word, "VERB"):
        return False
    if fold(previous) != previous:  # "children smile"; names of things seldom begin with a plural
        return fold(word) == word
    if fold(word) == word:
        return False
    # "a dog jumps": two nouns after "a" would end in a singular
    return subject or word in _DEEDS or labels[place + 1] in ("DT", "PRP$", "PRP")


def _labels(words: list[str]) -> list[str]:
    tagged = tag(" ".join(words), tokenize=False)
    if len(tagged) != len(words):  # the tagger took something for two words
        return [label for word in words for _, label in tag(word, tokenize=False)[:1] or [(word, "NN")]]
    return [label for _, label in tagged]


@lru_cache(maxsize=1)
def plain_adjectives() -> frozenset[str]:
    """Adjectives that with a noun name nothing new."""
    return frozenset(word_list("plain_adjectives.txt"))


def word_list(name: str) -> list[str]:
    """The words of a file beside this one; lines that begin with # are notes."""
    lines = (_HERE / name).read_text(encoding="utf-8").splitlines()
    return [word for line in lines if not line.startswith("#") for word in line.split()]
