"""Concept archives: expansion, ranking and clusters of a batch of image-caption pairs (paper, section 3.2)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from configs.schema import ArchivesConfig
from curation.calibrated import Weights
from curation.clusters import cluster_archives, own_clusters
from curation.csr import Csr
from curation.index.distinct import distinct
from curation.index.folder import OpenIndex
from curation.index.search import Neighbours, search
from curation.probe import Probe
from curation.ranking import Ranked, rank

__all__ = ["ARCHIVE_SCHEMA", "archives_of_neighbours", "build_archives", "neighbours_of"]

_NEIGHBOURS_KEPT, _VOTERS_KEPT = 32, 3  # in the table: with L = 128 all of them would be most of it
_DEEPEST = 16  # times L neighbours in which L distinct ones are looked for, where twice L do not hold them

ARCHIVE_SCHEMA = pa.schema(
    {
        "key": pa.string(),
        "concept_ids": pa.list_(pa.int32()),
        "concepts": pa.list_(pa.string()),
        "scores": pa.list_(pa.float32()),
        "clusters": pa.list_(pa.int16()),
        "in_caption": pa.list_(pa.bool_()),
        "votes": pa.list_(pa.int16()),
        "named_by": pa.list_(pa.list_(pa.int16())),
        "probe": pa.list_(pa.float32()),
        "neighbours": pa.list_(pa.string()),
        "similarities": pa.list_(pa.float32()),
    }
)


def build_archives(
    keys: pa.Array | pa.ChunkedArray,
    embeddings: np.ndarray,
    index: OpenIndex,
    options: ArchivesConfig,
    caption_ids: Csr | None = None,
    threads: int | None = None,
    probe: Probe | None = None,
    found: Neighbours | None = None,
) -> pa.RecordBatch:
    """The rows of table ``archives`` for some pairs, in their order.

    The archive is all candidates, ranked, cut to the best ``options.top``. Concepts that the pair's own caption
    names stay in it, as in the paper; ``in_caption`` marks them. Why a concept is there: ``votes`` of the
    neighbours name it, the nearest being ``named_by`` (places, from 0; at most 3), and ``probe`` is the chance that
    the probe gives it. Of the neighbours the nearest 32 are listed.

    Args:
        keys: (n,) strings.
        embeddings: (n, d) float32 or float16, rows L2-normalised, from the CLIP model of the index.
        index: from ``open_index`` (and ``place_on_device``).
        options: neighbours, top, ranking and so on; ``batch_size`` pairs are ranked at a time.
        caption_ids: concept ids of the pairs' own captions; None: nothing is marked.
        threads: OpenMP threads of FAISS.
        probe: what ``calibrated`` needs.
        found: from ``neighbours_of``, if they were searched for before; where copies count once, all splits of
            the index must be open then.

    Raises:
        UserError: a wrong option, or embeddings of another dimension than the index.
    """
    names = _one_array(keys)
    found = found or neighbours_of(names, embeddings, index, options, threads)
    if options.duplicate_similarity is not None:
        found = _without_copies(found, names, embeddings, index, options, threads)
    rows, similarities = found
    batches = [
        archives_of_neighbours(
            names[part],
            np.ascontiguousarray(embeddings[part], dtype=np.float32),
            rows[part],
            similarities[part],
            index,
            options,
            _rows_of(caption_ids, part),
            probe,
        )
        for part in _slices(len(names), max(1, options.batch_size))
    ]
    table = pa.Table.from_batches(batches, ARCHIVE_SCHEMA).combine_chunks()
    return table.to_batches()[0] if table.num_rows else pa.RecordBatch.from_pylist([], ARCHIVE_SCHEMA)


def archives_of_neighbours(
    keys: pa.Array,
    anchors: np.ndarray,
    rows: np.ndarray,
    similarities: np.ndarray,
    index: OpenIndex,
    options: ArchivesConfig,
    caption_ids: Csr | None = None,
    probe: Probe | None = None,
) -> pa.RecordBatch:
    """The same when the neighbours are known: rows int64 (B, L), -1 missing, similarities float32 (B, L)."""
    ranked = rank(
        index,
        anchors,
        rows,
        similarities,
        options.ranking,
        probe,
        Weights(options.probe_weight, options.z_weight, options.vote_temperature, options.cosine_weight),
        options.proposals,
    ).top(options.top)
    return _to_batch(keys, ranked, rows, similarities, index, options, caption_ids)


def neighbours_of(
    keys: pa.Array | pa.ChunkedArray,
    embeddings: np.ndarray,
    index: OpenIndex,
    options: ArchivesConfig,
    threads: int | None = None,
    depth: int = 0,
    visits: np.ndarray | None = None,
    before: Neighbours | None = None,
) -> Neighbours:
    """Rows and similarities of the pairs' neighbours in the index, or in the splits of it that are open.

    Args:
        depth: how many; 0: ``options.searched``, of which copies are not taken out yet.
        visits: the lists that each pair visits, where they are known already (``curation.index.lists_to_visit``).
        before: their neighbours in other splits, which are in the result where they are nearer.
    """
    own_is_neighbour = options.include_anchor or options.ranking == "compat"
    excluded = None if own_is_neighbour else _one_array(keys)
    return search(index, embeddings, depth or options.searched, excluded, threads, visits, before)


def _without_copies(
    found: Neighbours,
    keys: pa.Array,
    embeddings: np.ndarray,
    index: OpenIndex,
    options: ArchivesConfig,
    threads: int | None,
) -> Neighbours:
    """The L nearest of which none is another's copy; who has too many copies near is searched for once more, deeper.

    What is kept of the first neighbours is what would be kept of more, so that the result is that of the deep search
    for everyone.
    """
    wanted, similarity = options.retrieved, options.duplicate_similarity
    assert similarity is not None
    rows, similarities = distinct(index, found, similarity, wanted)
    short = np.flatnonzero((rows[:, -1] < 0) & (found[0][:, -1] >= 0))
    for part in _slices(len(short), max(1, options.batch_size)):
        some = short[part]
        deeper = neighbours_of(
            keys.take(pa.array(some)), embeddings[some], index, options, threads, _DEEPEST * wanted
        )
        rows[some], similarities[some] = distinct(index, deeper, similarity, wanted)
    return rows, similarities


def _to_batch(
    keys: pa.Array,
    ranked: Ranked,
    rows: np.ndarray,
    similarities: np.ndarray,
    index: OpenIndex,
    options: ArchivesConfig,
    caption_ids: Csr | None,
) -> pa.RecordBatch:
    archive = ranked.concepts
    if options.clusters:
        clusters = cluster_archives(archive, index.concept_embeddings)
    else:
        clusters = own_clusters(archive)
    nearest = rows[:, :_NEIGHBOURS_KEPT]
    found = nearest >= 0
    neighbour_offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(found.sum(axis=1))])
    neighbour_keys = index.keys.take(pa.array(nearest[found])).cast(pa.string())
    columns = [
        keys.cast(pa.string()),
        archive.to_list_array(),
        _lists(archive.offsets, index.concepts.take(pa.array(archive.values))),
        _lists(archive.offsets, pa.array(ranked.scores)),
        _lists(archive.offsets, pa.array(clusters)),
        _lists(archive.offsets, pa.array(_in_caption(archive, caption_ids, len(index.concepts)))),
        _lists(archive.offsets, pa.array(ranked.votes.astype(np.int16))),
        _lists(archive.offsets, _named_by(ranked, rows.shape[1])),
        _lists(archive.offsets, pa.array(ranked.chances)),
        _lists(neighbour_offsets, neighbour_keys),
        _lists(neighbour_offsets, pa.array(similarities[:, :_NEIGHBOURS_KEPT][found])),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=ARCHIVE_SCHEMA)


def _in_caption(archive: Csr, caption_ids: Csr | None, vocabulary: int) -> np.ndarray:
    """bool, parallel to the archive's values: the pair's own caption names the concept."""
    if caption_ids is None:
        return np.zeros(len(archive.values), bool)
    own = caption_ids.row_ids() * vocabulary + caption_ids.values
    return np.isin(archive.row_ids() * vocabulary + archive.values, own)


def _named_by(ranked: Ranked, neighbours: int) -> pa.ListArray:
    """For every concept of the archives the places of its nearest voters among the image's neighbours."""
    voters = ranked.named_by(_VOTERS_KEPT)
    return _lists(voters.offsets, pa.array((voters.values % neighbours).astype(np.int16)))


def _lists(offsets: np.ndarray, values: pa.Array) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), values)


def _slices(count: int, size: int) -> Iterator[slice]:
    for start in range(0, count, size):
        yield slice(start, min(count, start + size))


def _rows_of(lists: Csr | None, part: slice) -> Csr | None:
    if lists is None:
        return None
    offsets = lists.offsets[part.start : part.stop + 1]
    return Csr(offsets - offsets[0], lists.values[offsets[0] : offsets[-1]])


def _one_array(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    if isinstance(column, pa.ChunkedArray):
        return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], pa.string())
    return column
