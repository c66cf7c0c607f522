"""The concept vocabulary V: nouns and noun phrases of captions, or a user's list.

The tagger is Pattern's lexicon and rules as TextBlob ships them: both work offline with what their
wheels hold.
"""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
from textblob.en import tag

from configs.errors import UserError
from curation.words import fold, fold_phrase, tokens

__all__ = [
    "benchmark_classes",
    "count_batch",
    "leak_report",
    "noun_phrases",
    "read_stop_words",
    "read_vocabulary",
    "select",
]

_HERE = Path(__file__).parent
# The tagger's mistakes on words that captions are full of.
_NOT_NOUNS = frozenset("top s t re ve ll m d".split())
_NOUNS = frozenset("t-shirt stop goal yoga sushi".split())


def noun_phrases(caption: str, max_words: int = 4) -> list[str]:
    """Nouns and noun phrases of a caption, singular, lower case, in order, each once.

    A phrase is up to ``max_words`` words that follow each other: nouns, with at most one adjective in
    front ("hot air balloon"); adjectives of colour, size, number and judgement make none ("green
    grass" is grass).
    """
    words = tokens(caption)
    if not words:
        return []
    kinds = [_kind(word, label) for word, label in zip(words, _labels(words), strict=True)]
    found: dict[str, None] = {}
    for end, kind in enumerate(kinds):
        if kind != "N":
            continue
        head = fold(words[end])
        if len(head) > 1 and not head.isdigit():
            found[head] = None
        for start in range(end - 1, max(-1, end - max_words), -1):
            if kinds[start] not in "NA" or words[start].isdigit():
                break
            found[
                " ".join([*(fold(word) if kinds[start] == "N" else word for word in words[start:end]), head])
            ] = None
            if kinds[start] == "A":
                break
    return list(found)


def _labels(words: list[str]) -> list[str]:
    tagged = tag(" ".join(words), tokenize=False)
    if len(tagged) != len(words):  # the tagger took something for two words
        return [label for word in words for _, label in tag(word, tokenize=False)[:1] or [(word, "NN")]]
    return [label for _, label in tagged]


def _kind(word: str, label: str) -> str:
    """N for a noun, A for an adjective that may begin a phrase, X for anything else."""
    if word in _NOUNS or (label.startswith("NN") and word not in _NOT_NOUNS):
        return "N"
    return "A" if label == "JJ" and word not in _plain_adjectives() and word not in _NOT_NOUNS else "X"


def count_batch(captions: pa.Array | Sequence[str | None], max_words: int = 4) -> pa.RecordBatch:
    """In how many of these captions each noun or phrase occurs: concept string, count int64."""
    counts: Counter[str] = Counter()
    for caption in captions.to_pylist() if isinstance(captions, pa.Array) else captions:
        if caption:
            counts.update(noun_phrases(caption, max_words))
    return pa.RecordBatch.from_arrays(
        [pa.array(list(counts), pa.string()), pa.array(list(counts.values()), pa.int64())],
        ["concept", "count"],
    )


def select(
    counts: Iterable[tuple[str, int]],
    *,
    min_count: int = 1,
    max_concepts: int = 100_000,
    stop_words: Iterable[str] = (),
    hold_out: Sequence[str] = (),
    keep_order: bool = False,
) -> list[tuple[str, int]]:
    """The vocabulary: what is frequent enough, no stop word, not held out; most frequent first, ties by name.

    A phrase goes too if its last word is a stop word ("side view"). ``hold_out`` holds words, phrases or
    benchmark names (:func:`benchmark_classes`); a concept is held out if it has one of them as whole
    words ("dining table" for "table").

    Raises:
        UserError: an entry of ``hold_out`` that looks like a misspelt benchmark.
    """
    stops = _stop_words() | {fold_phrase(word) for word in stop_words}
    held = _held_out(hold_out)
    longest = max((len(words) for words in held), default=0)
    chosen = [
        (concept, count)
        for concept, count in counts
        if count >= min_count
        and concept not in stops
        and fold(concept.rpartition(" ")[2]) not in stops
        and not _holds(tuple(fold(word) for word in tokens(concept)), held, longest)
    ]
    if not keep_order:
        chosen.sort(key=lambda entry: (-entry[1], entry[0]))
    return chosen[:max_concepts]


def _holds(words: tuple[str, ...], held: set[tuple[str, ...]], longest: int) -> bool:
    return any(
        words[start : start + size] in held
        for size in range(1, longest + 1)
        for start in range(len(words) - size + 1)
    )


def _held_out(entries: Sequence[str]) -> set[tuple[str, ...]]:
    classes = benchmark_classes()
    phrases: list[str] = []
    for entry in entries:
        if entry in classes:
            phrases.extend(classes[entry])
            continue
        near = difflib.get_close_matches(entry, classes, n=1, cutoff=0.8)
        if near or "_" in entry:
            hint = f"; did you mean '{near[0]}'?" if near else f"; benchmarks: {', '.join(classes)}"
            raise UserError(f"concepts.hold_out: '{entry}' is neither a word nor a benchmark{hint}")
        phrases.append(entry)
    return {tuple(fold(word) for word in tokens(phrase)) for phrase in phrases if tokens(phrase)}


def read_vocabulary(path: str) -> list[str]:
    """A user's list, one concept a line (empty lines and # comments left out), folded doubles kept once.

    Raises:
        UserError: no such file, not UTF-8, no concept in it, or a line without a word.
    """
    concepts: list[str] = []
    for number, line in enumerate(_lines(path, "concepts.vocabulary"), 1):
        text = " ".join(line.split())
        if not text or text.startswith("#"):
            continue
        if not tokens(text):
            raise UserError(f"{path}, line {number}: '{text[:40]}' has no word in it")
        concepts.append(text)
    if not concepts:
        raise UserError(f"{path}: no concept in it; write one a line")
    return concepts


def read_stop_words(path: str) -> list[str]:
    """A user's stop words, one a line."""
    return [
        line.strip()
        for line in _lines(path, "concepts.stop_words")
        if line.strip() and not line.startswith("#")
    ]


def _lines(path: str, option: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise UserError(f"{option}={path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{option}={path}: cannot be read as UTF-8 text: {error}") from None


def benchmark_classes() -> dict[str, list[str]]:
    """Class names of the evaluation benchmarks, background left out; names are facts, see the file's note."""
    return dict(_benchmark_file())


@lru_cache(maxsize=1)
def _benchmark_file() -> dict[str, list[str]]:
    values = json.loads((_HERE / "benchmark_classes.json").read_text(encoding="utf-8"))
    values.pop("note")
    return values


def leak_report(concepts: Iterable[str]) -> dict[str, tuple[int, int, list[str]]]:
    """Per benchmark: how many class names are concepts, how many classes there are, and which are."""
    folded = {fold_phrase(concept) for concept in concepts}
    report = {}
    for benchmark, names in benchmark_classes().items():
        held = [name for name in names if fold_phrase(name) in folded]
        report[benchmark] = (len(held), len(names), held)
    return report


@lru_cache(maxsize=1)
def _stop_words() -> frozenset[str]:
    return frozenset(_word_list("stop_words.txt"))


@lru_cache(maxsize=1)
def _plain_adjectives() -> frozenset[str]:
    return frozenset(_word_list("plain_adjectives.txt"))


def _word_list(name: str) -> list[str]:
    lines = (_HERE / name).read_text(encoding="utf-8").splitlines()
    return [word for line in lines if not line.startswith("#") for word in line.split()]
