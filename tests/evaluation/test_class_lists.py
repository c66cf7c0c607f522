"""Class lists: one meaning in every command; what would shift or hide a class is refused."""

import json

import pytest
from PIL import Image

from configs.errors import UserError
from evaluation import classify, evaluate
from evaluation.class_lists import check_class_names, read_class_list, read_class_words
from evaluation.segment.__main__ import main as segment
from evaluation.semantic_gap.__main__ import main as semantic_gap
from evaluation.semantic_gap.masks import read_classes
from tests.evaluation.benchmarks.layouts import make_layout, tiny_weights

NAMES = ["background", "dog", "blue sky"]
PLAIN = b"background\ndog\nblue sky\n"


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        b"\xef\xbb\xbf" + PLAIN,
        PLAIN.replace(b"\n", b"\r\n"),
        PLAIN.replace(b"\n", b"\r"),
        PLAIN + b"\n  \n\n",
        b"Background\n dog\nblue   sky",
    ],
)
def test_text_means_the_same_however_it_was_saved(tmp_path, content):
    for name in ("words.txt", "words.TXT", "words"):
        (tmp_path / name).write_bytes(content)
        assert read_class_list(tmp_path / name, "--classes") == NAMES
        assert read_class_words(str(tmp_path / name), "--classes") == NAMES
    assert read_classes(tmp_path / "words.txt") == {1: "dog", 2: "blue sky"}


@pytest.mark.parametrize(
    "values",
    [
        NAMES,
        {"2": "blue sky", "0": "background", "1": "dog"},
        [{"index": 1, "name": "dog"}, {"index": 0, "name": "Background"}, {"index": 2, "name": "blue sky"}],
    ],
)
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_json_of_three_forms(tmp_path, values, mark):
    file = tmp_path / "names.JSON"
    file.write_bytes(mark + json.dumps(values).encode())
    assert read_class_list(file, "--classes") == read_class_words(str(file), "--classes") == NAMES
    assert read_classes(file) == {1: "dog", 2: "blue sky"}


@pytest.mark.parametrize("text", ["background, dog, blue sky", "background;dog; blue sky", "Background|dog|blue  sky",
                                  "background\ndog\nblue sky\n"])  # fmt: skip
def test_words_of_the_command_line(text):
    assert read_class_words(text, "--classes") == NAMES


REFUSED = [
    ("a.txt", "background\n\ndog\n", "a.txt, line 2: is blank"),
    ("a.txt", "dog\ngrass\nbackground\n", "'background' is class 2; .* has to be 0"),
    ("a.txt", "dog\nBackground", "'Background' is class 1"),
    ("a.txt", "", "no class names"),
    ("a.txt", "dog\ncat\nDog ", "classes 1 and 3 are both 'Dog'"),
    ("a.txt", b"dog\ncaf\xe9", "line 2: is not UTF-8"),
    ("a.txt", "dog\ncat".encode("utf-16"), "is UTF-16 text"),
    ("a.txt", None, "no such file"),
    ("a.csv", "0,dog", r"is a \.txt file with one name a line"),
    ("a.json", '["dog", ""]', "class 2 has no name"),
    ("a.json", '["dog", 3]', "write a list of names"),
    ("a.json", '"dog"', "write a list of names"),
    ("a.json", "[dog]", "not valid JSON"),
    ("a.json", '{"0": "dog", "0": "cat"}', "the key '0' stands twice"),
    ("a.json", '{"0": "dog", "00": "cat"}', "a number stands twice"),
    ("a.json", '{"-1": "dog", "0": "cat"}', "or is negative"),
    ("a.json", '{"1": "dog", "2": "background"}', "'background' is class 2"),
]


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    """What calls each of the four commands with a list of classes."""
    root = tmp_path_factory.mktemp("commands")
    weights, out = str(tiny_weights(root / "w.pt")), str(root / "out")
    made = make_layout(root, "voc")
    photo, masks = str(made[0][0]), str(made[0][1].parent)
    folder = root / "folders" / "dog"
    folder.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(folder / "a.png")
    base = {
        "evaluate": (evaluate.main, ["--checkpoint", weights, "--benchmark", "folder", "--data", str(root), "--classes"]),
        "segment": (segment, ["--checkpoint", weights, photo, "--classes"]),
        "semantic_gap": (semantic_gap, ["--truth", masks, "--classes"]),
        "classify": (classify.main, ["--checkpoint", weights, "--data", str(folder.parent), "--names"]),
    }  # fmt: skip
    return {
        name: lambda file, main=main, options=options: main([*options, file, "--out", out])
        for name, (main, options) in base.items()
    }


@pytest.mark.parametrize("command", ["evaluate", "segment", "semantic_gap", "classify"])
@pytest.mark.parametrize(("name", "content", "told"), REFUSED)
def test_all_commands_refuse_alike(tmp_path, commands, command, name, content, told):
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content.encode() if isinstance(content, str) else content)
    if command == "classify" and name == "a.json" and content.startswith("{") and "the key" not in told:
        told = "folders of .* are not in it"  # an object names folders there
    with pytest.raises(UserError, match=told):
        commands[command](str(file))


def test_numbers_may_have_gaps_only_where_masks_are_just_looked_at(tmp_path):
    file = tmp_path / "a.json"
    file.write_text('{"1": "dog", "7": "cat"}')
    assert read_classes(file) == {1: "dog", 7: "cat"}
    with pytest.raises(UserError, match="has no class 0; number them from 0"):
        read_class_list(file, "--classes")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{}", "is a folder"),
        ("dog, cat; sofa", "separated by ',' and ';'"),
        ("none.json", "no such file"),
        ("NONE.TXT", "no such file"),
        ("dog; background", "write 'background' first"),
        ("dog;;sofa", "class 2 has no name"),
        ("", "class 1 has no name"),
    ],
)
def test_words_that_are_none_are_not_taken_for_a_class(tmp_path, text, told):
    with pytest.raises(UserError, match=told):
        read_class_words(text.format(tmp_path), "--classes")


def test_a_name_with_a_comma_needs_a_file(tmp_path):
    (tmp_path / "words.txt").write_text("dog, or cat\nsky; blue\n")
    assert read_class_words(str(tmp_path / "words.txt"), "--classes") == ["dog, or cat", "sky; blue"]


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["dog", "cat", " Dog "], "classes 1 and 3 are both 'Dog'"),
        (["dog", " "], "class 2 has no name"),
        ([], "no class"),
    ],
)
def test_names_that_cannot_be_told_apart_are_refused(names, told):
    with pytest.raises(UserError, match=f"classes.txt.*{told}"):
        check_class_names(names, "classes.txt")


def test_classification_takes_a_list_in_the_order_of_the_folders(tmp_path):
    for folder in ("n02", "n01"):
        (tmp_path / "data" / folder).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "data" / folder / "a.png")
    names, samples = classify.find_samples(tmp_path / "data", ["dog", "cat"])
    assert [(names[sample.label], sample.path.parent.name) for sample in samples] == [
        ("dog", "n01"),
        ("cat", "n02"),
    ]
    with pytest.raises(UserError, match="3 names for 2 folders"):
        classify.find_samples(tmp_path / "data", ["dog", "cat", "cow"])
