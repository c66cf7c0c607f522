"""The concept vocabulary V: counted nouns and noun phrases of captions, or a user's list."""

from __future__ import annotations

import difflib
import hashlib
import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Any

import pyarrow as pa

from configs.errors import UserError
from configs.text_files import read_lines
from curation.text.nouns import noun_phrases
from curation.text.word_sorts import word_list
from curation.text.words import fold, fold_phrase, match_words, tokens

__all__ = [
    "benchmark_classes",
    "class_names",
    "count_batch",
    "doubles",
    "leak_report",
    "may_be_concept",
    "mostly_nouns",
    "noun_phrases",
    "read_stop_words",
    "read_vocabulary",
    "select",
    "word_lists_digest",
]

_HERE = files("curation.text")  # a folder, or inside of cocu.zip on executors
_Words = tuple[str, ...]
_FRAGMENT = 0.85  # share of a part's captions that have the longer phrase
_NOUN_SHARE = 0.5  # least share of a word's captions in which it is a noun


def count_batch(
    captions: pa.Array | Sequence[str | None],
    max_words: int = 4,
    nouns: Sequence[Sequence[str]] | None = None,
) -> pa.RecordBatch:
    """How often words and phrases occur in these captions: concept string, count int64, seen int64.

    ``count`` is the number of captions in which a noun or phrase is read; ``seen`` that of the captions that
    have the word at all, as whatever kind of word ("orange" as a colour), and the same as ``count`` for phrases.
    Words that are never nouns here have the count 0: they may be nouns in other batches. ``nouns``: what
    ``noun_phrases`` found in each, where that is known already.
    """
    counts: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    texts = captions.to_pylist() if isinstance(captions, pa.Array) else captions
    for number, caption in enumerate(texts):
        if caption:
            counts.update(noun_phrases(caption, max_words) if nouns is None else nouns[number])
            seen.update(set(match_words(caption)))
    names = list({**counts, **seen})
    columns = [[counts[name] for name in names], [seen.get(name, counts[name]) for name in names]]
    return pa.RecordBatch.from_arrays(
        [pa.array(names, pa.string()), *(pa.array(column, pa.int64()) for column in columns)],
        ["concept", "count", "seen"],
    )


def mostly_nouns(rows: Iterable[tuple[str, int, int]]) -> list[tuple[str, int]]:
    """(concept, count) of the (concept, count, seen) that are nouns in at least half of the captions with the word.

    The extraction finds words whatever they are: a word that is a colour or a deed in most captions ("orange",
    "splash") would be found where there is no such thing.
    """
    return [(concept, count) for concept, count, seen in rows if count and count >= _NOUN_SHARE * seen]


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

    Concepts that are the same to the extraction ("T-shirt" and "t shirts") become one, with the counts added,
    under the more frequent name. A phrase goes too if its last word is a stop word ("side view"; but not one that
    is so only by itself, as in "parking lot"), and a mined
    piece that hardly occurs outside one longer phrase ("decker bus", the "polar" of "polar bear").
    ``hold_out`` holds words, phrases or benchmark names (:func:`benchmark_classes`); a concept is held out if
    it has one of them as whole words ("dining table" for "table"). ``keep_order`` is for a user's list: neither
    its pieces nor the built-in stop words are taken out of it.

    Raises:
        UserError: an entry of ``hold_out`` that looks like a misspelt benchmark.
    """
    stops = {fold_phrase(word) for word in stop_words}
    merged = _merged(counts)
    fragments = set() if keep_order else _fragments(dict(merged))
    held = _held_out(hold_out)
    longest = max((len(words) for words in held), default=0)
    chosen = [
        (concept, count)
        for concept, count in merged
        if count >= min_count
        and concept not in fragments
        and not _is_stopped(concept, stops, stops)
        and (keep_order or may_be_concept(concept))
        and not _holds(tuple(match_words(concept)), held, longest)
    ]
    if not keep_order:
        chosen.sort(key=lambda entry: (-entry[1], entry[0]))
    return chosen[:max_concepts]


def doubles(concepts: Iterable[str]) -> list[tuple[str, str]]:
    """(concept, the first one that is the same to the extraction) of those that come twice ("boots", "boot")."""
    first: dict[_Words, str] = {}
    twice = []
    for concept in concepts:
        words = tuple(match_words(concept))
        if words in first:
            twice.append((concept, first[words]))
        else:
            first[words] = concept
    return twice


def may_be_concept(concept: str) -> bool:
    """Neither the concept is in the built-in lists of stop words, nor the phrase's last word in the stricter one."""
    return not _is_stopped(
        concept, _stop_words("stop_words.txt", "stop_alone.txt"), _stop_words("stop_words.txt")
    )


