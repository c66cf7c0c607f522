"""FAISS's own inverted lists with the same centres and the same vectors in each: what ours are compared with."""

from __future__ import annotations

import faiss
import numpy as np

from curation.index import OpenIndex

__all__ = ["faiss_twin"]


def faiss_twin(index: OpenIndex) -> faiss.IndexIVFScalarQuantizer:
    """An ``IVF,SQfp16`` of an ``ivf`` index; FAISS's ids are the rows."""
    nlist = len(index.centroids)
    coarse = faiss.IndexFlatIP(index.d)
    coarse.add(np.ascontiguousarray(index.centroids))
    kind = faiss.ScalarQuantizer.QT_fp16
    twin = faiss.IndexIVFScalarQuantizer(coarse, index.d, nlist, kind, faiss.METRIC_INNER_PRODUCT, False)
    twin.is_trained = True
    for split in index.splits:
        for lists in split.lists.segments:
            for number in range(len(lists.offsets) - 1):
                begin, end = int(lists.offsets[number]), int(lists.offsets[number + 1])
                if begin < end:
                    rows = np.array(lists.rows[begin:end])
                    codes = np.array(lists.vectors[begin:end]).view(np.uint8)
                    pointers = faiss.swig_ptr(rows), faiss.swig_ptr(codes)
                    twin.invlists.add_entries(split.first_list + number, end - begin, *pointers)
    twin.ntotal = index.rows
    return twin
