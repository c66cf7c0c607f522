from __future__ import annotations

from pathlib import Path

import pytest

from configs.arguments import parse_config
from configs.errors import UserError
from configs.loading import describe_options, load_config

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "configs").glob("*.yaml")))
def test_every_shipped_configuration_loads(name):
    config = load_config(str(ROOT / "configs" / name))
    assert config.workspace
    assert config.corpora


@pytest.mark.parametrize("share", ["0", "0.25", "auto"])
def test_pairs_held_out_are_a_share_or_auto(share):
    found = load_config(None, [f"train.held_out={share}"]).train.held_out
    assert found == ("auto" if share == "auto" else float(share))


def test_overrides_win_over_the_file(tmp_path):
    (tmp_path / "c.yaml").write_text("archives: {neighbours: 4, top: 7}\n")
    config = load_config(str(tmp_path / "c.yaml"), ["archives.neighbours=16", "index.corpora=[]"])
    assert (config.archives.neighbours, config.archives.top) == (16, 7)


CASES = {
    "unknown key, near": (
        ["archives.neighbors=3"],
        "unknown key 'archives.neighbors'; did you mean 'archives.neighbours'",
    ),
    "right key, wrong section": (["index.ranking=paper"], "did you mean 'archives.ranking'"),
    "wrong type": (["archives.neighbours=many"], "archives.neighbours"),
    "wrong choice": (
        ["archives.ranking=papr"],
        "must be one of calibrated, paper, compat; did you mean 'paper'",
    ),
    "not positive": (["archives.top=0"], "archives.top must be above 0, found 0"),
    "no equals sign": (["archives.top"], "write overrides as section.key=value"),
    "prompt without place": (["clip.prompt=a photo"], r"clip.prompt must contain \{\}"),
    "share": (["index.target_recall=1.5"], "between 0 and 1"),
    "corpus without name": (["corpora=[{path: x}]"], r"corpora\[0\].name"),
    "corpus twice": (["corpora=[{name: a, path: x},{name: a, path: y}]"], "used twice"),
    "corpus key": (
        ["corpora=[{name: a, paht: x}]"],
        r"unknown key 'corpora\[0\].paht'; did you mean 'corpora\[0\].path'",
    ),
    "unknown corpus": (
        ["corpora=[{name: a, path: x}]", "index.corpora=[b]"],
        "names 'b', which is no corpus; known: a",
    ),
}


@pytest.mark.parametrize(("overrides", "message"), CASES.values(), ids=CASES.keys())
def test_mistakes_are_named_with_their_mend(overrides, message):
    with pytest.raises(UserError, match=message):
        load_config(None, overrides)


def test_a_missing_file_names_those_that_are_there():
    with pytest.raises(UserError, match=r"no such file.*demo\.yaml"):
        load_config(str(ROOT / "configs" / "dmeo.yaml"))


def test_broken_yaml_and_wrong_top_level(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("a: [1\n")
    with pytest.raises(UserError, match="not valid YAML"):
        load_config(str(file))
    file.write_text("- a\n")
    with pytest.raises(UserError, match="top level must be keys and values"):
        load_config(str(file))


def test_help_describes_every_option_of_a_section():
    text = describe_options("archives")
    for name in ("neighbours", "top", "ranking", "include_anchor"):
        assert f"archives.{name}=" in text
    assert "L: retrieved images a pair" in text


def test_an_empty_override_is_the_empty_value():
    config = load_config("configs/demo.yaml", ["report.truth=", "concepts.hold_out=", "clip.name="])
    assert (config.report.truth, config.concepts.hold_out, config.clip.name) == ("", [], "")
    with pytest.raises(UserError, match="ingest.short_side: Value ''"):
        load_config(None, ["ingest.short_side="])


def test_overrides_stand_before_and_after_the_file():
    argv = ["workspace=a", "--config", "configs/demo.yaml", "ingest.short_side=8"]
    config = parse_config(argv, "job", "text", [])
    assert (config.workspace, config.ingest.short_side) == ("a", 8)


@pytest.mark.parametrize(
    ("value", "expected"),
    [("true", True), ("false", False), ("[archives,training_set]", ["archives", "training_set"]), ("[]", [])],
)
def test_overwrite_is_yes_no_or_names(value, expected):
    assert load_config(None, [f"overwrite={value}"]).overwrite == expected


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("archives", "true, false or a list of tables like"),
        ("[archive]", "names 'archive'; tables here: pairs, image_embeddings"),
        ("3", "true, false or a list"),
        ("[1]", "true, false or a list"),
    ],
)
def test_other_values_of_overwrite_are_refused(value, message):
    with pytest.raises(UserError, match=message):
        load_config(None, [f"overwrite={value}"])


def test_a_job_is_asked_to_overwrite_its_own_tables_only():
    from spark_jobs.engine.entry import parse_arguments

    assert parse_arguments(["overwrite=[concepts]"], "mine_concepts", "", []).overwrite == ["concepts"]
    assert parse_arguments(["overwrite=[concepts]"], "pipeline", "", []).overwrite == ["concepts"]
    with pytest.raises(UserError, match="ingest: overwrite names 'archives'; tables here: pairs$"):
        parse_arguments(["overwrite=[archives]"], "ingest", "", [])


def test_a_tilde_is_the_home_folder_in_every_section(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "/home/someone")
    file = tmp_path / "c.yaml"
    file.write_text(
        "corpora: [{name: web, path: '~/in/{0..3}.tar'}]\nclip: {pretrained: ~/clip.safetensors}\n"
    )
    config = load_config(
        str(file), ["workspace=~/ws", "train.output=~/out", "concepts.stop_words=./~/words.txt"]
    )
    assert (config.workspace, config.train.output) == ("/home/someone/ws", "/home/someone/out")
    assert config.clip.pretrained == "/home/someone/clip.safetensors"
    assert config.corpora[0].path == "/home/someone/in/{0..3}.tar"
    assert config.concepts.stop_words == "./~/words.txt"
    with pytest.raises(UserError, match="output=~nobody-here/x: this machine knows no such user"):
        load_config(None, ["train.output=~nobody-here/x"])
