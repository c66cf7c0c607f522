"""The index of the retrieval corpus: everything a job needs of it.

Building (autofaiss' order): ``choose_index`` decides, ``train`` makes the empty index from a sample,
``fill_part`` and ``caption_cosines`` run for each unit in parallel, an ``IndexWriter`` joins the units and
measures. Searching: ``open_index``, ``place_on_device``, ``search``.
"""

from curation.index.build import IndexWriter, caption_cosines, concept_table
from curation.index.faiss_files import fill_part, train
from curation.index.folder import FORMAT, OpenIndex, open_index
from curation.index.search import SearchQuality, exact_search, place_on_device, search
from curation.index.spec import IndexSpec, choose_index, split_rows

__all__ = [
    "FORMAT",
    "IndexSpec",
    "IndexWriter",
    "OpenIndex",
    "SearchQuality",
    "caption_cosines",
    "choose_index",
    "concept_table",
    "exact_search",
    "fill_part",
    "open_index",
    "place_on_device",
    "search",
    "split_rows",
    "train",
]
