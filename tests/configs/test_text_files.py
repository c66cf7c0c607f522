"""Text that users give, however their editor saved it: the same lines, or one sentence."""

from __future__ import annotations

import pytest

from configs.errors import UserError
from configs.text_files import decode_text, line_break, read_lines

LINES = ["background", "Straßenbahn", "", "dog \u2028 cat", "a\x0cb"]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "bom"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["lf", "crlf", "cr"])
@pytest.mark.parametrize("tail", [0, 1, 3])
def test_the_same_lines_however_a_file_was_saved(tmp_path, mark, end, tail):
    (tmp_path / "list.txt").write_bytes(mark + (end.join(LINES) + end * tail).encode())
    assert read_lines(tmp_path / "list.txt") == LINES


def test_blank_lines_go_at_the_end_alone(tmp_path):
    (tmp_path / "list.txt").write_bytes(b"\na\n \nb\n \n\t\n\n")
    assert read_lines(tmp_path / "list.txt") == ["", "a", " ", "b"]
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbf")
    assert read_lines(tmp_path / "list.txt") == []


OTHERS = {
    "latin-1": ("a\ncafé\n".encode("latin-1"), r"words=x.txt, line 2: is not UTF-8 \(byte 0xe9\); save"),
    "latin-1, CR": ("a\r\rcafé".encode("latin-1"), "line 3: is not UTF-8"),
    "utf-16": ("a\nb\n".encode("utf-16"), "words=x.txt: is UTF-16 text; save it as UTF-8"),
    "utf-16, big end first": ("\ufeffa".encode("utf-16-be"), "is UTF-16 text"),
    "utf-32": ("a\nb\n".encode("utf-32"), "is UTF-32 text"),
    "utf-16 without a mark": ("a\nb\n".encode("utf-16-le"), "holds zero bytes"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_encoding_is_one_sentence(name):
    data, message = OTHERS[name]
    with pytest.raises(UserError, match=message) as caught:
        decode_text(data, "words=x.txt")
    assert "\n" not in str(caught.value)


def test_what_cannot_be_opened_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"^words=gone.txt: no such file$"):
        read_lines(tmp_path / "gone.txt", "words=gone.txt")
    with pytest.raises(UserError, match="is a folder; name a text file"):
        read_lines(tmp_path)
    (tmp_path / "link").symlink_to("link")
    with pytest.raises(UserError, match="link: cannot be read: Too many levels"):
        read_lines(tmp_path / "link")


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"a\nb\rc\n", b"\n"),
        (b"a\r\nb\r\n", b"\n"),
        (b"a\rb\r", b"\r"),
        (b"a\r", b"\r"),
        (b"a", b"\n"),
        (b"", b"\n"),
    ],
)
def test_line_breaks_of_large_files(head, expected):
    assert line_break(head) == expected
