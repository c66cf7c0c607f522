"""Images of many small batches through the model's own batches, and back in their order; without Spark."""

from __future__ import annotations

import numpy as np
import pytest

from configs.schema import ClipConfig, EmbedConfig, IngestConfig
from models.clip import clip_fingerprint, load_clip
from spark_jobs.embedding.images import decoded, embed_pixels
from spark_jobs.frames.images import _Embedder
from spark_jobs.frames.workers import Workers
from tests import harness
from tests.corpora.ingest_inputs import encode, jpeg, picture


@pytest.fixture(scope="module")
def clip_config(tmp_path_factory):
    return ClipConfig(*harness.write_tiny_clip(tmp_path_factory.mktemp("clip")))


def _images() -> list[bytes | None]:
    images: list[bytes | None] = [jpeg(60 + n, 90 - n, n) for n in range(30)]
    images[2], images[7], images[8] = None, b"no image", images[8][:300]
    images[11] = encode(picture(80, 60, 3), "PNG")
    return images


@pytest.mark.parametrize("sizes", [[30], [1] * 30, [3, 0, 5, 14, 0, 8, 0], [0, 0, 29, 1]])
@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_every_row_comes_back_in_its_batch(clip_config, sizes, batch_size):
    images = _images()
    ends = np.cumsum(sizes)
    options = EmbedConfig(batch_size=batch_size, threads=2)
    embed = _Embedder(Workers(None), clip_config, options, clip_fingerprint(clip_config), IngestConfig())
    found = list(embed(iter(images[end - size : end] for size, end in zip(sizes, ends, strict=True))))
    assert [len(rows) for rows in found] == sizes
    rows = [row for batch in found for row in batch]
    reasons = {n: why for n, (_, why) in enumerate(rows) if why}
    assert reasons == {2: "missing_image", 7: "unreadable_image", 8: "truncated_image"}
    assert all((vector is None) == (why is not None) for vector, why in rows)
    clip = load_clip(clip_config)
    for n, (vector, _) in enumerate(rows):
        if vector is not None:
            (_,), (alone,), _ = embed_pixels(clip, decoded(clip, [images[n]], options, IngestConfig()), 1)
            np.testing.assert_allclose(vector, alone.astype(np.float32), atol=5e-4, err_msg=str(n))


def test_nothing_but_broken_images_does_not_pile_up(clip_config):
    """Whoever hands in the images gets the first answers before the last image is asked for."""
    asked = []

    def batches():
        for number in range(50):
            asked.append(number)
            yield [None] * 20

    embed = _Embedder(
        Workers(None), clip_config, EmbedConfig(batch_size=4, threads=1), clip_fingerprint(clip_config), None
    )
    answers = embed(batches())
    assert next(answers) == [(None, "missing_image")] * 20
    assert max(asked) < 10
    assert sum(len(rows) for rows in answers) == 49 * 20