def _is_stopped(concept: str, whole: Collection[str], last: Collection[str]) -> bool:
    return fold_phrase(concept) in whole or fold(concept.rpartition(" ")[2].lower()) in (
        last if " " in concept else whole
    )


def _merged(counts: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    names: dict[_Words, tuple[str, int]] = {}
    totals: Counter[_Words] = Counter()
    for concept, count in counts:
        words = tuple(match_words(concept))
        totals[words] += count
        if words not in names or count > names[words][1]:
            names[words] = (concept, count)
    return [(name, totals[words]) for words, (name, _) in names.items()]


def _fragments(counts: dict[str, int]) -> set[str]:
    """Parts of phrases, last words aside, that stand for themselves in few captions."""
    found = set()
    for phrase, count in counts.items():
        words = phrase.split(" ")
        for size in range(1, len(words)):
            for start in range(len(words) - size + (size > 1)):
                part = " ".join(words[start : start + size])
                if count >= _FRAGMENT * counts.get(part, math.inf):
                    found.add(part)
    return found


def _holds(words: _Words, held: set[_Words], longest: int) -> bool:
    return any(
        words[start : start + size] in held
        for size in range(1, longest + 1)
        for start in range(len(words) - size + 1)
    )


def _held_out(entries: Sequence[str]) -> set[_Words]:
    classes = benchmark_classes()
    phrases: list[str] = []
    for entry in entries:
        if entry in classes:
            phrases.extend(name for label in classes[entry] for name in class_names(label))
            continue
        near = difflib.get_close_matches(entry, classes, n=1, cutoff=0.8)
        if near or "_" in entry:
            hint = f"; did you mean '{near[0]}'?" if near else f"; benchmarks: {', '.join(classes)}"
            raise UserError(f"concepts.hold_out: '{entry}' is neither a word nor a benchmark{hint}")
        phrases.append(entry)
    return {words for phrase in phrases for words in _forms(phrase)}


def _forms(phrase: str) -> list[_Words]:
    """The phrase as it is compared, and its plural where the dictionaries do not know that it is one."""
    words = tuple(match_words(phrase))
    return [words, (*words[:-1], fold(f"{words[-1]}s"))] if words else []


def read_vocabulary(path: str) -> list[str]:
    """A user's list, one concept a line, empty lines and # comments left out.

    All concepts are returned, doubles too, so that the i-th is the i-th row of a file of their embeddings;
    :func:`select` merges doubles, and an ``Extractor`` finds the first of them.

    Raises:
        UserError: no such file, not UTF-8, no concept in it, or a line without a word.
    """
    concepts: list[str] = []
    for number, line in enumerate(read_lines(path, f"concepts.vocabulary={path}"), 1):
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
        for line in read_lines(path, f"concepts.stop_words={path}")
        if line.strip() and not line.startswith("#")
    ]


def benchmark_classes() -> dict[str, list[str]]:
    """Class names of the evaluation benchmarks, background left out; names are facts, see the file's note."""
    return {name: list(labels) for name, labels in _benchmark_file()[0].items()}


def class_names(label: str) -> list[str]:
    """What a benchmark's class is called: its own name and plain or other words for the same thing."""
    return [label, *_benchmark_file()[1].get(label, ())]


@lru_cache(maxsize=1)
def _benchmark_file() -> tuple[dict[str, Any], dict[str, Any]]:
    values = json.loads((_HERE / "benchmark_classes.json").read_text(encoding="utf-8"))
    del values["note"]
    return values, values.pop("other_names")


def leak_report(concepts: Iterable[str]) -> dict[str, tuple[int, int, list[str]]]:
    """Per benchmark: how many classes are concepts (under any name), how many there are, and which are."""
    present = {tuple(match_words(concept)) for concept in concepts}
    report = {}
    for benchmark, labels in benchmark_classes().items():
        held = [
            label
            for label in labels
            if any(tuple(match_words(name)) in present for name in class_names(label))
        ]
        report[benchmark] = (len(held), len(labels), held)
    return report


@lru_cache(maxsize=2)
def _stop_words(*names: str) -> frozenset[str]:
    return frozenset(word for name in names for word in word_list(name))


def word_lists_digest() -> str:
    """What stands for the built-in lists of nouns, stop words and classes: they decide what a concept is."""
    lists = (file for file in files("curation.text").iterdir() if file.name.endswith((".txt", ".json")))
    found = hashlib.sha256()
    for file in sorted(lists, key=lambda file: file.name):
        found.update(f"{file.name}\0".encode() + file.read_bytes())
    return found.hexdigest()[:16]
