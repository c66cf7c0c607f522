"""Captions as people write them: one or two salient things in their own words, the rest left out."""

from __future__ import annotations

import numpy as np

from demo.world.scenes import GROUND_LABELS, LABELS, Scene

__all__ = [
    "SURFACE_FORMS",
    "concept_forms",
    "full_caption",
    "named_chance",
    "phrase",
    "singular_forms",
    "write_caption",
]

SURFACE_FORMS: dict[str, tuple[tuple[str, str], ...]] = {
    "airplane": (("airplane", "airplanes"), ("plane", "planes"), ("jet", "jets")),
    "ball": (("ball", "balls"), ("beach ball", "beach balls")),
    "bench": (("bench", "benches"), ("park bench", "park benches")),
    "bicycle": (("bicycle", "bicycles"), ("bike", "bikes")),
    "bird": (("bird", "birds"), ("gull", "gulls"), ("seagull", "seagulls")),
    "boat": (("boat", "boats"), ("ship", "ships"), ("yacht", "yachts")),
    "bus": (("bus", "buses"), ("coach", "coaches")),
    "cactus": (("cactus", "cacti"),),
    "cake": (("cake", "cakes"), ("birthday cake", "birthday cakes")),
    "car": (("car", "cars"), ("automobile", "automobiles")),
    "cat": (("cat", "cats"), ("kitten", "kittens")),
    "chair": (("chair", "chairs"),),
    "clock": (("clock", "clocks"), ("wall clock", "wall clocks")),
    "cow": (("cow", "cows"), ("bull", "bulls")),
    "dog": (("dog", "dogs"), ("puppy", "puppies"), ("hound", "hounds")),
    "flower": (("flower", "flowers"), ("daisy", "daisies")),
    "horse": (("horse", "horses"), ("pony", "ponies")),
    "hot air balloon": (("hot air balloon", "hot air balloons"), ("balloon", "balloons")),
    "house": (("house", "houses"), ("cottage", "cottages")),
    "kite": (("kite", "kites"),),
    "lighthouse": (("lighthouse", "lighthouses"),),
    "person": (("person", "people"), ("man", "men"), ("woman", "women")),
    "sheep": (("sheep", "sheep"), ("lamb", "lambs")),
    "snowman": (("snowman", "snowmen"),),
    "table": (("table", "tables"), ("desk", "desks")),
    "tent": (("tent", "tents"),),
    "traffic light": (("traffic light", "traffic lights"), ("stoplight", "stoplights")),
    "train": (("train", "trains"), ("locomotive", "locomotives")),
    "tree": (("tree", "trees"),),
    "umbrella": (("umbrella", "umbrellas"), ("parasol", "parasols")),
    "sky": (("sky", "skies"),),
    "sunset": (("sunset", "sunsets"), ("dusk", "dusks")),
    "mountain": (("mountain", "mountains"), ("mountain range", "mountain ranges")),
    "forest": (("forest", "forests"), ("pine forest", "pine forests")),
    "grass": (("grass", "grasses"), ("meadow", "meadows"), ("lawn", "lawns")),
    "field": (("field", "fields"), ("farmland", "farmlands")),
    "water": (("water", "waters"), ("sea", "seas"), ("ocean", "oceans")),
    "sand": (("sand", "sands"), ("beach", "beaches"), ("desert", "deserts")),
    "snow": (("snow", "snows"),),
    "road": (("road", "roads"), ("street", "streets")),
    "floor": (("floor", "floors"), ("tile floor", "tile floors")),
    "wall": (("wall", "walls"),),
}
"""label -> (singular, plural) of every word that captions use for it, the label itself first."""

_MASS = {"grass", "water", "sand", "snow", "farmland", "dusk"}
_NUMBERS = {
    2: ("two", "two", "a pair of", "a couple of"),
    3: ("three", "three", "some"),
    4: ("four", "several", "some"),
}
_ADJECTIVES = ("small", "big", "lovely", "old", "beautiful", "little", "colorful", "pretty")
_GROUND_ADJECTIVES = ("beautiful", "quiet", "lovely", "wide")
_ALONE = (
    "{0}",
    "a photo of {0}",
    "{0} on a fine day",
    "a picture of {0}",
    "{0} in the distance",
    "view of {0}",
    "here is {0}",
    "we saw {0}",
)
_TWO_THINGS = (
    "{0} and {1}",
    "{0} with {1}",
    "{0} next to {1}",
    "{0} beside {1}",
    "{0} near {1}",
    "{1} behind {0}",
    "photo of {0} and {1}",
)
_PLACES: dict[str, tuple[str, ...]] = {
    "sky": ("under", "against"),
    "sunset": ("at", "before", "against"),
    "mountain": ("in front of", "below"),
    "forest": ("in front of", "near", "by"),
    "grass": ("on", "in"),
    "field": ("in", "by"),
    "water": ("by", "near", "at"),
    "sand": ("on", "at"),
    "snow": ("in", "on"),
    "road": ("on", "by", "along"),
    "floor": ("on",),
    "wall": ("by", "in front of", "against"),
}
_VAGUE = (
    "a wonderful day",
    "our holiday memories",
    "what a view",
    "weekend mood",
    "a moment to remember",
    "a picture for the album",
)


