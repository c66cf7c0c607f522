"""Help and mistakes of the jobs around ingest, embed, export and import."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from configs.errors import UserError
from configs.loading import load_config
from spark_jobs import embed_images, export_training, import_embeddings, ingest
from tests import harness
from tests.corpora.ingest_inputs import write_tar

JOBS = {
    "ingest": (
        ingest,
        ["corpora", "image_root", "ingest.max_pixels=64000000", "rejects", "{00000..00331}.tar"],
    ),
    "embed_images": (embed_images, ["clip.name='ViT-B-16'", "openai", "float16", "embed.batch_size=0"]),
    "export_training": (export_training, ["export.archive_length=16", "KEY.txt", "make_batch_reader"]),
    "import_embeddings": (import_embeddings, ["img_emb", "metadata", "key_column"]),
}


@pytest.mark.parametrize("job", JOBS)
def test_help_teaches(job, monkeypatch, capsys):
    module, words = JOBS[job]
    monkeypatch.setattr(sys, "argv", [f"{job}.py", "--help"])
    with pytest.raises(SystemExit) as ended:
        module.main()
    text = capsys.readouterr().out
    assert ended.value.code == 0
    for word in (*words, f"spark-submit spark_jobs/{job}.py --config", "workspace=''", "Example:"):
        assert word in text, word
    assert max(map(len, text.splitlines())) <= 125


def test_the_examples_of_the_help_are_valid(tmp_path):
    write_tar(tmp_path / "00000.tar", [])
    example = f'corpora=[{{name: cc3m, format: webdataset, path: "{tmp_path}/{{00000..00000}}.tar"}}]'
    config = load_config(None, [f"workspace={tmp_path}", example])
    ingest.check(config)
    assert config.corpora[0].path.endswith("/{00000..00000}.tar")


WRONG = {
    "key": (
        "ingest",
        ["ingest.shortside=8"],
        "unknown key 'ingest.shortside'; did you mean 'ingest.short_side'?",
    ),
    "type": ("ingest", ["ingest.max_pixels=many"], "ingest.max_pixels: Value 'many'"),
    "format": ("ingest", ["corpora=[{name: a, format: webdatset, path: x}]"], "did you mean 'webdataset'?"),
    "quality": ("ingest", ["ingest.jpeg_quality=900"], "ingest.jpeg_quality is between 1 and 100, found 900"),
    "threads": ("ingest", ["ingest.threads=-1"], "ingest.threads must not be negative, found -1"),
    "lengths": ("ingest", ["ingest.max_caption_chars=2"], "is below ingest.min_caption_chars=3"),
    "precision": ("embed_images", ["clip.precision=fp8"], "it must be one of auto, fp32, bf16, fp16"),
    "batch": ("embed_images", ["embed.batch_size=-4"], "embed.batch_size must not be negative"),
    "length": (
        "export_training",
        ["export.archive_length=0"],
        "export.archive_length must be above 0, found 0",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_values_are_one_line_and_code_2(what, monkeypatch, capsys, tmp_path):
    job, overrides, message = WRONG[what]
    monkeypatch.setattr(sys, "argv", [f"{job}.py", f"workspace={tmp_path}", *overrides])
    with pytest.raises(SystemExit) as ended:
        JOBS[job][0].main()
    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error


def test_embedding_needs_pairs_and_a_model_that_exists(tmp_path):
    clip = harness.write_tiny_clip(tmp_path / "clip")
    words = [f"workspace={tmp_path}", f"clip.name={clip[0]}", f"clip.pretrained={clip[1]}"]
    with pytest.raises(UserError, match="table 'pairs' is not in workspace .*; run the job ingest first"):
        embed_images.check(load_config(None, words))
    with pytest.raises(UserError, match=r"neither a file here nor a tag of tiny-.*; tags: none"):
        embed_images.check(load_config(None, [*words[:2], "clip.pretrained=openai"]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("job", "overrides", "message"),
    [
        ("ingest", ["corpora=[{name: a, path: /nowhere/*.tar}]"], "/nowhere/*.tar: no file matches"),
        (
            "embed_images",
            ["clip.name=ViT-B-23"],
            "clip.name=ViT-B-23: open_clip has no such model; near: ViT-B-32",
        ),
        ("export_training", [], "table 'pairs' is not in workspace"),
        ("import_embeddings", None, "caption_column=text is not in"),
    ],
)
def test_real_processes_end_before_spark_starts(job, overrides, message, tmp_path):
    if overrides is None:
        np.save(tmp_path / "a.npy", np.ones((2, 4), np.float16))
        (tmp_path / "a.jsonl").write_text(json.dumps({"caption": "x"}))
        corpus = f"name: a, format: embeddings, path: {tmp_path}/a.npy, metadata: {tmp_path}/a.jsonl"
        overrides = [f"corpora=[{{{corpus}, caption_column: text}}]"]
    command = [
        sys.executable,
        str(harness.ROOT / f"spark_jobs/{job}.py"),
        f"workspace={tmp_path}/ws",
        *overrides,
    ]
    done = harness.run(command, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert done.stdout == ""
