"""benchmarks.json and the vectors that it is measured on."""

from __future__ import annotations

import json
import socket

import numpy as np

from tests.benchmarks.clip_like import clip_like
from tests.benchmarks.record import Entry, alternate, record

FIELDS = {"name", "value", "unit", "compared_with", "ratio", "target", "spread", "machine"}


def test_a_figure_replaces_the_earlier_one_of_its_name_and_no_other(tmp_path):
    file = tmp_path / "benchmarks.json"
    record(Entry("a", 1.0, "s", "b", 2.0, ">= 1"), Entry("c", 5.0, "s", "d", None, "-"), file=file)
    record(Entry("a", 3.0, "s", "b", 4.0, ">= 1", 0.1), file=file)
    found = json.loads(file.read_text())
    assert all(set(entry) == FIELDS for entry in found)
    assert {entry["name"]: (entry["value"], entry["ratio"]) for entry in found} == {
        "a": (3, 4),
        "c": (5, None),
    }
    assert socket.gethostname() not in file.read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["benchmarks.json"]


def test_what_does_four_times_the_work_takes_longer_in_turn():
    ours, other, spread = alternate(lambda: sum(range(300_000)), lambda: sum(range(1_200_000)), rounds=3)
    assert 2 < other / ours < 8
    assert spread >= 0


def test_made_vectors_are_unit_long_and_the_same_again():
    one, again = clip_like(9000), clip_like(9000)
    assert np.array_equal(one, again)
    assert np.array_equal(one[:8192], clip_like(8192))
    assert not np.array_equal(one[:800], clip_like(800, seed=1))
    assert np.allclose(np.linalg.norm(one.astype(np.float32), axis=1), 1, atol=2e-3)


def test_made_vectors_lie_as_the_real_ones_do(real_data):
    real = np.load(real_data / "real-clip" / "image_embeddings.npy")
    for place in (1, 8, 32):
        near = [nearest(vectors, place) for vectors in (clip_like(len(real)), real)]
        assert abs(near[0] - near[1]) < 0.05


def nearest(vectors: np.ndarray, place: int) -> float:
    """Mean cosine with the nearest other vector but so many."""
    similar = vectors.astype(np.float32) @ vectors.astype(np.float32).T
    np.fill_diagonal(similar, -1)
    return float(np.sort(similar, axis=1)[:, -place].mean())
