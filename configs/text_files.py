"""The one way to read text that users give: class, split and word lists, vocabularies, tables, JSON lines.

UTF-8 with or without a byte-order mark, lines that end in LF, CRLF or CR. Anything else is one sentence.
"""

from __future__ import annotations

from pathlib import Path

from configs.errors import UserError

__all__ = ["BOM", "decode_text", "line_break", "read_lines", "read_text", "refuse_other_marks", "split_lines"]

BOM = b"\xef\xbb\xbf"
# The longer mark first: UTF-32's little-endian one begins like UTF-16's.
_OTHER_MARKS = (
    (b"\xff\xfe\0\0", "UTF-32"),
    (b"\0\0\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)


def read_lines(path: str | Path, where: str = "") -> list[str]:
    """The lines of a text file without their ends; blank ones after the last line with text are left out.

    Args:
        path: a local file.
        where: what the message calls it, e.g. ``concepts.vocabulary=words.txt``; empty: the path.

    Raises:
        UserError: no such file, a folder, not readable, not UTF-8.
    """
    return split_lines(read_text(path, where))


def read_text(path: str | Path, where: str = "") -> str:
    """A text file as a whole, every line end an LF; see :func:`read_lines`."""
    name = where or str(path)
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise UserError(f"{name}: no such file") from None
    except IsADirectoryError:
        raise UserError(f"{name}: is a folder; name a text file") from None
    except OSError as error:
        raise UserError(f"{name}: cannot be read: {error.strerror or error}") from None
    return decode_text(data, name)


def split_lines(text: str) -> list[str]:
    """Lines at LF alone: str.splitlines would also cut at U+2028, form feeds and others that text may hold."""
    lines = text.split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    return lines


def decode_text(data: bytes, where: str) -> str:
    """The text of some bytes, its mark gone and every line end an LF.

    Raises:
        UserError: another encoding; ``where`` begins the message.
    """
    refuse_other_marks(data, where)
    try:
        text = data.removeprefix(BOM).decode("utf-8")
    except UnicodeDecodeError as error:
        before = data.removeprefix(BOM)[: error.start]
        number = len(before.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n"))
        byte = data.removeprefix(BOM)[error.start]
        raise UserError(
            f"{where}, line {number}: is not UTF-8 (byte 0x{byte:02x}); save the file as UTF-8"
        ) from None
    if "\0" in text:
        raise UserError(f"{where}: holds zero bytes, so it is UTF-16 or no text; save it as UTF-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def refuse_other_marks(head: bytes, where: str) -> None:
    """A file that begins with the mark of another encoding than UTF-8.

    Raises:
        UserError: it does.
    """
    for mark, name in _OTHER_MARKS:
        if head.startswith(mark):
            raise UserError(f"{where}: is {name} text; save it as UTF-8")


def line_break(head: bytes) -> bytes:
    """What ends the lines of a file that begins like this: CR where no LF is seen, else LF (and CRLF).

    For readers of files too large to be held: there a CR inside of an LF file's line is a character.
    """
    return b"\r" if b"\r" in head and b"\n" not in head else b"\n"
