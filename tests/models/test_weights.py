"""Weight files and HF folders: what goes in comes out, and what does not fit is one clear error."""

from __future__ import annotations

import json
import os
import pickle
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from configs.errors import UserError
from models.groupvit import GroupViT, GroupViTConfig
from models.hf import convert_hf_config, load_hf_groupvit
from models.weights import FORMAT, load_model, save_model
from tests.models.hf_reference import SMALL, pair, tokens

ROOT = Path(__file__).parents[2]


@pytest.fixture
def model():
    torch.manual_seed(0)
    return GroupViT(GroupViTConfig.preset("tiny"))


class Explosive:
    """Unpickled, it writes a file: what a crafted weight file would do."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_saved_model_loads_equal_with_everything_beside_it(model, tmp_path):
    save_model(tmp_path / "new" / "model.pt", model, step=7, history=[0.5, 0.25])
    loaded, meta = load_model(tmp_path / "new" / "model.pt")
    assert meta["step"] == 7
    assert meta["history"] == [0.5, 0.25]
    assert not loaded.training
    assert loaded.config == model.config
    assert all(
        torch.equal(a, b)
        for a, b in zip(loaded.state_dict().values(), model.state_dict().values(), strict=True)
    )
    assert os.listdir(tmp_path / "new") == ["model.pt"]


def test_weights_stored_in_half_precision_come_back_rounded_and_as_float32(model, tmp_path):
    save_model(tmp_path / "whole.pt", model)
    save_model(tmp_path / "half.pt", model, dtype=torch.float16)
    assert (tmp_path / "half.pt").stat().st_size < 0.55 * (tmp_path / "whole.pt").stat().st_size
    loaded, _ = load_model(tmp_path / "half.pt")
    for name, value in loaded.state_dict().items():
        given = model.state_dict()[name]
        assert value.dtype == given.dtype
        torch.testing.assert_close(value, given, rtol=1e-3, atol=1e-6)


def test_a_failed_save_leaves_the_old_file(model, tmp_path):
    path = tmp_path / "model.pt"
    save_model(path, model, step=1)
    with pytest.raises(Exception, match="pickle"):
        save_model(path, model, broken=lambda: None)
    assert load_model(path)[1]["step"] == 1
    assert os.listdir(tmp_path) == ["model.pt"]


def test_reserved_names_are_refused(model, tmp_path):
    with pytest.raises(ValueError, match="config"):
        save_model(tmp_path / "model.pt", model, config={})


def write(path, content):
    torch.save(content, path)
    return path


@pytest.mark.parametrize("share", [0.0, 0.2, 0.6, 0.999])
def test_truncated_files_say_so(model, tmp_path, share):
    path = tmp_path / "model.pt"
    save_model(path, model)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UserError, match=r"model\.pt: truncated or not a weight file"):
        load_model(path)


@pytest.mark.parametrize(
    "content",
    [b"hello", b"\x80\x02}q\x00.", b"{}", random.Random(0).randbytes(3000)],
    ids=["words", "a pickle", "JSON", "noise"],
)
def test_other_files_are_one_error(tmp_path, content):
    path = tmp_path / "other.pt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"other\.pt"):
        load_model(path)


def test_missing_files_and_folders_are_one_error(tmp_path):
    for path in (tmp_path / "none.pt", tmp_path):
        with pytest.raises(UserError, match="no such weight file"):
            load_model(path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: c.update(format="other-1"), "format is 'other-1'"),
        (lambda c: c.pop("format"), "format is None"),
        (lambda c: c.pop("model"), "lacks model"),
        (lambda c: c["config"].update(width=64), "tensors do not fit"),
        (lambda c: c["config"].update(width=33), "width=33"),
        (lambda c: c["config"].update(colour=1), "colour"),
        (lambda c: c["config"].update(width="wide"), "file.pt"),
        (lambda c: c.update(config=[1]), "file.pt"),
        (lambda c: c.update(model=[1]), "file.pt"),
        (lambda c: c["model"].update(logit_scale=1), "file.pt"),
        (lambda c: c["model"].pop("logit_scale"), "first logit_scale: missing"),
        (
            lambda c: c["model"].update(extra=torch.zeros(3)),
            r"first extra: \(3,\) in the file, none in the model",
        ),
    ],
)
def test_wrong_contents_say_what_is_wrong(model, tmp_path, change, says):
    content = {"format": FORMAT, "config": model.config.to_dict(), "model": dict(model.state_dict())}
    change(content)
    with pytest.raises(UserError, match=says):
        load_model(write(tmp_path / "file.pt", content))


def test_a_bare_list_is_refused(tmp_path):
    with pytest.raises(UserError, match="format is 'list'"):
        load_model(write(tmp_path / "file.pt", [1, 2]))


@pytest.mark.parametrize("writer", ["torch", "legacy", "pickle"])
def test_a_crafted_file_runs_nothing(tmp_path, writer):
    victim, path = tmp_path / "made-by-payload", tmp_path / "evil.pt"
    content = {"format": FORMAT, "config": {}, "model": Explosive(victim)}
    if writer == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=writer == "torch")
    with pytest.raises(UserError, match=r"evil\.pt"):
        load_model(path)
    assert not victim.exists()
    pickle.loads(pickle.dumps(Explosive(victim)))  # the payload does work where it is let in
    assert victim.exists()


# --- Hugging Face folders


def hf_folder(tmp_path, kind):
    reference, _ = pair(SMALL, 4)
    reference.save_pretrained(tmp_path)
    if kind == "bin":
        (tmp_path / "model.safetensors").unlink()
        torch.save(reference.state_dict(), tmp_path / "pytorch_model.bin")
    return reference


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_an_hf_folder_loads_with_equal_features(tmp_path, kind):
    reference = hf_folder(tmp_path, kind)
    ours = load_hf_groupvit(tmp_path)
    images, texts = torch.randn(2, 3, 48, 48), tokens(2, 18, 120, 0)
    with torch.no_grad():
        torch.testing.assert_close(
            ours.encode_image(images).pooled, reference.get_image_features(images).pooler_output
        )
        torch.testing.assert_close(ours.encode_text(texts), reference.get_text_features(texts).pooler_output)


def test_the_converter_entry_writes_a_weight_file(tmp_path):
    hf_folder(tmp_path / "hf", "safetensors")
    command = [sys.executable, "-m", "models.hf", str(tmp_path / "hf"), str(tmp_path / "out.pt")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    ours, _ = load_model(tmp_path / "out.pt")
    expected = load_hf_groupvit(tmp_path / "hf").state_dict()
    assert all(torch.equal(expected[name], value) for name, value in ours.state_dict().items())
    failed = subprocess.run(
        [*command[:3], str(tmp_path), "x.pt"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert failed.returncode == 2
    assert failed.stderr.startswith("error: ")
    assert len(failed.stderr.splitlines()) == 1


def test_older_config_files_with_missing_values_mean_the_published_size():
    assert convert_hf_config({"text_config": None, "vision_config": {"num_output_groups": [64, 8, 0]}}) == (
        GroupViTConfig(init_temperature=pytest.approx(0.07))
    )


def broken_folder(tmp_path, what):
    hf_folder(tmp_path, "bin" if what == "payload" else "safetensors")
    config, safe = tmp_path / "config.json", tmp_path / "model.safetensors"
    values = json.loads(config.read_text())
    if what == "no config":
        config.unlink()
    elif what == "bad json":
        config.write_text("{")
    elif what == "no weights":
        safe.unlink()
    elif what == "truncated":
        safe.write_bytes(safe.read_bytes()[:5000])
    elif what == "other model":
        config.write_text(json.dumps(values | {"model_type": "clip"}))
    elif what == "other size":
        values["vision_config"]["depths"] = [2, 2, 2]
        config.write_text(json.dumps(values))
    elif what == "other activation":
        values["vision_config"]["hidden_act"] = "relu"
        config.write_text(json.dumps(values))
    elif what == "payload":
        torch.save({"x": Explosive(tmp_path / "made-by-payload")}, tmp_path / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("no config", "no such file"),
        ("bad json", "not valid JSON"),
        ("no weights", "neither model.safetensors nor"),
        ("truncated", "truncated"),
        ("other model", "clip model"),
        ("other size", "not those of its config.json"),
        ("other activation", "hidden_act is 'relu'"),
        ("payload", "more than tensors"),
    ],
)
def test_broken_hf_folders_say_what_is_wrong(tmp_path, what, says):
    broken_folder(tmp_path, what)
    with pytest.raises(UserError, match=says):
        load_hf_groupvit(tmp_path)
    assert not (tmp_path / "made-by-payload").exists()
