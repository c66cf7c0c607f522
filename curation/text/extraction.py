"""E(y): which concepts of the vocabulary a caption names (paper, section 3.1; method.md, section 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from curation.csr import Csr
from curation.text.words import match_words

__all__ = ["Extractor"]

_END = ""  # the key of a concept's id in the trie; no token is empty


class Extractor:
    """Finds concepts as whole words, singular and plural folded, in a single pass over each caption.

    The vocabulary is a trie of words, so the work at a word is one look-up for each word that still
    continues some concept, whatever the number of concepts.

    Args:
        concepts: the vocabulary; the position of a concept is its id. Where two fold into the same words, the
            first one's id is found.
        synonyms: further words, each with the concept it is found as.
    """

    def __init__(self, concepts: Sequence[str], synonyms: Mapping[str, str] | None = None) -> None:
        self._root: dict[str, dict] = {}
        self._concepts = tuple(concepts)
        for number, concept in enumerate(concepts):
            self._add(concept, number)
        numbers = {concept: number for number, concept in enumerate(concepts)} if synonyms else {}
        for word, concept in (synonyms or {}).items():
            self._add(word, numbers[concept])

    def _add(self, concept: str, number: int) -> None:
        node = self._root
        for word in match_words(concept):
            node = node.setdefault(word, {})
        if node is not self._root:
            node.setdefault(_END, number)  # type: ignore[arg-type]

    def __len__(self) -> int:
        return len(self._concepts)

    def extract(self, captions: pa.Array | pa.ChunkedArray | Sequence[str | None]) -> Csr:
        """Ids of each caption's concepts, in the order of their first words, shorter before longer, each once.

        All word n-grams that are concepts count, also one inside another ("traffic light" and "light").
        A null caption has none.
        """
        lists = captions.to_pylist() if isinstance(captions, (pa.Array, pa.ChunkedArray)) else captions
        root = self._root
        ids: list[int] = []
        offsets = np.zeros(len(lists) + 1, np.int64)
        for row, caption in enumerate(lists):
            if caption:
                words = match_words(caption)
                found: dict[int, None] = {}
                for start, word in enumerate(words):
                    node = root.get(word)
                    place = start + 1
                    while node is not None:
                        number = node.get(_END)
                        if number is not None:
                            found[number] = None  # type: ignore[index]
                        node = node.get(words[place]) if place < len(words) else None
                        place += 1
                ids.extend(found)
            offsets[row + 1] = len(ids)
        return Csr(offsets, np.array(ids, np.int32))

    def names(self, captions: Sequence[str | None]) -> list[list[str]]:
        """The same as words of the vocabulary."""
        return [[self._concepts[number] for number in found] for found in self.extract(captions).to_lists()]
