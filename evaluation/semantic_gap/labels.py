"""Which labels a caption or a concept names: whole words, singular and plural folded, synonyms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from configs.errors import UserError
from configs.json_files import read_json
from curation.text.extraction import Extractor
from curation.text.words import match_words

__all__ = ["LabelMatcher", "read_synonyms"]

_Words = tuple[str, ...]


class LabelMatcher:
    """Finds labels in texts.

    Args:
        labels: names; the position of a name is its id.
        synonyms: label -> further words for it; a word may stand for several labels ("bike").
        nested: whether a label inside a longer one counts too, as it does for the concepts of a vocabulary
            (a "black dog" is a "dog"). Without it only the longest counts, as class names want it (a
            "hot dog" is no "dog").

    Raises:
        UserError: a name without a word in it.
    """

    def __init__(
        self, labels: Sequence[str], synonyms: Mapping[str, Sequence[str]] | None = None, nested: bool = False
    ) -> None:
        self.labels = tuple(labels)
        self._forms: dict[_Words, tuple[int, ...]] = {}
        self._known: dict[str, tuple[int, ...]] = {}
        for number, label in enumerate(self.labels):
            for form in (label, *(synonyms or {}).get(label, ())):
                words = tuple(match_words(form))
                if not words:
                    raise UserError(
                        f"label '{label}': '{form}' has no word in it; write it in letters or digits"
                    )
                found = self._forms.setdefault(words, ())
                if number not in found:
                    self._forms[words] = (*found, number)
        self._longest = max(map(len, self._forms), default=0)
        self._extractor = Extractor([" ".join(words) for words in self._forms]) if nested else None
        self._form_labels = list(self._forms.values())

    def in_captions(self, captions: Sequence[str]) -> list[frozenset[int]]:
        """The ids of the labels that each caption names."""
        if self._extractor is None:
            return [frozenset(self._longest_matches(match_words(caption))) for caption in captions]
        found = self._extractor.extract(captions).to_lists()
        return [frozenset(label for form in forms for label in self._form_labels[form]) for forms in found]

    def _longest_matches(self, words: Sequence[str]) -> list[int]:
        found: list[int] = []
        place = 0
        while place < len(words):
            for size in range(min(self._longest, len(words) - place), 0, -1):
                labels = self._forms.get(tuple(words[place : place + size]))
                if labels:
                    found.extend(labels)
                    place += size - 1
                    break
            place += 1
        return found

    def of_concept(self, concept: str) -> tuple[int, ...]:
        """The ids of the labels that a concept names: by itself, or by its last words, the longest that fit.

        So a "red car" is a car and a "dog house" no dog. Empty for what names no label ("day").
        """
        known = self._known.get(concept)
        if known is None:
            words = tuple(match_words(concept))
            endings = (self._forms.get(words[start:]) for start in range(len(words)))
            known = self._known[concept] = next((labels for labels in endings if labels), ())
        return known


def read_synonyms(path: str | Path) -> dict[str, list[str]]:
    """label -> words, from a JSON file ``{"couch": ["sofa", "settee"], ...}``.

    Raises:
        UserError: no such file, or not of that form.
    """
    values = read_json(path, "synonyms")
    if not isinstance(values, dict):
        raise UserError(
            f'synonyms {path}: must be {{"label": ["word", ...], ...}}, found a {type(values).__name__}'
        )
    for label, words in values.items():
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise UserError(f"synonyms {path}: '{label}' must have a list of words, found {str(words)[:60]}")
    return values
