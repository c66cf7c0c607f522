import re

import numpy as np
import pytest
from textblob.en import tag

from demo.world.captions import SURFACE_FORMS, concept_forms, full_caption, write_caption
from demo.world.scenes import GROUND_LABELS, LABELS, THINGS, make_scene


@pytest.fixture(scope="module")
def captioned():
    scenes = [make_scene((51, number), (120, 120)) for number in range(700)]
    return [(scene, *write_caption(scene, np.random.default_rng((52, n)))) for n, scene in enumerate(scenes)]


def _mentions(text, label):
    words = text.lower().rstrip(".")
    return any(re.search(rf"\b{form}\b", words) for pair in SURFACE_FORMS[label] for form in pair)


def test_captions_name_what_is_said_to_be_named_and_is_visible(captioned):
    for scene, text, named in captioned:
        assert len(named) <= 2
        assert set(named) <= set(scene.areas)
        assert all(_mentions(text, label) for label in named), text


def test_captions_leave_out_most_of_what_is_there(captioned):
    recall = np.mean([len(named) / len(scene.areas) for scene, _, named in captioned])
    assert 0.15 < recall < 0.4


def test_small_things_are_left_out_more_often(captioned):
    named, areas = [], []
    for scene, _, labels in captioned:
        for label in scene.areas:
            if label in THINGS:
                named.append(label in labels)
                areas.append(scene.areas[label] / scene.mask.size)
    named, areas = np.array(named), np.array(areas)
    small, large = areas < np.quantile(areas, 0.25), areas > np.quantile(areas, 0.75)
    assert named[small].mean() < 0.2
    assert named[large].mean() > 3 * named[small].mean()


def test_grounds_are_often_omitted(captioned):
    grounds = np.mean([any(label in GROUND_LABELS for label in named) for _, _, named in captioned])
    assert 0.05 < grounds < 0.5


def test_plurals_follow_the_number_of_things(captioned):
    texts = [text.lower() for _, text, _ in captioned]
    assert any(" dogs" in t or " trees" in t for t in texts)
    for scene, text, named in captioned:
        numbers = re.search(r"\b(two|a pair of|a couple of) ", text.lower())
        if numbers and len(named) == 1:
            assert scene.counts[named[0]] == 2


def test_a_tagger_takes_every_word_for_a_noun():
    for label, forms in SURFACE_FORMS.items():
        for singular, plural in forms:
            for sentence, words in (
                (f"a photo of a {singular}", singular),
                (f"two {plural} and a dog", plural),
            ):
                first = 4 if words == singular and sentence.startswith("a photo") else 1
                tags = tag(sentence)[first : first + len(words.split())]
                assert tags[-1][1].startswith("NN"), (label, tags)
                assert all(kind[:2] in ("NN", "JJ") for _, kind in tags)


def test_concept_forms_are_unique_and_begin_with_the_label():
    forms = concept_forms()
    assert list(forms) == list(LABELS)
    assert all(words[0] == label for label, words in forms.items())
    every = [word for words in forms.values() for word in words]
    assert len(every) == len(set(every))
    assert any(" " in label for label in THINGS)


def test_full_captions_name_only_visible_labels_and_in_the_end_all():
    scene = make_scene((53, 1))
    rng, seen = np.random.default_rng(0), set()
    for _ in range(60):
        text, named = full_caption(scene, rng)
        assert set(named) <= set(scene.areas)
        assert all(_mentions(text, label) for label in named)
        seen.update(named)
    assert seen == set(scene.areas)
