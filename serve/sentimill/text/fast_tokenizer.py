"""A faster tokenizer, `tokie`, for texts on which it gives the same ids as `tokenizers`.

tokie is about 8 times as fast on a review, but it reads some texts differently from `tokenizers`,
which is the reference. Of the 1,112,064 code points of Unicode, the two differ on 762 assigned ones
(marks and punctuation of rare scripts, some ideographs) and on most unassigned ones. So tokie gets
only texts that consist of proven code points: each of these was compared alone, in every pair, and
in many places. `tokenizers` reads all other texts. The statements about tokie in this file are
observations of version 0.1.4, and tests/serve/text/test_fast_tokenizer.py checks them.
"""

from __future__ import annotations

import logging
import re
import tempfile
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from sentimill.installed_packages import package_version

if TYPE_CHECKING:
    import tokie


log = logging.getLogger(__name__)

VERSION: Final = "0.1.4"
"""The version of tokie that was compared with `tokenizers`. No other version is used."""

PROVEN: Final = (
    *((0x20, 0x5A), (0x5C, 0x7E)),  # ASCII without "[", with which every special token begins
    *((0xA1, 0xAC), (0xAE, 0x24F)),  # Latin, without the soft hyphen
    *((0x200D, 0x200D), (0xFE0F, 0xFE0F)),  # the joiner and the colour selector of emoji
    *((0x2010, 0x2027), (0x2030, 0x205E), (0x20A0, 0x20C0)),  # dashes, quotes, money
    *((0x2100, 0x218B), (0x2190, 0x2426), (0x2440, 0x244A)),  # signs, arrows, operators
    *((0x2460, 0x2B73), (0x2B76, 0x2B95), (0x2B97, 0x2BFF)),  # shapes, symbols
    *((0x1F1E6, 0x1F1FF), (0x1F300, 0x1F6D7), (0x1F6F0, 0x1F6FC)),  # flags, emoji
    *((0x1F7E0, 0x1F7EB), (0x1F900, 0x1FA53), (0x1FA70, 0x1FA74)),
    *((0x1FA78, 0x1FA7C), (0x1FA80, 0x1FA86), (0x1FA90, 0x1FAAC)),
    *((0x1FAB0, 0x1FABA), (0x1FAC0, 0x1FAC5), (0x1FAD0, 0x1FAD9)),
    *((0x1FAE0, 0x1FAE7), (0x1FAF0, 0x1FAF6)),
)
"""First and last of each range of code points that both tokenizers read alike in any context.

Unicode normalization can move a combining mark past its neighbours, so the ranges contain no
combining mark except U+FE0F, which never moves. All others are normalized one by one.
"""

_UNPROVEN: Final = re.compile(
    "[^" + "".join(rf"\U{first:08x}-\U{last:08x}" for first, last in PROVEN) + "]"
)

_MOST_BYTES: Final = 20_000
"""The longest text for tokie, in bytes of UTF-8. It is more than 512 tokens need.

tokie splits a much longer text among threads of its own; it did not yet split one of 30,000 bytes.
"""

# What `Tokenizer.to_str` writes for the uncased tokenizer of BERT. No other kind was compared.
_KIND: Final = {
    "normalizer": {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": True,
        "strip_accents": None,
        "lowercase": True,
    },
    "pre_tokenizer": {"type": "BertPreTokenizer"},
    "truncation": None,
    "padding": None,
}
_MODEL: Final = {
    "type": "WordPiece",
    "unk_token": "[UNK]",
    "continuing_subword_prefix": "##",
    "max_input_chars_per_word": 100,
}
_REPLAYED: Final = 64  # words in one text

MANY: Final = 64
"""From this many texts on, encoding them together pays; fewer would wait for threads."""


def is_proven(text: str) -> bool:
    """Tell whether tokie reads *text* as `tokenizers` does."""
    if text.isascii():  # the common case and the quicker test: printable is U+0020 to U+007E
        return text.isprintable() and "[" not in text and len(text) <= _MOST_BYTES
    return not _UNPROVEN.search(text) and len(text.encode()) <= _MOST_BYTES


