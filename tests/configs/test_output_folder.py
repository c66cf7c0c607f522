"""Folders to write into are tried before the work, by every command that writes; what is wrong is one line."""

import errno
import json
import os
from pathlib import Path

import pytest
from PIL import Image

from configs.errors import UserError, run_entry
from configs.output_folder import make_output_folder, told_when_full, write_whole
from evaluation import classify, evaluate
from evaluation.segment.__main__ import main as segment
from evaluation.semantic_gap.__main__ import main as semantic_gap
from tests.evaluation.benchmarks.layouts import make_layout, tiny_weights
from training.telemetry import Telemetry

READ_ONLY = "/proc"  # whoever runs the tests, also root


def test_folders_are_made_and_left_empty(tmp_path):
    folder = make_output_folder(tmp_path / "a" / "b", "--out")
    assert make_output_folder(str(folder), "--out") == folder
    assert list(folder.iterdir()) == []


def run(main, arguments, out):
    return main([*arguments, "--out", str(out)])


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    root = tmp_path_factory.mktemp("commands")
    weights = str(tiny_weights(root / "w.pt"))
    photo, masks = make_layout(root, "voc")[0][0], root / "VOCdevkit/VOC2012/SegmentationClass"
    (root / "folders" / "dog").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(root / "folders" / "dog" / "a.png")
    classes = root / "classes.json"
    classes.write_text(json.dumps(["background", *(f"class {number}" for number in range(1, 21))]))
    return {
        "evaluate": (
            evaluate.main, ["--checkpoint", weights, "--benchmark", "voc", "--partial", "--data", str(root)]
        ),
        "segment": (segment, [str(photo), "--checkpoint", weights, "--classes", "dog, cat"]),
        "classify": (classify.main, ["--checkpoint", weights, "--data", str(root / "folders")]),
        "semantic_gap": (semantic_gap, ["--truth", str(masks), "--classes", str(classes)]),
        "train": (lambda arguments: Telemetry(Path(arguments[1]), 1), []),
        "root": root,
    }  # fmt: skip


@pytest.mark.parametrize("command", ["evaluate", "segment", "classify", "semantic_gap", "train"])
def test_a_place_that_cannot_be_written_is_one_line_in_every_command(tmp_path, commands, command):
    (tmp_path / "taken").write_text("a file")
    option = "train.output" if command == "train" else "--out"
    for place, reason in (
        (tmp_path / "taken", "a file stands there"),
        (tmp_path / "taken" / "below", "a file stands there"),
        (READ_ONLY, "No such file or directory|Permission denied|Read-only"),
    ):
        with pytest.raises(UserError, match=f"^{option} {place}: nothing can be written there .({reason})"):
            run(*commands[command], place)
    assert (tmp_path / "taken").read_text() == "a file"


# capsys: what is printed goes to memory; pytest's other captures are files, which would be full, too.
@pytest.mark.parametrize("command", ["evaluate", "segment", "classify", "semantic_gap"])
@pytest.mark.parametrize("size", [0, 400])
def test_a_disk_that_is_full_in_the_middle_is_one_line(tmp_path, commands, command, size, limited, capsys):
    out = tmp_path / "out"
    with pytest.raises(UserError) as told:
        limited(size, run, *commands[command], out)
    assert str(told.value) == (
        f"--out {out}: the disk takes no more ({os.strerror(errno.EFBIG)}); free space and run again, or name another "
        "folder"
    )
    assert not (out / "results.json").exists()
    assert not [path for path in out.rglob("*") if "partial" in path.name or "scratch" in path.name]


def test_other_errors_of_files_keep_their_trace(tmp_path):
    with pytest.raises(FileNotFoundError), told_when_full(tmp_path, "--out"):
        (tmp_path / "gone").read_text()


def test_a_file_is_replaced_whole_or_stays(tmp_path, limited, capsys):
    file = tmp_path / "results.json"
    write_whole(file, "old")
    with pytest.raises(OSError, match="File too large"):
        limited(100, write_whole, file, 1000 * "new")
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]
    assert file.read_text() == "old"
    write_whole(file, "new")
    assert file.read_text() == "new"


def test_a_full_disk_anywhere_is_one_line_of_the_entry(tmp_path, limited, capsys):
    def main(_arguments):
        (tmp_path / "file").write_text("more than nothing")

    with pytest.raises(SystemExit) as left:
        limited(0, run_entry, main, [])
    assert left.value.code == 2
    assert (
        capsys.readouterr().err
        == "error: the disk takes no more (File too large); free space and run again\n"
    )


@pytest.mark.parametrize("command", ["evaluate", "segment", "classify", "semantic_gap"])
def test_a_tilde_is_the_home_in_every_path_of_a_command(commands, command, monkeypatch):
    """As in --out=~/x, which no shell expands."""
    home = commands["root"]
    monkeypatch.setenv("HOME", str(home))
    main, arguments = commands[command]
    assert any(str(home) in argument for argument in arguments)
    assert main([argument.replace(str(home), "~") for argument in arguments] + [f"--out=~/{command}"]) == 0
    assert (home / command / "results.json").is_file()
    with pytest.raises(
        UserError, match="~nobody-here/x: this machine knows no such user; write the path out"
    ):
        main([*arguments, "--out=~nobody-here/x"])
