"""Photos of every kind come out upright, 8-bit, RGB; what cannot be read is said."""

import numpy as np
import pytest
from PIL import Image

from configs.errors import UserError
from evaluation.photos import find_pictures, read_picture

RAMP = np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3) * 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_are_undone(tmp_path, orientation):
    # What a camera stores for each orientation, from the upright picture.
    stored = {
        1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2), 6: lambda a: np.rot90(a), 7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation](RAMP)  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_picture(tmp_path / "a.png"), RAMP)


def test_grey_of_16_bits_is_scaled_and_not_cut_off(tmp_path):
    Image.fromarray(np.array([[0, 257, 32896, 65535]], np.uint16)).save(tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png").tolist() == [[[0] * 3, [1] * 3, [128] * 3, [255] * 3]]


def test_transparency_is_laid_on_white(tmp_path):
    Image.fromarray(np.array([[[0, 0, 0, 0], [10, 20, 30, 255]]], np.uint8)).save(tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png").tolist() == [[[255, 255, 255], [10, 20, 30]]]


@pytest.mark.parametrize("mode", ["L", "P", "1", "CMYK", "LA"])
def test_other_modes_become_rgb(tmp_path, mode):
    picture = Image.fromarray(RAMP).convert(mode)
    picture.save(tmp_path / "a.tiff")
    expected = picture.convert("RGB") if mode != "LA" else picture.convert("L").convert("RGB")
    assert np.array_equal(read_picture(tmp_path / "a.tiff"), np.asarray(expected))


def test_a_large_jpeg_is_decoded_small_and_still_twice_as_wide_as_wanted(tmp_path):
    Image.new("RGB", (1600, 1200), "red").save(tmp_path / "a.jpg")
    height, width = read_picture(tmp_path / "a.jpg", short_side=100).shape[:2]
    assert (height, width) == (300, 400)
    assert read_picture(tmp_path / "a.jpg").shape == (1200, 1600, 3)


def test_damaged_exif_loses_no_photo(tmp_path):
    damaged = b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01\x02\0\xff\xff\xff\xff"
    Image.new("RGB", (8, 6), "blue").save(tmp_path / "a.jpg", exif=damaged)
    assert read_picture(tmp_path / "a.jpg").shape == (6, 8, 3)


def _cut(folder):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (80, 80, 3), np.uint8)).save(folder / "whole.jpg")
    return (folder / "whole.jpg").read_bytes()[:1500]


@pytest.mark.parametrize("kind", ["cut", "html", "empty", "bomb"])
def test_what_cannot_be_read_is_named(tmp_path, kind):
    from demo.samples import _bomb

    content = {"cut": _cut(tmp_path), "html": b"<html>", "empty": b"", "bomb": _bomb()}[kind]
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(UserError, match="a.jpg"):
        read_picture(tmp_path / "a.jpg")


def test_the_limit_of_pixels_is_checked_on_the_header(tmp_path):
    Image.new("L", (30, 20)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match="30 x 20 pixels are more than 599"):
        read_picture(tmp_path / "a.png", max_pixels=599)
    assert read_picture(tmp_path / "a.png", max_pixels=600).shape == (20, 30, 3)


def test_files_folders_and_patterns_are_found_once(tmp_path):
    (tmp_path / "deep").mkdir()
    for name in ("b.JPG", "a.png", "deep/c.webp", "note.txt"):
        (tmp_path / name).touch()
    found = find_pictures([str(tmp_path / "a.png"), str(tmp_path), f"{tmp_path}/**/*.webp"])
    assert [path.name for path in found] == ["a.png", "b.JPG", "c.webp"]
    for nothing in (f"{tmp_path}/*.gif", f"{tmp_path}/none.jpg"):
        with pytest.raises(UserError, match="no such file"):
            find_pictures([nothing])
