"""Several checkpoints in one evaluation: each as it is alone, one table, one page, each file read when it is needed."""

import csv
import json
import re
import subprocess
import sys
from html import unescape
from urllib.parse import unquote

import numpy as np
import pytest
import torch
from PIL import Image

from configs.errors import UserError
from evaluation import evaluate
from evaluation.compared import name_checkpoints
from evaluation.mask_files import decode_mask
from evaluation.results_page import Evaluated, write_evaluation_page
from models.groupvit import GroupViT, GroupViTConfig
from models.weights import save_model
from tests.evaluation.benchmarks.layouts import IMAGES, make_layout, tiny_weights


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """Three pictures of one's own, two checkpoints, evaluated alone and together; the folder, and what was printed."""
    root = tmp_path_factory.mktemp("compared")
    for _, mask in make_layout(root, "voc"):
        ids = decode_mask(mask.read_bytes())
        Image.fromarray(np.where(ids == 255, 255, ids % 3).astype(np.uint8)).save(mask)
    (root / "classes.txt").write_text("background\ndog <b>\nsky\n")
    for number, folder in enumerate(("one", "two")):
        (root / folder).mkdir()
        tiny_weights(root / folder / "best.pt", seed=number)
    options = [
        "--benchmark",
        "folder",
        "--data",
        str(root),
        "--classes",
        str(root / "classes.txt"),
        "--pictures",
        "2",
    ]
    files = [str(root / folder / "best.pt") for folder in ("one", "two")]
    for number, file in enumerate(files):
        evaluate.main(["--checkpoint", file, "--out", str(root / f"alone{number}"), *options])
    evaluate.main(["--checkpoint", *files, "--out", str(root / "both"), *options])
    return root


def entry_of(folder):
    (entry,) = json.loads((folder / "results.json").read_text())["benchmarks"]
    return {key: value for key, value in entry.items() if key != "seconds"}


def test_each_checkpoint_has_the_results_that_it_has_alone(compared):
    entries = []
    for number, name in enumerate(("one-best", "two-best")):
        entries.append(entry_of(compared / "both" / name))
        assert entries[-1] == entry_of(compared / f"alone{number}")
        for file in ("confusion-folder.csv", "miou.png"):
            assert (compared / "both" / name / file).is_file()
    assert entries[0]["classes"] != entries[1]["classes"]
    values = json.loads((compared / "both/comparison.json").read_text())
    assert values["miou"] == {"folder": {"one-best": entries[0]["miou"], "two-best": entries[1]["miou"]}}


def test_the_page_shows_all_side_by_side_and_asks_nobody(compared):
    page = (compared / "both/index.html").read_text()
    sources = [unquote(unescape(text)) for text in re.findall(r'src="([^"]+)"', page)]
    assert len(sources) == 2 * 2
    assert [source.split("/")[0] for source in sources] == ["one-best", "two-best"] * 2
    assert all((compared / "both" / source).is_file() for source in sources)
    assert "dog &lt;b&gt;" in page
    assert "<b>" not in page
    assert "http" not in page
    for name in ("one-best", "two-best"):
        for value in entry_of(compared / "both" / name)["classes"].values():
            assert (f"{value:.2f}" if value is not None else "–") in page


def test_the_page_of_one_shows_its_confusion(compared):
    page = (compared / "alone0/index.html").read_text()
    with open(compared / "alone0/confusion-folder.csv", newline="") as stream:
        _, *rows = csv.reader(stream)
    counts = np.array([row[1:] for row in rows], float)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    (matrix,) = re.findall(r'<table class="matrix">(.*?)</table>', page, re.DOTALL)
    shown = re.findall(r"<td[^>]*>([^<]*)</td>", matrix)
    assert shown == [f"{100 * share:.0f}" if share >= 0.005 else "" for share in shares.flat]
    assert shares.max() > 0.1
    assert len(list((compared / "alone0/pictures/folder").iterdir())) == 2 < IMAGES


def test_of_many_classes_the_mistakes_that_cost_most_are_listed(tmp_path):
    names = [f"class {number}" for number in range(60)]
    counts = np.diag(np.full(60, 100))
    counts[7, 9], counts[3, 4] = 300, 50
    entry = {
        "name": "x",
        "title": "X",
        "miou": 1.0,
        "pixel_accuracy": 2.0,
        "images": 3,
        "classes": dict.fromkeys(names, 4.0),
    }
    write_evaluation_page(tmp_path / "index.html", [Evaluated("a", tmp_path, [entry], [counts])], [])
    listed = re.findall(r"<li>(.*?)</li>", (tmp_path / "index.html").read_text())
    assert listed == ["class 7 → class 9: 75.0 % of its pixels", "class 3 → class 4: 33.3 % of its pixels"]


def test_the_table_has_a_column_a_checkpoint(compared, capsys):
    files = [str(compared / folder / "best.pt") for folder in ("one", "two")]
    options = [
        "--benchmark",
        "voc,voc20",
        "--data",
        str(compared),
        "--partial",
        "--out",
        str(compared / "table"),
    ]
    evaluate.main(["--checkpoint", *files, *options])
    printed = capsys.readouterr().out
    results = [
        json.loads((compared / "table" / name / "results.json").read_text())
        for name in ("one-best", "two-best")
    ]
    lines = printed[printed.index("mIoU          one-best") :].splitlines()
    assert lines[0].split() == ["mIoU", "one-best", "two-best"]
    for place, line in enumerate(lines[1:3]):
        assert [float(value) for value in line.split()[-2:]] == [
            pytest.approx(found["benchmarks"][place]["miou"], abs=0.005) for found in results
        ]


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["/runs/a/best.pt"], [("best", "")]),
        (["/runs/a.pt", "/runs/b.pt"], [("a", "a"), ("b", "b")]),
        (["/runs/a/best.pt", "/runs/b/best.pt"], [("a-best", "a-best"), ("b-best", "b-best")]),
        (["/x/a/best.pt", "/y/a/best.pt"], [("x-a-best", "x-a-best"), ("y-a-best", "y-a-best")]),
        (["/x/a.pt", "/x/a.pth"], [("x-a.pt", "x-a.pt"), ("x-a.pth", "x-a.pth")]),
    ],
)
def test_names_tell_the_files_apart(paths, names):
    assert name_checkpoints(paths) == [(path, *pair) for path, pair in zip(paths, names, strict=True)]


def test_a_file_named_twice_is_refused():
    with pytest.raises(UserError, match="named twice"):
        name_checkpoints(["/x/a.pt", "/x/../x/a.pt"])


def test_what_stands_beside_the_weights_is_not_read(tmp_path):
    """A training checkpoint holds an optimiser, twice as large as the weights; here a hundred times."""
    save_model(
        tmp_path / "last.pt",
        GroupViT(GroupViTConfig.preset("tiny")),
        optimiser={"state": torch.ones(32 << 20)},
    )
    script = (
        "import psutil, sys\nfrom models.weights import load_model\n"
        "before = psutil.Process().memory_info().rss\n"
        "model, rest = load_model(sys.argv[1])\n"
        "print(psutil.Process().memory_info().rss - before)\n"
        "assert float(rest['optimiser']['state'][-1]) == 1.0\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "last.pt")], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 64 << 20, f"{int(done.stdout) >> 20} MiB for a model of a few; the file has 128"