def singular_forms(label: str) -> list[str]:
    """The singular words for ``label``, the label itself first."""
    return [singular for singular, _ in SURFACE_FORMS[label]]


def concept_forms() -> dict[str, list[str]]:
    """label -> words a vocabulary may hold for it: singular forms, the label first, then plurals.

    Vocabularies fold plurals; the irregular ones ("people", "cacti") are listed for those that do not.
    """
    plurals = {label: [plural for _, plural in SURFACE_FORMS[label]] for label in LABELS}
    return {label: list(dict.fromkeys(singular_forms(label) + plurals[label])) for label in LABELS}


def phrase(rng: np.random.Generator, label: str, count: int, adjectives: float = 0.25) -> str:
    """A noun phrase for ``count`` instances of ``label``: synonym, article or number, now and then an adjective."""
    forms = SURFACE_FORMS[label]
    chosen = 0 if rng.random() < 0.55 else int(rng.integers(len(forms)))
    singular, plural = forms[chosen]
    words = _GROUND_ADJECTIVES if label in GROUND_LABELS else _ADJECTIVES
    adjective = f"{words[rng.integers(len(words))]} " if rng.random() < adjectives else ""
    if label in GROUND_LABELS:
        article = "" if singular in _MASS and rng.random() < 0.4 else "the "
        return f"{article}{adjective}{singular}"
    if count > 1 and rng.random() < 0.85:
        numbers = _NUMBERS[min(count, 4)]
        return f"{numbers[rng.integers(len(numbers))]} {adjective}{plural}"
    words = f"{adjective}{singular}"
    if rng.random() < 0.15:
        return f"the {words}"
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def named_chance(scene: Scene) -> dict[str, float]:
    """How likely each visible label is to be the first one named: it grows with area; things come before grounds."""
    size = scene.mask.size
    weights = {
        label: (area / size) ** 0.7 * (0.07 if label in GROUND_LABELS else 1.0)
        for label, area in scene.areas.items()
    }
    total = sum(weights.values())
    return {label: weight / total for label, weight in weights.items()}


def _choose(rng: np.random.Generator, scene: Scene) -> list[str]:
    chances = named_chance(scene)
    labels = list(chances)
    number = min(int(rng.choice((1, 2), p=(0.55, 0.45))), len(labels))
    drawn = rng.choice(len(labels), number, replace=False, p=np.fromiter(chances.values(), float))
    return sorted((labels[i] for i in drawn), key=lambda label: label in GROUND_LABELS)


def write_caption(scene: Scene, rng: np.random.Generator) -> tuple[str, list[str]]:
    """(caption, labels it names): one or two visible labels, salient ones far more often; 3 % name none."""
    if rng.random() < 0.03:
        return str(rng.choice(_VAGUE)), []
    named = _choose(rng, scene)
    phrases = [phrase(rng, label, scene.counts[label]) for label in named]
    if len(named) == 2 and named[1] in GROUND_LABELS and named[0] not in GROUND_LABELS:
        places = _PLACES[named[1]]
        text = f"{phrases[0]} {places[rng.integers(len(places))]} {phrases[1]}"
    else:
        templates = _ALONE if len(named) == 1 else _TWO_THINGS
        text = templates[rng.integers(len(templates))].format(*phrases)
    return _finish(rng, text), named


def _finish(rng: np.random.Generator, text: str) -> str:
    if rng.random() < 0.6:
        text = text[0].upper() + text[1:]
    return text + ("." if rng.random() < 0.3 else "")


def full_caption(scene: Scene, rng: np.random.Generator) -> tuple[str, list[str]]:
    """(caption, labels) for training the tiny CLIP: a random part of everything visible, in random order.

    A third of them are single-label prompts in CLIP's own style, for any visible label.
    """
    labels = list(scene.areas)
    if rng.random() < 0.35:
        label = labels[rng.integers(len(labels))]
        forms = SURFACE_FORMS[label]
        word = forms[int(rng.integers(len(forms)))][0]
        return (f"a photo of a {word}" if rng.random() < 0.8 else word), [label]
    number = int(rng.integers(1, len(labels) + 1))
    named = [labels[i] for i in rng.permutation(len(labels))[:number]]
    phrases = [phrase(rng, label, scene.counts[label], 0.1) for label in named]
    text = phrases[0] if number == 1 else ", ".join(phrases[:-1]) + " and " + phrases[-1]
    return (f"a photo of {text}" if rng.random() < 0.3 else text), named
