from __future__ import annotations

import io
import itertools
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator

import numpy as np
import psutil
import pyarrow as pa
import pytest
import torch
from PIL import Image

from configs.errors import UserError
from models.pixels import MEAN, STD
from tests.training.rows import jpeg, make_batches, picture, rows, split
from tests.training.stuck import StuckOptions
from training.feed.augment import AugmentOptions
from training.feed.batches import BatchMaker, BatchOptions
from training.feed.decode import MAX_PIXELS, DecodePool, Undecodable, open_rgb

ROWS = 61


@pytest.fixture(scope="module")
def table() -> pa.Table:
    return rows(ROWS)


def options(workers: int, **more: object) -> BatchOptions:
    return BatchOptions(**{"image_size": 24, "workers": workers, "prefetch": 2, "seed": 9, **more})


def pixels_of(table: pa.Table, workers: int, size: int, epoch: int = 1) -> torch.Tensor:
    return torch.cat([b.images for b in make_batches(split(table, size), options(workers), epoch)])


def runs(pid: int) -> bool:
    """Also False for a dead process that nobody has asked about yet (an orphan, where init does not ask)."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until_gone(pids: list[int], seconds: float = 20) -> list[int]:
    end = time.monotonic() + seconds
    while (left := [pid for pid in pids if runs(pid)]) and time.monotonic() < end:
        time.sleep(0.05)
    return left


def huge_header(width: int, height: int) -> bytes:
    """A small JPEG that claims to be large."""
    data = bytearray(jpeg(picture(0)))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return bytes(data)


def png() -> bytes:
    buffer = io.BytesIO()
    picture(0).save(buffer, "PNG")
    return buffer.getvalue()


BROKEN = {
    "truncated": (jpeg(picture(3))[:-200], "truncated"),
    "empty": (b"", "no bytes"),
    "text": (b"<html>not found</html>", "not a JPEG"),
    "png": (png(), "not a JPEG"),
    "above our limit": (huge_header(9_000, 8_000), str(MAX_PIXELS)),
    "above Pillow's limit": (huge_header(65_000, 65_000), "pixels"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_images_are_refused_with_the_reason(case):
    data, reason = BROKEN[case]
    with pytest.raises(Undecodable, match=reason):
        open_rgb(data)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk_become_rgb(mode):
    original = picture(2)
    decoded = open_rgb(jpeg(original.convert(mode)))
    assert decoded.mode == "RGB"
    expected = np.asarray(original.convert(mode).convert("RGB"), dtype=int)
    assert np.abs(np.asarray(decoded, dtype=int) - expected).mean() < 4


def test_pixels_are_the_same_whatever_workers_and_batches(table):
    wanted = pixels_of(table, workers=0, size=ROWS)
    for workers, size in ((0, 7), (1, 16), (3, 30), (2, 61)):
        assert torch.equal(pixels_of(table, workers, size), wanted), (workers, size)
    assert not torch.equal(pixels_of(table, 0, ROWS, epoch=2), wanted)


def test_batches_come_in_the_order_of_their_tables(table):
    keys = [batch.keys for batch in make_batches(split(table, 5), options(3), 0)]
    assert keys == [part.column("key").to_pylist() for part in split(table, 5)]


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_image_stops_with_its_key(table, workers):
    images = table.column("image").to_pylist()
    images[17], images[40] = images[17][:300], b""
    with pytest.raises(UserError, match="made/017.*bad_images=replace"):
        list(make_batches(split(rows(ROWS, images), 61), options(workers), 0))


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_image_becomes_grey_and_changes_no_other(table, workers):
    images = table.column("image").to_pylist()
    images[17], images[40] = images[17][:300], None
    chosen = options(workers, bad_images="replace")
    batches = list(make_batches(split(rows(ROWS, images), 30), chosen, 1))
    assert [batch.bad for batch in batches] == [["made/017"], ["made/040"], []]
    found, wanted = torch.cat([batch.images for batch in batches]), pixels_of(table, 0, ROWS)
    assert (found[[17, 40]] == 128).all()
    kept = [row for row in range(ROWS) if row not in (17, 40)]
    assert torch.equal(found[kept], wanted[kept])


def test_batches_of_an_earlier_step_keep_their_pixels(table):
    """Shared memory is used again; what was handed out must not change under the step."""
    iterator = make_batches(itertools.chain.from_iterable(split(table, 20) for _ in range(4)), options(2), 1)
    first = next(iterator)
    copy = first.images.clone()
    list(iterator)
    assert torch.equal(first.images, copy)


def test_processes_serve_all_epochs_and_end_with_the_maker(table):
    with BatchMaker(options(2)) as maker:
        list(maker.batches(split(table, 20), 0))
        pids = maker.process_ids
        list(maker.batches(split(table, 20), 1))
        assert maker.process_ids == pids
        assert len(pids) == 2
        assert all(runs(pid) for pid in pids)
    assert not [pid for pid in pids if psutil.pid_exists(pid)]


def endless(table: pa.Table, log: list[str]) -> Iterator[pa.Table]:
    try:
        while True:
            log.append("table")
            yield table
    finally:
        log.append("closed")


def test_descriptors_are_given_back(table):
    list(make_batches([table], options(2), 0))
    before = psutil.Process().num_fds()
    for _ in range(3):
        iterator = make_batches(endless(table, []), options(2), 0)
        next(iterator)
        iterator.close()
    assert psutil.Process().num_fds() < before + 6  # three pools of two workers have twelve


class Unreadable:
    def __iter__(self) -> Iterator[pa.Table]:
        raise UserError("no such table")


def test_reader_that_cannot_begin_is_an_error_not_a_hang(table):
    with pytest.raises(UserError, match="no such table"):
        list(make_batches(Unreadable(), options(1), 0))


def test_early_close_without_workers_closes_the_reader_too(table):
    log: list[str] = []
    iterator = make_batches(endless(table, log), options(0), 0)
    next(iterator)
    iterator.close()
    assert log == ["table", "closed"]


def test_early_close_ends_processes_and_reader_at_once(table):
    log: list[str] = []
    maker = BatchMaker(options(2))
    iterator = maker.batches(endless(table, log), 0)
    next(iterator)
    pids = maker.process_ids
    started = time.monotonic()
    iterator.close()
    assert time.monotonic() - started < 5
    assert not [pid for pid in pids if psutil.pid_exists(pid)]
    assert log[-1] == "closed"
    assert len(log) - 1 <= 1 + 2 + 1  # the one taken, two ahead, one that was being begun
    assert len(list(maker.batches([table], 0))) == 1  # and it can be used again
    pids = maker.process_ids
    maker.close()
    assert not [pid for pid in pids if psutil.pid_exists(pid)]


def test_killed_worker_is_an_error_not_a_hang(table):
    with BatchMaker(options(2)) as maker:
        iterator = maker.batches(endless(table, []), 0)
        next(iterator)
        victim, other = maker.process_ids
        os.kill(victim, signal.SIGKILL)
        with pytest.raises(RuntimeError, match=rf"pid {victim}\) was ended by SIGKILL.*at work on made/"):
            list(itertools.islice(iterator, 1000))
    assert not wait_until_gone([victim, other])


def test_worker_that_hangs_is_ended_and_named():
    with DecodePool(StuckOptions("none", 24, 0, MEAN, STD), 1, seconds=1) as pool:
        out = np.zeros((8, 24, 24, 3), np.uint8)
        done = pool.submit(0, [f"made/{number}" for number in range(8)], [jpeg(picture(0))] * 8, out)
        with pytest.raises(
            RuntimeError, match="ended by SIGALRM: it took longer than 1 s over 8 images.*made/0"
        ):
            done.result(timeout=60)
        assert not wait_until_gone(pool.process_ids)


def test_killed_trainer_leaves_no_worker_behind(tmp_path):
    script = tmp_path / "trainer.py"
    script.write_text(
        textwrap.dedent("""
            import time
            from tests.training.rows import rows
            from training.feed.batches import BatchMaker, BatchOptions
            maker = BatchMaker(BatchOptions(image_size=24, workers=2))
            iterator = maker.batches([rows(8)] * 100, 0)
            next(iterator)
            print(*maker.process_ids, flush=True)
            time.sleep(600)
        """)
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, env=environment, text=True
    ) as trainer:
        pids = [int(pid) for pid in trainer.stdout.readline().split()]
        alive = [runs(pid) for pid in pids]
        trainer.kill()
    assert alive == [True, True]
    assert not wait_until_gone(pids)


def test_readers_error_comes_after_the_batches_before_it(table):
    def reader() -> Iterator[pa.Table]:
        yield table.slice(0, 10)
        yield table.slice(10, 10)
        raise UserError("part 3 of the training set is gone")

    iterator = make_batches(reader(), options(2), 0)
    assert len(next(iterator).keys) == 10
    assert len(next(iterator).keys) == 10
    with pytest.raises(UserError, match="part 3"):
        next(iterator)


def test_error_inside_a_worker_travels_with_its_trace():
    broken = AugmentOptions("no such kind", 24, 0, MEAN, STD)
    with DecodePool(broken, 1) as pool:
        out = np.zeros((1, 24, 24, 3), np.uint8)
        with pytest.raises(RuntimeError, match=r"(?s)in a worker process.*KeyError: 'no such kind'"):
            pool.submit(0, ["a"], [jpeg(picture(0))], out).result(timeout=60)
        with pytest.raises(RuntimeError, match="worker process"):  # what comes later fails as well
            pool.submit(0, ["b"], [jpeg(picture(1))], out).result(timeout=60)


@pytest.mark.parametrize("workers", [0, 2])
def test_random_state_of_the_training_process_is_untouched(table, workers):
    before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    list(make_batches(split(table, 20), options(workers), 0))
    assert random.getstate() == before[0]
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert torch.equal(torch.get_rng_state(), before[2])


def test_real_photos_decode_as_pillow_says(real_data):
    files = sorted((real_data / "coco-captions-masks" / "images").glob("*.jpg"))[:10]
    table = rows(len(files), [file.read_bytes() for file in files])
    (batch,) = make_batches([table], options(1, augment="none", image_size=64), 0)
    for file, found in zip(files, batch.images.numpy(), strict=True):
        with Image.open(file) as image:
            side = min(image.size)
            left, top = (image.width - side) // 2, (image.height - side) // 2
            square = image.convert("RGB").crop((left, top, left + side, top + side))
        np.testing.assert_array_equal(found, square.resize((64, 64), Image.Resampling.BICUBIC))
