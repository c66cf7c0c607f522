"""The index folder: what is built, what is found, and what is refused."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pytest

from configs.errors import UserError
from curation.index import (
    IndexWriter,
    OpenIndex,
    SearchTarget,
    choose_index,
    concept_table,
    exact_search,
    lists_to_visit,
    merge,
    open_index,
    place_on_device,
    search,
    train,
    tune,
)
from curation.index import build as build_module
from curation.index.search import recall
from curation.index.spec import row_bytes, split_lists
from curation.keys import hash_keys
from curation.mapped_files import file_checksum
from curation.separation import separations
from tests.curation.faiss_twin import faiss_twin
from tests.curation.synthetic import Corpus, build, make_corpus

ROWS = 2_000


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return make_corpus(ROWS, d=32, concepts=150)


@pytest.fixture(scope="module")
def big() -> Corpus:
    return make_corpus(10_000, d=32, concepts=150, groups=300)


@pytest.fixture(scope="module")
def flat_folder(corpus, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("index") / "flat"
    build(corpus, folder, "flat", unit_rows=300)
    return folder


@pytest.fixture(scope="module")
def flat(flat_folder) -> OpenIndex:
    return open_index(flat_folder)


@pytest.fixture
def copy(flat_folder, tmp_path) -> Path:
    return Path(shutil.copytree(flat_folder, tmp_path / "copy"))


def brute_force(corpus: Corpus, anchors: np.ndarray, neighbours: int) -> np.ndarray:
    """Rows of the nearest others in double precision, equal ones by row."""
    similarities = corpus.vectors[anchors].astype(np.float64) @ corpus.vectors.astype(np.float64).T
    similarities[np.arange(len(anchors)), anchors] = -np.inf
    order = np.lexsort((np.broadcast_to(np.arange(len(corpus)), similarities.shape), -similarities), axis=1)
    return order[:, :neighbours]


def queries(corpus: Corpus, rows: np.ndarray) -> tuple[np.ndarray, pa.Array]:
    return corpus.vectors[rows].astype(np.float32), corpus.keys.take(pa.array(rows))


# --- deciding ---------------------------------------------------------------------------------------


def test_auto_is_exact_while_that_is_cheap():
    assert choose_index(2_000, 512).kind == "flat"


def test_auto_takes_inverted_lists_above():
    spec = choose_index(2_751_755, 512, memory_gb=8)
    assert (spec.kind, spec.nlist, spec.splits) == ("ivf", round(4 * 2_751_755**0.5), 1)


def test_what_exceeds_the_budget_is_split():
    spec = choose_index(26_985_925, 512, memory_gb=8)
    assert (spec.kind, spec.splits) == ("ivf", 4)
    assert 26_985_925 * (1024 + 8) / spec.splits <= 8e9 < 26_985_925 * (1024 + 8) / (spec.splits - 1)


def test_lists_have_enough_training_vectors():
    assert 200_000 / choose_index(26_985_925, 512, train_rows=200_000).nlist >= 39
    every = choose_index(26_985_925, 512)
    assert every.nlist == round(4 * 26_985_925**0.5)
    assert every.sample_rows / every.nlist >= 39


@pytest.mark.parametrize("sizes", [[5, 0, 0, 7, 1, 9, 30, 2], [0, 0, 0, 1], [4] * 9])
@pytest.mark.parametrize("splits", [1, 2, 3, 4])
def test_every_list_lies_in_one_split_and_no_split_is_without_lists(sizes, splits):
    edges = split_lists(np.array(sizes), splits)
    assert [number for first, last in edges for number in range(first, last)] == list(range(len(sizes)))
    assert all(last > first for first, last in edges)


def test_splits_are_about_equal():
    sizes = np.random.default_rng(0).integers(0, 500, 1000)
    parts = [sizes[first:last].sum() for first, last in split_lists(sizes, 7)]
    assert max(parts) - min(parts) <= 2 * sizes.max()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "hnsw"}, "auto, flat, ivf"),
        ({"memory_gb": 0.0}, "index.memory_gb"),
        ({"rows": 0}, "run embed_images"),
    ],
)
def test_impossible_choices_say_what_to_write(arguments, message):
    with pytest.raises(UserError, match=message):
        choose_index(**{"rows": 100, "d": 8, **arguments})


def test_too_small_a_sample_is_refused():
    with pytest.raises(UserError, match=r"index\.nlist"):
        train(np.eye(4, dtype=np.float32), choose_index(1000, 4, kind="ivf", nlist=50))


# --- finding ----------------------------------------------------------------------------------------


def test_flat_finds_the_true_neighbours_and_leaves_the_anchor_out(corpus, flat):
    rows = np.arange(0, ROWS, 7)
    found, similarities = search(flat, *queries(corpus, rows)[:1], 8, queries(corpus, rows)[1])
    assert np.array_equal(found, brute_force(corpus, rows, 8))
    products = (corpus.vectors[rows].astype(np.float64)[:, None] * corpus.vectors[found]).sum(axis=2)
    assert np.allclose(similarities, products, atol=1e-6)


def test_without_keys_an_image_finds_itself_first(corpus, flat):
    rows = np.arange(50)
    found, similarities = search(flat, corpus.vectors[rows].astype(np.float32), 3)
    assert np.array_equal(found[:, 0], rows)
    assert np.allclose(similarities[:, 0], 1, atol=1e-2)


def test_another_corpus_loses_no_neighbour_to_the_exclusion(corpus, flat):
    anchors = corpus.vectors[:20].astype(np.float32)
    foreign = pa.array([f"other/{row}" for row in range(20)])
    with_keys = search(flat, anchors, 4, foreign)
    without = search(flat, anchors, 4)
    assert np.array_equal(with_keys[0], without[0])


def test_inverted_lists_reach_the_recall_they_say(corpus, tmp_path):
    index = build(corpus, tmp_path / "ivf", "ivf", queries=400, nlist=20)
    said = tune(index, SearchTarget(8, queries=400))
    assert said.reached
    assert said.recall >= 0.99
    assert said.nprobe == index.nprobe < 20
    rows = np.arange(1, ROWS, 5)
    anchors, keys = queries(corpus, rows)
    found, similarities = search(index, anchors, 8, keys)
    true = brute_force(corpus, rows, 8)
    assert recall(found, true) >= 0.98
    exact = (anchors[:, None].astype(np.float64) * corpus.vectors[found]).sum(axis=2)
    assert np.allclose(similarities, exact, atol=1e-6)


@pytest.mark.parametrize("nprobe", [1, 3, 20])
@pytest.mark.parametrize("neighbours", [1, 8, 150, 700])
def test_nothing_in_the_lists_that_are_visited_is_missed(corpus, tmp_path, nprobe, neighbours):
    """Against brute force over the rows of the ``nprobe`` lists whose centres are nearest, in double precision."""
    index = build(corpus, tmp_path / "ivf", "ivf", nlist=20, nprobe=nprobe)
    (lists,), rows = index.splits[0].lists.segments, np.arange(3, ROWS, 11)
    list_of = np.repeat(np.arange(20), np.diff(lists.offsets))[np.argsort(lists.rows)]
    anchors = corpus.vectors[rows].astype(np.float64)
    visited = np.argsort(-(anchors @ index.centroids.T.astype(np.float64)), axis=1)[:, :nprobe]
    similar = anchors @ corpus.vectors.astype(np.float64).T
    similar[~(list_of[None, :, None] == visited[:, None, :]).any(axis=2)] = -np.inf
    similar[np.arange(len(rows)), rows] = -np.inf
    order = np.lexsort((np.broadcast_to(np.arange(ROWS), similar.shape), -similar), axis=1)[:, :neighbours]
    expected = np.where(np.isfinite(np.take_along_axis(similar, order, 1)), order, -1)
    found, similarities = search(index, *queries(corpus, rows)[:1], neighbours, queries(corpus, rows)[1])
    assert np.array_equal(found >= 0, expected >= 0)
    near = np.where(expected >= 0, np.take_along_axis(similar, order, 1), 0)
    assert np.allclose(similarities, near, atol=1e-6)
    other = (found != expected).nonzero()  # in single precision neighbours this close may change places
    assert np.allclose(similar[other[0], found[other]], near[other], atol=1e-6)
    assert len(other[0]) <= 0.001 * found.size
    assert all(len(set(row[row >= 0])) == (row >= 0).sum() for row in found)


def test_faiss_finds_the_same_in_the_same_lists(corpus, tmp_path):
    index = build(corpus, tmp_path / "ivf", "ivf", nlist=20, nprobe=4)
    twin = faiss_twin(index)
    anchors, _ = queries(corpus, np.arange(0, ROWS, 3))
    _, theirs = twin.search(anchors, 8, params=faiss.SearchParametersIVF(nprobe=4))
    assert recall(search(index, anchors, 8)[0], theirs) > 0.999  # all but equal similarities in another order


def test_nprobe_is_the_fewest_that_reaches_the_target(tmp_path):
    spread = make_corpus(ROWS, noise=3.0)  # hardly any groups: neighbours lie in several lists
    index = build(spread, tmp_path / "ivf", "ivf", queries=300, nlist=20)
    chosen = index.nprobe
    assert chosen > 1
    fewer = tune(index, SearchTarget(8, nprobe=chosen - 1, queries=300))
    assert fewer.nprobe == chosen - 1
    assert fewer.recall < 0.99
    assert not fewer.reached


def test_more_neighbours_and_a_higher_recall_take_more_lists(tmp_path):
    index = build(make_corpus(ROWS, noise=3.0), tmp_path / "ivf", "ivf", nlist=40)
    targets = (SearchTarget(8, recall=0.8), SearchTarget(8), SearchTarget(64), SearchTarget(64, recall=1.0))
    visits = [tune(index, target).nprobe for target in targets]
    assert visits == sorted(visits)
    assert visits[0] < visits[1] < visits[-1]


def test_more_lists_than_there_are_is_an_error(corpus, tmp_path):
    index = build(corpus, tmp_path / "ivf", "ivf", nlist=20)
    with pytest.raises(UserError, match=r"index\.nprobe is 21 .* 20 or less"):
        tune(index, SearchTarget(nprobe=21))


@pytest.mark.parametrize("kind", ["flat", "ivf"])
@pytest.mark.parametrize("splits", [2, 8])
def test_splits_find_what_the_whole_finds(big, tmp_path, kind, splits):
    """All splits opened at once, and each on its own with its results merged: the same to the last bit."""
    budget = len(big) * row_bytes(32) / (splits - 0.5) / 1e9
    whole = build(big, tmp_path / "whole", kind, nlist=40)
    split = build(big, tmp_path / "split", kind, nlist=40, memory_gb=budget, unit_rows=970)
    assert (len(whole.splits), len(split.splits)) == (1, splits)
    assert whole.nprobe == split.nprobe < 40
    anchors, keys = queries(big, np.arange(0, len(big), 9))
    expected = search(whole, anchors, 8, keys)
    parts = [replace(open_index(split.folder, splits=[n]), nprobe=split.nprobe) for n in range(splits)]
    visits = lists_to_visit(parts[0], anchors) if kind == "ivf" else None
    one_by_one = [search(part, anchors, 8, keys) for part in parts]
    with_visits = [search(replace(part, nprobe=1), anchors, 8, keys, visits=visits) for part in parts]
    so_far = None
    for part in parts:
        so_far = search(part, anchors, 8, keys, visits=visits, before=so_far)
    for found in (search(split, anchors, 8, keys), merge(one_by_one, 8), merge(with_visits, 8), so_far):
        for one, other in zip(found, expected, strict=True):
            assert np.array_equal(one, other)


def test_a_result_does_not_depend_on_the_batch(corpus, flat):
    anchors, keys = queries(corpus, np.arange(200))
    whole = search(flat, anchors, 8, keys)
    parts = [search(flat, anchors[i : i + 3], 8, keys[i : i + 3]) for i in range(0, 200, 3)]
    for number in (0, 1):
        assert whole[number].tobytes() == np.concatenate([part[number] for part in parts]).tobytes()


@pytest.mark.parametrize("kind", ["flat", "ivf"])
def test_equal_images_come_in_the_order_of_their_rows(corpus, tmp_path, kind):
    """100 copies of one image, scattered: the L first of them, whatever else ties."""
    copies = np.sort(np.random.default_rng(0).permutation(ROWS)[:100])
    vectors = corpus.vectors.copy()
    vectors[copies] = vectors[copies[0]]
    same = Corpus(**{**vars(corpus), "vectors": vectors})
    index = build(same, tmp_path / kind, kind, nlist=10)
    anchors = vectors[copies[40:42]].astype(np.float32)
    found, _ = search(index, anchors, 8, corpus.keys.take(pa.array(copies[40:42])))
    assert found.tolist() == [copies[:8].tolist()] * 2
    found, _ = search(index, vectors[copies[3:4]].astype(np.float32), 8, corpus.keys[int(copies[3]) :][:1])
    assert found.tolist() == [np.delete(copies, 3)[:8].tolist()]


def test_more_neighbours_than_images_are_missing(tmp_path):
    small = make_corpus(5, d=8, concepts=6)
    index = build(small, tmp_path / "small", queries=5)
    rows, similarities = search(index, small.vectors.astype(np.float32), 8, small.keys)
    assert ((rows >= 0).sum(axis=1) == 4).all()
    assert (rows[:, 4:] == -1).all()
    assert (similarities[:, 4:] == 0).all()


def test_exact_search_is_that_of_the_flat_index(corpus, flat):
    anchors, keys = queries(corpus, np.arange(100))
    assert np.array_equal(exact_search(flat, anchors, 8, keys)[0], search(flat, anchors, 8, keys)[0])


def test_queries_of_another_dimension_are_refused(flat):
    with pytest.raises(UserError, match="same CLIP model"):
        search(flat, np.zeros((2, 16), np.float32), 3)


def test_gpu_without_one_is_refused_and_auto_says_why_it_uses_the_cpu(flat):
    if hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus():
        pytest.skip("there is a GPU here")
    with pytest.raises(UserError, match=r"archives\.device=cpu or auto"):
        place_on_device(flat, "gpu")
    assert place_on_device(flat, "auto").startswith("search on the CPU: ")
    assert flat.device == "cpu"


@pytest.mark.skipif(
    not (hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus()), reason="no GPU or no faiss-gpu"
)
@pytest.mark.parametrize("kind", ["flat", "ivf"])
def test_the_gpu_finds_the_true_neighbours(corpus, tmp_path, kind):
    index = build(corpus, tmp_path / kind, kind, nlist=16)
    assert place_on_device(index, "gpu") == "exact search on the GPU"
    rows = np.arange(0, ROWS, 7)
    anchors, keys = queries(corpus, rows)
    assert np.array_equal(search(index, anchors, 8, keys)[0], brute_force(corpus, rows, 8))


# --- the folder -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["flat", "ivf"])
def test_the_index_does_not_depend_on_the_units(corpus, tmp_path, kind):
    one = build(corpus, tmp_path / "one", kind, unit_rows=ROWS, nlist=8)
    many = build(corpus, tmp_path / "many", kind, unit_rows=97, nlist=8)
    assert one.metadata == many.metadata  # checksums of all files among it


@pytest.mark.parametrize("kind", ["flat", "ivf"])
@pytest.mark.parametrize("neighbours", [1, 8, 300])
def test_segments_find_what_one_finds(big, tmp_path, monkeypatch, kind, neighbours):
    """The same lists in 21 segments, whole or in three splits: every bit of the result."""
    one = build(big, tmp_path / "one", kind, nlist=40, nprobe=5)
    monkeypatch.setattr(build_module, "_SEGMENT_ROWS", 480)
    many = build(big, tmp_path / "many", kind, unit_rows=97, nlist=40, nprobe=5)
    budget = len(big) * row_bytes(32) / 2.5 / 1e9
    split = build(big, tmp_path / "split", kind, unit_rows=97, nlist=40, nprobe=5, memory_gb=budget)
    assert (len(many.splits[0].lists.segments), len(split.splits)) == (21, 3)
    anchors, keys = queries(big, np.arange(0, len(big), 13))
    expected = search(one, anchors, neighbours, keys)
    for index in (many, split):
        assert tune(index, SearchTarget(8, nprobe=5)) == tune(one, SearchTarget(8, nprobe=5))
        for found, wanted in zip(search(index, anchors, neighbours, keys), expected, strict=True):
            assert np.array_equal(found, wanted)
    rows, vector = np.arange(0, len(big), 7), anchors[0]
    assert np.array_equal(many.products_with(rows, vector), one.products_with(rows, vector))


def test_side_arrays_are_those_of_the_corpus(corpus, flat):
    assert flat.keys.to_pylist() == corpus.keys.to_pylist()
    assert flat.captions.to_lists() == corpus.captions.to_lists()
    assert flat.concepts.to_pylist() == corpus.concepts.to_pylist()
    assert np.array_equal(flat.concept_embeddings, corpus.concept_embeddings)
    assert np.array_equal(flat.splits[0].lists.segments[0].vectors, corpus.vectors)
    assert np.array_equal(flat.splits[0].lists.segments[0].rows, np.arange(ROWS))
    images = corpus.vectors[corpus.captions.row_ids()].astype(np.float64)
    expected = (images * corpus.concept_embeddings[corpus.captions.values]).sum(axis=1)
    assert np.allclose(flat.cosines, expected, atol=1e-6)
    statistics = (corpus.cosine_mean, corpus.cosine_std)
    assert np.array_equal(flat.separation, separations(flat.captions.values, flat.cosines, *statistics))


def test_files_are_mapped_not_read(flat_folder):
    before = pa.total_allocated_bytes()
    flat = open_index(flat_folder)
    assert isinstance(flat.splits[0].lists.segments[0].vectors, np.memmap)
    assert isinstance(flat.cosines, np.memmap)
    assert pa.total_allocated_bytes() - before < flat.metadata["files"]["keys.arrow"]["bytes"]


def test_every_file_is_described_and_passes_the_full_check(flat_folder, flat):
    names = {str(path.relative_to(flat_folder)) for path in flat_folder.rglob("*") if path.is_file()}
    assert names == {*flat.metadata["files"], "index.json"}
    assert flat.metadata["rows"] == ROWS
    assert open_index(flat_folder, check="full").rows == ROWS


@pytest.mark.parametrize(
    "name", ["rows-00000.npy", "vectors-00000.npy", "keys.arrow", "concepts.arrow", "offsets.npy"]
)
def test_a_truncated_file_is_refused(copy, name):
    data = (copy / name).read_bytes()
    (copy / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match=f"{name}.*bytes"):
        open_index(copy)


def test_an_altered_file_fails_the_full_check(copy):
    data = bytearray((copy / "vectors-00000.npy").read_bytes())
    data[-10] ^= 1
    (copy / "vectors-00000.npy").write_bytes(data)
    with pytest.raises(UserError, match="checksum"):
        open_index(copy, check="full")


def test_a_missing_file_is_named(copy):
    (copy / "cosines.npy").unlink()
    with pytest.raises(UserError, match=r"cosines\.npy is missing"):
        open_index(copy)


def test_pickled_objects_are_not_loaded(copy):
    """An array of objects would run code on loading; index.json agrees with it and it is still refused."""
    np.save(copy / "cosines.npy", np.array([{"run": "me"}], dtype=object), allow_pickle=True)
    metadata = json.loads((copy / "index.json").read_text())
    metadata["files"]["cosines.npy"]["bytes"] = (copy / "cosines.npy").stat().st_size
    (copy / "index.json").write_text(json.dumps(metadata))
    with pytest.raises(UserError, match="not a plain array"):
        open_index(copy)


def rewritten(folder: Path, name: str, array: np.ndarray) -> None:
    """Another array under that name, and an index.json that agrees with it."""
    np.save(folder / name, array)
    metadata = json.loads((folder / "index.json").read_text())
    metadata["files"][name] = {"bytes": (folder / name).stat().st_size, "crc32": file_checksum(folder / name)}
    (folder / "index.json").write_text(json.dumps(metadata))


def test_vectors_of_another_dimension_are_refused(copy):
    rewritten(copy, "vectors-00000.npy", np.zeros((ROWS, 16), np.float16))
    with pytest.raises(UserError, match=r"vectors-00000\.npy holds float16 \(2000, 16\)"):
        open_index(copy)


@pytest.mark.parametrize(("first", "last"), [(0, 5), (1, ROWS), (0, ROWS + 1)])
def test_lists_that_do_not_end_with_the_vectors_are_refused(copy, first, last):
    offsets = np.load(copy / "list_offsets-00000.npy")
    offsets[0], offsets[-1] = first, last
    rewritten(copy, "list_offsets-00000.npy", offsets)
    with pytest.raises(UserError, match=r"list_offsets-00000\.npy and rows-00000\.npy .* do not fit"):
        open_index(copy)


def test_rows_out_of_range_fail_the_full_check(copy):
    rows = np.load(copy / "rows-00000.npy")
    rows[3] = ROWS
    rewritten(copy, "rows-00000.npy", rows)
    with pytest.raises(UserError, match=r"rows-00000\.npy .* do not fit"):
        open_index(copy, check="full")


def test_another_format_and_no_index_are_refused(copy, tmp_path):
    with pytest.raises(UserError, match="run build_index first"):
        open_index(tmp_path / "nothing")
    metadata = json.loads((copy / "index.json").read_text())
    (copy / "index.json").write_text(json.dumps({**metadata, "format": "cocu-index-9"}))
    with pytest.raises(UserError, match="cocu-index-9"):
        open_index(copy)
    for text, message in (
        ("[1, 2", r"index\.json: not valid JSON: .*; run build_index again"),
        ("[1, 2]", "is no description of index files; run build_index again"),
        (json.dumps({**metadata, "splits": 1})[:-1] + ', "splits": 2}', "the key 'splits' stands twice"),
        (
            json.dumps({k: v for k, v in metadata.items() if k != "split_lists"}),
            "lacks split_lists; run build_index",
        ),
    ):
        (copy / "index.json").write_text(text)
        with pytest.raises(UserError, match=message):
            open_index(copy)


def test_concept_ids_out_of_range_fail_the_full_check(copy, flat):
    ids = np.load(copy / "concept_ids.npy")
    ids[3] = 10_000
    rewritten(copy, "concept_ids.npy", ids)
    with pytest.raises(UserError, match="do not fit"):
        open_index(copy, check="full")


def test_an_interrupted_build_leaves_no_index(corpus, tmp_path):
    spec = choose_index(ROWS, 32)
    table = concept_table(corpus.concepts, corpus.concept_embeddings, corpus.cosine_mean, corpus.cosine_std)
    with (
        pytest.raises(KeyboardInterrupt),
        IndexWriter(tmp_path / "index", spec, train(corpus.vectors, spec), table),
    ):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


# --- keys -------------------------------------------------------------------------------------------


def test_key_hashes_do_not_depend_on_the_array_around_them():
    keys = pa.array(["", "a", "b", "ab", "ba", "cc3m/00000/000000012", "Zürich/鳥/1"])
    hashes = hash_keys(keys)
    assert len(set(hashes.tolist())) == len(keys)
    assert hash_keys(keys[3:]).tolist() == hashes[3:].tolist()
    assert hash_keys(keys.cast(pa.large_string())).tolist() == hashes.tolist()
    assert hash_keys(pa.chunked_array([keys[:2], keys[2:]])).tolist() == hashes.tolist()
    # Stored in index folders: these numbers must never change.
    assert hashes[1] == hash_keys(pa.array(["a"]))[0]
    assert hash_keys(pa.array([], pa.string())).tolist() == []


def test_key_hashes_of_many_similar_keys_are_distinct():
    keys = pa.array([f"cc3m/{row // 10_000:05d}/{row:09d}" for row in range(200_000)])
    assert len(np.unique(hash_keys(keys))) == 200_000


def test_equal_hashes_of_different_keys_exclude_nothing(corpus, flat, monkeypatch):
    """The string decides: with one hash for all keys the result is the same."""
    anchors, keys = queries(corpus, np.arange(30))
    expected = search(flat, anchors, 5, keys)
    monkeypatch.setattr(
        sys.modules["curation.index.search"], "hash_keys", lambda some: np.zeros(len(some), np.uint64)
    )
    clash = OpenIndex(**{**vars(flat), "key_hashes": np.zeros(ROWS, np.uint64)})
    found = search(clash, anchors, 5, keys)
    assert np.array_equal(found[0], expected[0])
