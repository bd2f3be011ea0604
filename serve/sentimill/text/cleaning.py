"""Cleaning: what happens to a text before the tokenizer reads it.

A model must get the same input in service as in training, so both share this file, and no other
code changes a text. Cleaning has versions, and a bundle names its own: a bundle that was trained
before emoji had names keeps reading them as it did.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sentimill.errors import TextError
from sentimill.text.emoji_names import name_emoji
from sentimill.types import MAX_TEXT_BYTES, check_size

CLEANING_VERSIONS: Final = (1, 2)
"""1 removes break tags, entities, control characters and runs of blanks. 2 also names emoji."""

CLEANING: Final = CLEANING_VERSIONS[-1]
"""The version that new bundles are trained with."""

_TAG: Final = re.compile(r"<(?:br|p|/p)\s*/?>", re.IGNORECASE)
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\ufeff]")

# A code point has at most 7 digits. `html.unescape` makes an integer of all of them, which Python
# refuses above a limit of its own (640 digits at the least).
_LONG_REFERENCE: Final = re.compile(r"&#[0-9]{100,};?")

# A letter or a digit shows that a text is visible. These four are letters by Unicode's categories,
# but are drawn as blanks.
_BLANK_LETTERS: Final = "\u115f\u1160\u3164\uffa0"
_LETTER: Final = re.compile(rf"[^\W_{_BLANK_LETTERS}]")
_INVISIBLE_CATEGORIES: Final = frozenset({"Cc", "Cf", "Mn", "Mc", "Me", "Zs", "Zl", "Zp"})
_BLANKS: Final = frozenset(_BLANK_LETTERS + "\u2800")  # U+2800 is the Braille pattern without a dot

_PLACEHOLDERS: Final = frozenset(
    {
        *("-", "--", "---", "\u2010", "\u2011", "\u2012", "\u2013", "\u2014", "\u2212"),
        *("#name?", "#value!", "#ref!", "#div/0!", "#num!", "#null!", "#error!"),  # spreadsheets
        *("n/a", "na", "n.a", "#n/a", "nan", "nil", "none", "null"),
        *("no comment", "no comments", "not applicable"),
    }
)
"""Cells that stand for a missing text, in lower case and without a final dot."""

_LONGEST_PLACEHOLDER: Final = max(map(len, _PLACEHOLDERS)) + 1

LONGEST_PLAIN: Final = 20_000
"""The longest text that `find_plain` looks at, in characters: what `fast_tokenizer` reads."""

_ODD_PAIRS: Final = (
    (b"".join(map(bytes, [range(32), (127,)])) + b"&<>[_^\\", bytes(range(128))),
    (b":;=", b"'-()oODPp/\\|*"),
    (b" ", b" "),
    (b"xX", b"D"),
)
"""Pairs of ASCII characters that may begin something that cleaning changes, and those with `[`.

Each pair has its first character in the first set and its second one in the second set.
"""


def _table(side: int) -> bytes:
    """Return, for each byte, one bit for each set on this *side* of `_ODD_PAIRS` that has it."""
    sets = [pair[side] for pair in _ODD_PAIRS]
    return bytes(sum((byte in one) << k for k, one in enumerate(sets)) for byte in range(256))


_FIRST, _SECOND = _table(0), _table(1)


def clean(text: str, version: int = CLEANING) -> str:
    """Return *text* as the tokenizer reads it, by the rules of `CLEANING_VERSIONS`.

    Raises TextError as `tidy` does.
    """
    tidied = tidy(text)
    return tidied if version < 2 else name_emoji(tidied)


def find_plain(texts: Sequence[str]) -> NDArray[np.bool_]:
    """Tell which of *texts* stay as they are: `clean` neither changes nor refuses them.

    It looks at all of them together, which takes a seventh of the time of `clean`. A plain text has
    at most 20,000 characters, all of them printable ASCII and none of them `[`.
    """
    # Other texts are replaced by one that is too short to be plain.
    kept = [text if len(text) <= LONGEST_PLAIN and text.isascii() else "?" for text in texts]
    lengths = np.fromiter(map(len, kept), np.int64, len(kept))
    plain = lengths > _LONGEST_PLACEHOLDER
    # With a blank at both ends, so that a blank at an end of any text has another one next to it.
    data = f" {' '.join(kept)} ".encode()
    here, after = (np.frombuffer(data.translate(table), np.uint8) for table in (_FIRST, _SECOND))
    odd = np.flatnonzero((here[:-1] & after[1:]) != 0)
    ends = np.cumsum(lengths + 1)
    # A blank between two texts belongs to both.
    for side in ("left", "right"):
        plain[np.minimum(np.searchsorted(ends, odd, side), len(kept) - 1)] = False
    return plain


def tidy(text: str) -> str:
    """Return *text* without break tags, entities, control characters and runs of blanks.

    This is version 1 of cleaning, and the first step of all later ones.

    Raises:
        TextError: EMPTY_TEXT where no character is visible, or the whole text is a placeholder
            such as `N/A`. TEXT_TOO_LARGE above `MAX_TEXT_BYTES`. INVALID_UNICODE for a lone
            surrogate (half of a character pair, which no UTF-8 text can hold).
    """
    # A character is at most 4 bytes, so only a text near the limit has to be encoded to be
    # measured.
    if len(text) * 4 > MAX_TEXT_BYTES:
        check_size(len(text.encode("utf-8", "surrogatepass")))
    _check_unicode(text)
    if "&" in text:
        if "&#" in text:
            text = _LONG_REFERENCE.sub("\ufffd", text)
        # A numeric entity can spell a surrogate; html.unescape turns it into U+FFFD.
        text = html.unescape(text)
    if "<" in text:
        text = _TAG.sub(" ", text)
    # Printable text has neither control characters nor blanks other than the space.
    if text.isprintable():
        text = text.strip()
        if "  " in text:  # `replace` is several times as fast, but runs of blanks need it often
            text = " ".join(text.split()) if "   " in text else text.replace("  ", " ")
    else:
        text = " ".join(text.split())
        if not text.isprintable():
            text = " ".join(_CONTROL.sub(" ", text).split())
    if not text or not (text.isascii() or _is_visible(text)):
        raise TextError(
            "the text is empty: send at least one visible character", reason="EMPTY_TEXT"
        )
    if len(text) <= _LONGEST_PLACEHOLDER and text.lower().removesuffix(".") in _PLACEHOLDERS:
        why = f"the text is the placeholder {text!r}: leave such rows out"
        raise TextError(why, reason="EMPTY_TEXT")
    return text


def join_texts(parts: Iterable[object]) -> str | None:
    """Return the strings among *parts* as one text, such as a review's title and body.

    Parts that are blank or not strings are left out; None if nothing is left. A part that does
    not end with punctuation gets a full stop, so that a title stays a sentence of its own.
    """
    kept = [part.strip() for part in parts if isinstance(part, str) and part.strip()]
    if not kept:
        return None
    ended = [part if not part[-1].isalnum() else f"{part}." for part in kept[:-1]]
    return " ".join([*ended, kept[-1]])


def _check_unicode(text: str) -> None:
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TextError(
            f"the text has a lone surrogate U+{ord(text[error.start]):04X} at character"
            f" {error.start}: decode it from its source again, or replace that character",
            reason="INVALID_UNICODE",
        ) from None


def _is_visible(text: str) -> bool:
    """Tell whether any character of *text* is drawn by itself."""
    return _LETTER.search(text) is not None or any(
        unicodedata.category(char) not in _INVISIBLE_CATEGORIES and char not in _BLANKS
        for char in text
    )