class FastTokenizer:
    """Word pieces by tokie. Threads may share an object; tokie releases the GIL while it works."""

    def __init__(self, tokenizer: tokie.Tokenizer) -> None:
        self._tokenizer = tokenizer

    def ids(self, texts: list[str]) -> list[NDArray[np.int64]]:
        """Return the ids of each of *texts*, with special tokens; all texts have to be proven.

        `MANY` texts or more are shared among all cores.
        """
        if len(texts) < MANY:
            return [self._flat([text])[0].astype(np.int64) for text in texts]
        flat, lengths = self._flat(texts)
        ids, ends = flat.astype(np.int64), np.cumsum(lengths).tolist()
        return [ids[begin:end] for begin, end in pairwise([0, *ends])]

    def _flat(self, texts: list[str]) -> tuple[NDArray[np.uint32], NDArray[np.uint64]]:
        """Return the ids of all texts one after another, and how many each text has."""
        found: tuple[NDArray[np.uint32], NDArray[np.uint64]]
        found = self._tokenizer.encode_batch_flat(texts, True)  # type: ignore[attr-defined]  # its stub lacks it
        return found


@lru_cache(maxsize=2)  # the model that answers, and its successor during a reload
def fast_tokenizer(tokenizer_json: str) -> FastTokenizer | None:
    """Return the fast tokenizer for the output of `Tokenizer.to_str`, or None.

    It is None if tokie is not installed in the version that was compared, and for a tokenizer of
    another kind. It is also None, with a warning, if tokie fails or reads this vocabulary
    differently.
    """
    if package_version("tokie") != VERSION or not _is_proven_kind(tokenizer_json):
        return None
    reference = Tokenizer.from_str(tokenizer_json)
    try:
        read = read_tokie(tokenizer_json)
    except (ImportError, OSError, ValueError) as error:
        log.warning("tokie cannot be used, so tokenizers reads all texts: %s", error)
        return None
    fast = FastTokenizer(read)
    if not _agree(fast, read, reference):
        log.warning("tokie reads this vocabulary differently, so tokenizers reads all texts")
        return None
    log.debug("tokie %s reads texts of proven characters", VERSION)
    return fast


def read_tokie(tokenizer_json: str) -> tokie.Tokenizer:
    """Return tokie's own tokenizer, without the check for proven characters.

    Raises ImportError without tokie, OSError when no temporary file can be written, ValueError when
    tokie cannot read the tokenizer.
    """
    import tokie

    with tempfile.TemporaryDirectory() as folder:  # tokie reads only files
        path = Path(folder) / "tokenizer.json"
        path.write_text(tokenizer_json, encoding="utf-8")
        try:
            return tokie.Tokenizer.from_json(str(path))
        except tokie.TokieError as error:
            raise ValueError(str(error)) from error


def _is_proven_kind(tokenizer_json: str) -> bool:
    """Tell whether tokie can give the same ids as this tokenizer for texts of proven characters."""
    spec = msgspec.json.decode(tokenizer_json)
    model: dict[str, object] = spec["model"]
    vocabulary = model.pop("vocab", None)
    if model != _MODEL or not isinstance(vocabulary, dict):
        return False
    if any(spec[part] != wanted for part, wanted in _KIND.items()):
        return False
    added = spec["added_tokens"]
    if any("[" not in token["content"] or token["normalized"] for token in added):
        return False
    # Where no piece fits the rest of a word, tokie leaves out the rest and gives no [UNK]. This
    # cannot happen if each character that begins a continuation piece is also a piece by itself.
    rests = {piece[2:] for piece in vocabulary if piece.startswith("##")}
    return "" not in rests | vocabulary.keys() and {rest[0] for rest in rests} <= rests


def _agree(fast: FastTokenizer, read: tokie.Tokenizer, reference: Tokenizer) -> bool:
    """Compare both on every word piece and every proven character, in a tenth of a second."""
    vocabulary = reference.get_vocab(with_added_tokens=True)
    if read.get_vocab() != vocabulary:
        return False
    words = [f"a{piece[2:]}" if piece.startswith("##") else piece for piece in vocabulary]
    for first, last in PROVEN:
        for char in map(chr, range(first, last + 1)):
            words += [char, f"a{char}b"]
    words = [word for word in words if is_proven(word)]
    texts = [" ".join(words[i : i + _REPLAYED]) for i in range(0, len(words), _REPLAYED)]
    expected = reference.encode_batch_fast(texts)
    return all(ids.tolist() == one.ids for ids, one in zip(fast.ids(texts), expected, strict=True))
