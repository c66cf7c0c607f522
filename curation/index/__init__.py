"""The index of the retrieval corpus: everything a job needs of it.

Building: ``choose_index`` decides, ``train`` makes the centres of the lists from a sample, ``lists_of`` and
``caption_cosines`` run for each unit in parallel, an ``IndexWriter`` puts the lists together and measures.
Searching: ``open_index``, ``place_on_device``, ``search``.
"""

from curation.index.array_files import write_array
from curation.index.build import IndexWriter, VectorFile, caption_cosines, concept_table, in_list_order
from curation.index.centroids import lists_of, train
from curation.index.folder import FORMAT, OpenIndex, open_index
from curation.index.gpu import place_on_device
from curation.index.search import exact_search, lists_to_visit, merge, search
from curation.index.spec import IndexSpec, choose_index
from curation.index.tuning import SearchQuality, SearchTarget, tune

__all__ = [
    "FORMAT",
    "IndexSpec",
    "IndexWriter",
    "OpenIndex",
    "SearchQuality",
    "SearchTarget",
    "VectorFile",
    "caption_cosines",
    "choose_index",
    "concept_table",
    "exact_search",
    "in_list_order",
    "lists_of",
    "lists_to_visit",
    "merge",
    "open_index",
    "place_on_device",
    "search",
    "train",
    "tune",
    "write_array",
]
