from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest

from curation.csr import Csr, concatenate, ragged_slots


def _lists(seed: int, count: int = 40) -> list[list[int]]:
    source = random.Random(seed)
    return [[source.randrange(1000) for _ in range(source.choice([0, 0, 1, 3, 7]))] for _ in range(count)]


def test_lists_come_back():
    lists = _lists(0)
    ragged = Csr.from_lists(lists)
    assert ragged.to_lists() == lists
    assert len(ragged) == 40
    assert ragged.lengths.tolist() == [len(item) for item in lists]
    assert ragged.row_ids().tolist() == [row for row, item in enumerate(lists) for _ in item]


@pytest.mark.parametrize("seed", range(5))
def test_gather_takes_rows_in_any_order_and_number(seed):
    lists = _lists(seed)
    rows = np.random.default_rng(seed).integers(-1, 40, (7, 9))
    found = Csr.from_lists(lists).gather(rows)
    assert found.to_lists() == [lists[row] if row >= 0 else [] for row in rows.ravel()]
    assert found.offsets.dtype == np.int64


def test_gather_of_nothing():
    ragged = Csr.from_lists([[1], [2, 3]])
    assert ragged.gather(np.array([], np.int64)).to_lists() == []
    assert ragged.gather(np.array([-1, -1])).to_lists() == [[], []]
    assert len(ragged_slots(np.array([], np.int64), np.array([], np.int64))) == 0


def test_arrow_lists_come_back_whatever_their_layout():
    lists = _lists(1)
    array = Csr.from_lists(lists).to_list_array()
    assert array.type == pa.list_(pa.int32())
    assert array.to_pylist() == lists
    for column in (array, array.slice(5, 20), pa.chunked_array([array.slice(0, 3), array.slice(3)])):
        assert Csr.from_list_array(column).to_lists() == column.to_pylist()
    assert Csr.from_list_array(pa.chunked_array([], pa.list_(pa.int32()))).to_lists() == []


def test_null_lists_are_empty_also_in_a_slice():
    column = pa.array([[1, 2], None, [], [3], None, [4, 5]], pa.list_(pa.int64()))
    assert Csr.from_list_array(column).to_lists() == [[1, 2], [], [], [3], [], [4, 5]]
    assert Csr.from_list_array(column.slice(1, 3)).to_lists() == [[], [], [3]]


def test_a_null_list_with_values_under_it_is_empty():
    column = pa.Array.from_buffers(
        pa.list_(pa.int32()),
        2,
        [pa.py_buffer(b"\x02"), pa.py_buffer(np.array([0, 2, 3], np.int32))],
        children=[pa.array([7, 8, 9], pa.int32())],
    )
    assert column.to_pylist() == [None, [9]]
    assert Csr.from_list_array(column).to_lists() == [[], [9]]


def test_values_are_not_copied():
    ragged = Csr.from_lists(_lists(2))
    array = ragged.to_list_array()
    address = ragged.values.__array_interface__["data"][0]
    assert array.values.to_numpy().__array_interface__["data"][0] == address
    back = Csr.from_list_array(array)
    assert back.values.__array_interface__["data"][0] == address


def test_concatenation_keeps_lists_and_kind():
    parts = [_lists(3), [], _lists(4)]
    joined = concatenate([Csr.from_lists(part, np.float32) for part in parts])
    assert joined.to_lists() == [*parts[0], *parts[2]]
    assert joined.values.dtype == np.float32
    assert concatenate([]).to_lists() == []
