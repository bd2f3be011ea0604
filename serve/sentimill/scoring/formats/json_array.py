"""Splits a JSON array into its elements, each as its bytes in the file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO, Final

from sentimill.errors import TableError

MAX_ROW_BYTES: Final = 24 << 20
"""The longest row of JSON: memory holds it about five times while it is read and answered."""

_CHUNK_BYTES: Final = 1 << 20
_MARK_AND_BLANKS: Final = b"\xef\xbb\xbf \t\r\n"
_LOOKAHEAD_BYTES: Final = 64 << 10
_STRUCTURE: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"|["{}\[\]]', re.DOTALL)
_SCALAR: Final = re.compile(rb"[^\s,\]]+(?=[\s,\]])")
_OPENING: Final = re.compile(rb"(?:\xef\xbb\xbf)?\s*\[\s*")
_COMMA: Final = re.compile(rb"\s*,\s*")
_LAST_COMMA: Final = re.compile(rb"\s*,\s*\]")
_CLOSING: Final = re.compile(rb"\s*\]\s*")


def elements(file: BinaryIO, name: str, *, begun: bool) -> Iterator[tuple[bytes, bytes]]:
    """Yield the bytes before each element, and the element; at the end, the bytes after the last.

    begun: the file is at the end of an element, and not at its own beginning. Raises TableError for
    a file that is not an array, and for one that ends too early.
    """
    data, at, count = b"", 0, 0
    while True:
        if len(data) - at < _LOOKAHEAD_BYTES:
            data, at = _more(file, data[at:]), 0
        separator = (_COMMA if begun else _OPENING).match(data, at)
        closing = _CLOSING.match(data, separator.end() if separator and not begun else at)
        if closing and (begun or separator):
            while rest := (data[closing.end() :].strip() or file.read(_CHUNK_BYTES)):
                if rest.strip():
                    why = f"{name} goes on after the end of its JSON array ({_shown(rest)})"
                    raise TableError(f"{why}: write one array", reason="NOT_A_JSON_ARRAY")
                data += rest
            yield data[at:], b""
            return
        end = _end_of_value(data, separator.end()) if separator else None
        if separator is None or end is None:
            if separator is None and data[at:].strip(_MARK_AND_BLANKS):
                raise _no_array(name, data[at:], count if begun else None)
            _check_comma(name, data, at, count)
            if len(data) - at > MAX_ROW_BYTES:
                why = f"{name} has an element of more than {MAX_ROW_BYTES >> 20} MiB"
                raise TableError(f"{why}: write one object per row", reason="RECORD_TOO_LARGE")
            before = len(data) - at
            data, at = _more(file, data[at:]), 0
            if len(data) == before:
                why = f"{name} ends in the middle of its JSON array: copy it again"
                raise TableError(why, reason="TRUNCATED")
            continue
        begin = separator.end()
        count += 1
        yield data[at:begin], data[begin:end]
        at, begun = end, True


def _more(file: BinaryIO, data: bytes) -> bytes:
    """Return *data* and more of the file, at least as much as there already is."""
    return data + file.read(max(_CHUNK_BYTES, len(data)))


def _end_of_value(data: bytes, begin: int) -> int | None:
    """Return where the value that begins at *begin* ends, None when *data* does not hold it."""
    if begin >= len(data):
        return None
    if data[begin : begin + 1] not in (b"{", b"[", b'"'):
        found = _SCALAR.match(data, begin)
        return found.end() if found else None
    depth = 0
    for token in _STRUCTURE.finditer(data, begin):
        text = token[0]
        if text == b'"':
            return None  # the string goes on after the data
        if text in (b"{", b"["):
            depth += 1
        elif text in (b"}", b"]"):
            depth -= 1
        if depth == 0:
            return token.end()
    return None


def _no_array(name: str, data: bytes, count: int | None) -> TableError:
    """Return the error of *data* that neither begins nor continues an array."""
    if count is not None:
        why = f"{name} has no comma after element {count} of its array ({_shown(data)}): repair it"
        return TableError(why, reason="NOT_A_JSON_ARRAY")
    why = f"{name} is not a JSON array, it begins with {_shown(data)}"
    if data.lstrip().startswith(b"{"):
        why += ": add --format jsonl if it has one object per line, or write the array of its rows"
    else:
        why += ": name its format with --format, such as csv"
    return TableError(why, reason="NOT_A_JSON_ARRAY")


def _check_comma(name: str, data: bytes, at: int, count: int) -> None:
    """Refuse a comma after the last element, which JavaScript allows and JSON does not."""
    if count and _LAST_COMMA.match(data, at):
        why = f"{name} has a comma after element {count}, the last of its array: delete it"
        raise TableError(why, reason="NOT_A_JSON_ARRAY")


def _shown(data: bytes) -> str:
    return repr(data[:20].decode("utf-8", "replace"))
