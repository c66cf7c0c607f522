"""The extraction against a person's reading of real captions (labelled_captions.json says how they were read)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from curation.text.nouns import noun_phrases
from curation.text.vocabulary import may_be_concept

LABELS = json.loads((Path(__file__).parent / "labelled_captions.json").read_text(encoding="utf-8"))
# Least precision and recall. Words that can never be concepts ("front", "group") count on neither side.
LEAST = {"nouns": (0.97, 0.98), "phrases": (0.92, 0.92)}


def _captions(folder) -> dict[tuple[str, int, int], str]:
    texts = {}
    for line in (folder / "real-clip" / "pairs.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        for number, text in enumerate([row["caption"], *row.get("other_captions", [])]):
            texts["real-clip", row["row"], number] = text
    for line in (folder / "coco-captions-masks" / "pairs.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        for number, text in enumerate(row["captions"]):
            texts["coco-captions-masks", row["id"], number] = text
    return texts


def _found(caption: str) -> dict[str, set[str]]:
    found = noun_phrases(caption)
    return {
        "nouns": {word for word in found if " " not in word},
        "phrases": {word for word in found if " " in word},
    }


@pytest.mark.parametrize("part", ["held", "tuned"])
def test_nouns_and_phrases_are_those_a_person_reads(real_data, part):
    captions = _captions(real_data)
    rows = [(_found(captions[tuple(row["caption"])]), row) for row in LABELS[part]]
    for which, (precision, recall) in LEAST.items():
        right = wrong = missed = 0
        for found, row in rows:
            ours, theirs = (set(filter(may_be_concept, words)) for words in (found[which], row[which]))
            right += len(ours & theirs)
            wrong += len(ours - theirs)
            missed += len(theirs - ours)
        measured = (right / (right + wrong), right / (right + missed))
        print(f"{part} {which}: precision {measured[0]:.3f}, recall {measured[1]:.3f} ({right} right)")
        assert measured[0] >= precision, measured
        assert measured[1] >= recall, measured


@pytest.mark.parametrize("part", ["held", "tuned"])
def test_people_are_nouns(real_data, part):
    captions = _captions(real_data)
    people = missed = 0
    for row in LABELS[part]:
        people += len(row["people"])
        missed += len(set(row["people"]) - _found(captions[tuple(row["caption"])])["nouns"])
    assert people >= 60
    assert missed <= 0.01 * people + 1


def test_there_are_a_hundred_held_out_captions_and_none_is_tuned_on():
    held, tuned = ({tuple(row["caption"]) for row in LABELS[part]} for part in ("held", "tuned"))
    assert len(held) == len(LABELS["held"]) == 100
    assert not held & tuned
