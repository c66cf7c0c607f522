from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import pyarrow as pa
import pytest

from configs.errors import UserError
from curation.text import vocabulary
from curation.text.words import fold_phrase


def _rows(captions):
    return list(
        zip(*(column.to_pylist() for column in vocabulary.count_batch(captions).columns), strict=True)
    )


def test_counts_are_numbers_of_captions():
    rows = _rows(pa.array(["a dog and a dog", "dogs", None, "", "a black cat"]))
    assert sorted(rows) == [("a", 0, 2), ("and", 0, 1), ("black", 0, 1), ("cat", 1, 1), ("dog", 2, 2)]


def test_words_that_are_seldom_nouns_are_no_concepts():
    """The extraction would find them where they are colours or deeds."""
    captions = ["an orange cat", "an orange", "the orange car", "orange grass"]
    captions += ["a man on a swing", "a girl swings", "a traffic light", "light snow", "a lamp gives a light"]
    rows = _rows(captions)
    assert {row for row in rows if row[0] in ("orange", "swing", "light", "traffic light")} == {
        ("orange", 1, 4), ("swing", 1, 2), ("light", 2, 3), ("traffic light", 1, 1),
    }  # fmt: skip
    kept = dict(vocabulary.mostly_nouns(rows))
    assert {"cat": 1, "car": 1, "swing": 1, "light": 2, "traffic light": 1}.items() <= kept.items()
    assert not {"orange", "a", "the", "on"} & set(kept)


@pytest.mark.parametrize("word", "city town market shop foot frame corner village family friend fan".split())
def test_visible_things_are_no_stop_words(word):
    assert vocabulary.may_be_concept(word)
    assert set(vocabulary.select([(word, 3), (f"old {word}", 3)])) == {(word, 3), (f"old {word}", 3)}


def test_some_words_are_stopped_alone_and_others_as_the_last_word_too():
    things = ["parking lot", "parking meter", "bus stop", "fruit stand", "tank top", "ski jump", "video game"]
    others = [
        "lot",
        "meter",
        "stop",
        "stand",
        "top",
        "jump",
        "game",
        "view",
        "side view",
        "photo",
        "wedding photo",
    ]
    counts = [(name, 3) for name in (*things, *others)]
    assert {name for name, _ in vocabulary.select(counts)} == set(things)
    user = vocabulary.select(
        [("bus stop", 1), ("stop", 1), ("bus", 1)], stop_words=["stops"], keep_order=True
    )
    assert user == [("bus", 1)]


def test_html_and_names_of_files_leave_no_concept():
    captions = [
        "a dog &amp; a cat &quot;asleep&quot; &nbsp;&lt;br&gt;<br/> on a bed",
        "IMG_2041.jpg dog", "DSC dog.png", "http://www.example.org/photo.html a dog", "img dsc jpeg amp dog gif",
    ]  # fmt: skip
    counts = vocabulary.mostly_nouns(_rows(captions))
    words = {word for name, _ in vocabulary.select(counts) for word in name.split()}
    assert {"dog", "cat", "bed"} <= words
    assert not words & set("amp quot nbsp lt gt br img jpg dsc png http www org html jpeg gif".split())


def test_selection_filters_and_orders():
    counts = [
        ("dog", 5),
        ("cat", 9),
        ("photo", 99),
        ("side view", 50),
        ("ant", 5),
        ("rare", 1),
        ("dining table", 7),
        ("table", 8),
    ]
    assert vocabulary.select(counts, min_count=2) == [
        ("cat", 9),
        ("table", 8),
        ("dining table", 7),
        ("ant", 5),
        ("dog", 5),
    ]
    assert vocabulary.select(counts, min_count=2, max_concepts=1) == [("cat", 9)]
    assert ("ant", 5) not in vocabulary.select(counts, min_count=2, stop_words=["ants"])
    held = [name for name, _ in vocabulary.select(counts, min_count=2, hold_out=["voc"])]
    assert held == ["ant"]  # dog, cat and table are classes, and a dining table is a table
    assert [name for name, _ in vocabulary.select(counts, min_count=2, hold_out=["cats"])] == [
        "table",
        "dining table",
        "ant",
        "dog",
    ]


def test_concepts_that_extraction_cannot_tell_apart_become_one():
    counts = [("t shirts", 3), ("t-shirt", 5), ("Dogs", 1), ("dog", 1)]
    assert vocabulary.select(counts) == [("t-shirt", 8), ("Dogs", 2)]
    assert vocabulary.select([("b", 0), ("a", 0), ("B", 0)], min_count=0, keep_order=True) == [
        ("b", 0),
        ("a", 0),
    ]


def test_doubles_are_named_with_what_they_are_found_as():
    names = ["boot", "bow tie", "boots", "dog", "bow-tie", "Boot"]
    assert vocabulary.doubles(names) == [("boots", "boot"), ("bow-tie", "bow tie"), ("Boot", "boot")]
    assert vocabulary.doubles(["dog", "cat", "dog"]) == [("dog", "dog")]
    kept = [
        name for name, _ in vocabulary.select([(name, 0) for name in names], min_count=0, keep_order=True)
    ]
    assert vocabulary.doubles(kept) == []


def test_pieces_of_one_phrase_are_no_concepts_but_its_last_word_is():
    counts = [
        ("double decker bus", 9),
        ("decker bus", 10),
        ("bus", 9),
        ("decker", 10),
        ("fire hydrant", 5),
        ("fire", 8),
        ("hydrant", 5),
    ]
    assert {name for name, _ in vocabulary.select(counts)} == {
        "double decker bus",
        "bus",
        "fire hydrant",
        "fire",
        "hydrant",
    }
    assert len(vocabulary.select(counts, keep_order=True)) == 7


