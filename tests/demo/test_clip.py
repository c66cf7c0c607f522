"""The committed tiny CLIP, loaded as any open_clip model is."""

from pathlib import Path

import numpy as np
import pytest
import torch

import demo
from configs.schema import ClipConfig
from demo.clip_data import TEST_STREAM, draw_set, label_prompts, write_texts
from demo.clip_quality import average_precision, measure_quality
from demo.train_clip import LEAST_COSINE, NEUTRAL_COSINE, main, matching_loss, own_texts, range_loss
from demo.world.captions import concept_forms
from demo.world.scenes import LABELS
from models.clip import load_clip

FOLDER = Path(demo.__file__).parent / "clip"
WEIGHTS = FOLDER / "weights.safetensors"


def test_weights_are_small_and_load_through_open_clips_own_calls():
    import open_clip

    assert WEIGHTS.stat().st_size <= 8_000_000
    open_clip.add_model_config(FOLDER / "model.json")
    model, _, transform = open_clip.create_model_and_transforms("model", pretrained=str(WEIGHTS))
    tokens = open_clip.get_tokenizer("model")(["a photo of a dog", "hot air balloons over the sea"])
    assert tokens.max() == 49407
    with torch.no_grad():
        text = model.eval().encode_text(tokens)
    assert text.shape == (2, model.visual.output_dim)
    assert text.dtype == torch.float32
    assert torch.isfinite(text).all()
    assert transform.transforms[-1].mean == open_clip.OPENAI_DATASET_MEAN


@pytest.fixture(scope="module")
def quality():
    # Another seed than the one the README's figures are from; TEST_STREAM is disjoint from training for any seed.
    return measure_quality(FOLDER / "model.json", WEIGHTS, 7, TEST_STREAM, 200, 1)


def test_it_ranks_unseen_scenes_by_label(quality):
    assert quality.mean_average_precision > 0.6
    assert quality.mean_average_precision > 3 * quality.chance


def test_cosines_are_positive_as_the_ranking_needs():
    clip = load_clip(
        ClipConfig(name=str(FOLDER / "model.json"), pretrained=str(WEIGHTS)), torch.device("cpu")
    )
    drawn = draw_set(8, TEST_STREAM, 60, 128, 1)
    images = clip.encode_images(drawn.pictures).astype(np.float32)
    cosines = images @ clip.encode_texts([*label_prompts(), "a photo of a day", "a photo of a piano"]).T
    assert np.quantile(cosines, 0.001) > 0
    labels, neutral = cosines[:, :-2], cosines[:, -2:]
    assert neutral.std(0).max() < 0.5 * labels.std(0).mean()


def test_its_nearest_scenes_show_the_same_labels(quality):
    assert quality.neighbour_overlap > 2 * quality.random_overlap


def test_it_finds_full_captions_of_unseen_scenes(quality):
    assert quality.recall_at_5 > 10 * 5 / quality.retrieval_scenes


def test_average_precision_equals_scikit_learns():
    from sklearn.metrics import average_precision_score

    rng = np.random.default_rng(1)
    for _ in range(20):
        relevant = rng.random(50) < 0.3
        relevant[0] = True
        scores = rng.normal(size=50)
        assert average_precision(scores, relevant) == pytest.approx(average_precision_score(relevant, scores))


def test_matching_loss_equals_the_sum_written_out():
    rng = np.random.default_rng(2)
    image, text = rng.normal(size=(4, 5)), rng.normal(size=(6, 5))
    image /= np.linalg.norm(image, axis=1, keepdims=True)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    fits = rng.random((4, 6)) < 0.4
    fits[:, 0], fits[:, 5] = True, False
    scale, expected = 7.0, 0.0
    for scores, positive in ((scale * image @ text.T, fits), (scale * text @ image.T, fits.T)):
        rows = []
        for row, chosen in zip(scores, positive, strict=True):
            if chosen.any():
                share = np.exp(row) / np.exp(row).sum()
                rows.append(
                    np.mean([np.log(1 / chosen.sum()) - np.log(share[i]) for i in np.flatnonzero(chosen)])
                )
        expected += np.mean(rows) / 2
    got = matching_loss(
        torch.tensor(image), torch.tensor(text), torch.tensor(fits), torch.tensor(scale, dtype=torch.float64)
    )
    assert got.item() == pytest.approx(expected, rel=1e-5)


def test_range_loss_is_zero_only_where_cosines_are_where_they_should_be():
    def with_cosine(value):
        return torch.tensor([[value, (1 - value**2) ** 0.5]])

    image = torch.tensor([[1.0, 0.0]])
    assert range_loss(image, with_cosine(0.5), with_cosine(NEUTRAL_COSINE)).item() == pytest.approx(
        0, abs=1e-10
    )
    low = range_loss(image, with_cosine(LEAST_COSINE - 0.3), with_cosine(NEUTRAL_COSINE + 0.2)).item()
    assert low == pytest.approx(0.3**2 + 0.2**2, rel=1e-5)


def test_training_texts_name_only_what_the_view_shows():
    drawn = draw_set(1, TEST_STREAM, 12, 48, 1)
    texts, named = write_texts(np.random.default_rng(0), drawn.visible, drawn.counts)
    assert drawn.pictures.shape == (12, 48, 48, 3)
    assert len(texts) == 12
    assert named.shape == (12, len(LABELS))
    assert named.any(1).all()
    assert not (named & ~drawn.visible).any()


def test_own_captions_name_little_of_what_the_view_shows_and_fit_their_own_picture_alone():
    drawn = draw_set(1, TEST_STREAM, 30, 48, 1)
    rows = np.array([3, 7, 3, 11])
    texts, fits = own_texts(drawn, rows, np.random.default_rng(0))
    assert texts == [drawn.captions[row] for row in (3, 7, 3, 11)]
    for one, row in enumerate(fits):
        assert row.tolist() == [text == texts[one] for text in texts]
    words = concept_forms().values()
    named = sum(any(form in text.lower() for form in forms) for text in drawn.captions for forms in words)
    assert named < 0.5 * drawn.visible.sum()


@pytest.mark.slow
@pytest.mark.parametrize("captions", ["full", "own"])
def test_training_writes_weights_that_open_clip_loads(tmp_path, capsys, captions):
    sizes = "--scenes 64 --steps 4 --batch-size 32 --test-scenes 60 --threads 1"
    main(f"{sizes} --captions {captions} --out {tmp_path}".split())
    assert "label mAP" in capsys.readouterr().out
    assert (tmp_path / "weights.safetensors").stat().st_size <= 8_000_000
    readme = (tmp_path / "README.md").read_text()
    assert "| label mAP" in readme
    assert f"--captions {captions}" in readme