def test_misspelt_benchmarks_are_told_from_words():
    with pytest.raises(UserError, match="did you mean 'ade20k'"):
        vocabulary.select([], hold_out=["ade20"])
    assert vocabulary.select([("walrus", 3)], hold_out=["zebra"]) == [("walrus", 3)]


def test_leaks_are_counted_with_plurals_folded():
    held, classes, names = vocabulary.leak_report(["dogs", "cat", "walrus"])["voc"]
    assert (held, classes, sorted(names)) == (2, 20, ["cat", "dog"])
    assert {name: len(words) for name, words in vocabulary.benchmark_classes().items()} == {
        "voc": 20, "context": 59, "coco_object": 80, "coco_stuff": 171, "cityscapes": 19, "ade20k": 150,
        "imagenet_s50": 50, "imagenet_s300": 300,
    }  # fmt: skip


@pytest.mark.parametrize("benchmark", vocabulary.benchmark_classes())
def test_what_is_held_out_is_not_reported_as_a_leak(benchmark):
    labels = vocabulary.benchmark_classes()[benchmark]
    names = [name for label in labels for name in vocabulary.class_names(label)]
    concepts = [
        *names,
        *(f"{name}s" for name in names if name[-1] not in "sxzhyf"),
        *(f"shiny {name}" for name in names),
        "xylophone player",
    ]
    assert vocabulary.leak_report(concepts)[benchmark][0] == len(labels)
    kept = vocabulary.select([(concept, 9) for concept in concepts], hold_out=[benchmark])
    assert kept == [("xylophone player", 9)]
    assert vocabulary.leak_report(name for name, _ in kept)[benchmark] == (0, len(labels), [])


def test_other_words_for_a_class_are_held_out_but_not_its_parts():
    names = ("brick", "carpet", "brick wall", "aeroplane", "planes", "couch", "motorcycles")
    counts = [(name, 99 - 9 * place) for place, name in enumerate(names)]
    assert [name for name, _ in vocabulary.select(counts, hold_out=["voc"])] == [
        "brick",
        "carpet",
        "brick wall",
    ]
    assert [
        name for name, _ in vocabulary.select([("brick wall", 1), ("bricks", 1)], hold_out=["wall-brick"])
    ] == ["brick wall", "bricks"]


def _mmseg_classes(module, name):
    spec = importlib.util.find_spec("mmseg")
    if spec is None or spec.origin is None:
        pytest.skip("mmsegmentation is not installed")
    tree = ast.parse((Path(spec.origin).parent / "datasets" / f"{module}.py").read_text(encoding="utf-8"))
    (holder,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    (meta,) = (
        node.value
        for node in holder.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "METAINFO"
    )
    return list(ast.literal_eval(next(word.value for word in meta.keywords if word.arg == "classes")))


@pytest.mark.parametrize(
    ("benchmark", "module", "name", "background"),
    [("voc", "voc", "PascalVOCDataset", 1), ("context", "pascal_context", "PascalContextDataset59", 0),
     ("coco_stuff", "coco_stuff", "COCOStuffDataset", 0), ("cityscapes", "cityscapes", "CityscapesDataset", 0),
     ("ade20k", "ade", "ADE20KDataset", 0)],
)  # fmt: skip
def test_class_names_are_mmsegs(benchmark, module, name, background):
    theirs = _mmseg_classes(module, name)[background:]
    ours = vocabulary.benchmark_classes()[benchmark]
    assert len(theirs) == len(ours)
    for label, other in zip(ours, theirs, strict=True):
        assert fold_phrase(other) in [fold_phrase(word) for word in vocabulary.class_names(label)]


def test_cocos_things_are_the_first_of_its_stuff():
    classes = vocabulary.benchmark_classes()
    assert classes["coco_object"] == classes["coco_stuff"][:80]


def test_imagenet_s_names_are_first_lemmas_in_the_order_of_their_synsets():
    spec = importlib.util.find_spec("timm")
    if spec is None or spec.origin is None:
        pytest.skip("timm is not installed")
    data = Path(spec.origin).parent / "data" / "_info"
    synsets = (data / "imagenet_synsets.txt").read_text().split()
    lemmas = dict(
        line.split("\t")[:2] for line in (data / "imagenet_synset_to_lemma.txt").read_text().splitlines()
    )
    first = [lemmas[synset].split(",")[0].strip().lower() for synset in sorted(synsets)]
    classes = vocabulary.benchmark_classes()
    for benchmark in ("imagenet_s50", "imagenet_s300"):
        place = -1
        for name in classes[benchmark]:  # as a subsequence: "crane" and "cardigan" are two synsets each
            place = first.index(name, place + 1)
    assert set(classes["imagenet_s50"]) < set(classes["imagenet_s300"])


def test_a_users_list(tmp_path):
    file = tmp_path / "words.txt"
    file.write_text("# mine\nTraffic  Light\n\ndogs\n", encoding="utf-8")
    assert vocabulary.read_vocabulary(str(file)) == ["Traffic Light", "dogs"]
    file.write_text("dog\n---\n")
    with pytest.raises(UserError, match=r"words.txt, line 2: '---' has no word"):
        vocabulary.read_vocabulary(str(file))
    file.write_bytes(b"caf\xe9\n")
    with pytest.raises(UserError, match=r"words.txt, line 1: is not UTF-8"):
        vocabulary.read_vocabulary(str(file))
    with pytest.raises(UserError, match="no such file"):
        vocabulary.read_vocabulary(str(tmp_path / "nothing.txt"))
