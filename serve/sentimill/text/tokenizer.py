"""Text to token ids: cleaning, limits, truncation, padding. Training and serving share this file.

What a model saw in training is what it must see when it serves, so nothing else in the project
touches a text before the tokenizer does.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from sentimill.errors import BundleError, TextError
from sentimill.text.fast_tokenizer import fast_tokenizer
from sentimill.types import MAX_TEXT_BYTES, check_size

__all__ = [
    "Encoded",
    "TextEncoder",
    "Truncation",
    "clean",
    "pad",
    "truncate",
]

Truncation = Literal["head", "head-tail"]
"""How a long review is cut: keep its beginning, or its beginning and its end."""

# Characters kept for each token of the budget on either side of a cut. English has about 4.5 a
# token, so 16 leaves the kept tokens as they were, and a megabyte costs no more to tokenise than a
# long review.
_CHARACTERS_PER_TOKEN: Final = 16

_TAG: Final = re.compile(r"<(?:br|p|/p)\s*/?>", re.IGNORECASE)
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\ufeff]")
_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")


def clean(text: str) -> str:
    """Return *text* without break tags, HTML entities and control characters, blanks collapsed.

    Raises:
        TextError: EMPTY_TEXT when nothing but blanks is left, TEXT_TOO_LARGE above
            `MAX_TEXT_BYTES`, INVALID_UNICODE for a lone surrogate (half of a character pair,
            which no UTF-8 text can hold).
    """
    # A character is at most 4 bytes, so only a text near the limit has to be encoded to be
    # measured.
    if len(text) * 4 > MAX_TEXT_BYTES:
        check_size(len(text.encode("utf-8", "surrogatepass")))
    if not text.isascii() and (found := _SURROGATE.search(text)):
        raise TextError(
            f"the text has a lone surrogate U+{ord(found[0]):04X} at character {found.start()}:"
            " decode it from its source again, or replace that character",
            reason="INVALID_UNICODE",
        )
    if "&" in text:
        # A numeric entity can spell a surrogate; html.unescape turns it into U+FFFD.
        text = html.unescape(text)
    if "<" in text:
        text = _TAG.sub(" ", text)
    # Printable text has neither control characters nor blanks other than the space.
    if text.isprintable() and "  " not in text:
        text = text.strip()
    else:
        text = " ".join(text.split())
        if not text.isprintable():
            text = " ".join(_CONTROL.sub(" ", text).split())
    if not text:
        raise TextError(
            "the text is empty: send at least one visible character", reason="EMPTY_TEXT"
        )
    return text


def truncate(ids: list[int], tokens: int, how: Truncation) -> list[int]:
    """Return *ids* cut to at most *tokens*.

    `head-tail` keeps the first quarter and the last three quarters of the budget. Sun et al., "How
    to Fine-Tune BERT for Text Classification?" (2019), section 5.3.1, found head and tail together
    (128 + 382) better than either alone on IMDB: a review tends to conclude at its end.
    """
    if len(ids) <= tokens:
        return ids
    if how == "head":
        return ids[:tokens]
    head = tokens // 4
    return ids[:head] + ids[len(ids) - (tokens - head) :]


@dataclass(frozen=True, slots=True)
class Encoded:
    """One text as the model reads it.

    ids: (tokens,) int64 with the special tokens in place. `truncated` says that the middle or the
    end was left out.
    """

    ids: NDArray[np.int64]
    truncated: bool


class TextEncoder:
    """A tokenizer with its limits. One object may be used by one thread at a time."""

    def __init__(self, tokenizer: Tokenizer, *, max_tokens: int, truncation: Truncation) -> None:
        if truncation not in get_args(Truncation):
            raise BundleError(
                f"unknown truncation {truncation!r}: use {' or '.join(get_args(Truncation))}",
                reason="BUNDLE_UNKNOWN_TRUNCATION",
            )
        tokenizer.no_truncation()
        tokenizer.no_padding()
        prefix, suffix = _special_tokens(tokenizer)
        if max_tokens <= len(prefix) + len(suffix):
            raise BundleError(
                f"max_tokens {max_tokens} leaves no room beside the special tokens: raise it",
                reason="BUNDLE_MAX_TOKENS_TOO_SMALL",
            )
        self.max_tokens = max_tokens
        self.truncation = truncation
        self._tokenizer = tokenizer
        self._fast = fast_tokenizer(tokenizer.to_str())
        self._prefix = prefix
        self._suffix = suffix

    @classmethod
    def from_file(cls, path: Path, *, max_tokens: int, truncation: Truncation) -> TextEncoder:
        """Read a `tokenizer.json`. Raises BundleError when it is not one."""
        return cls.from_bytes(path.read_bytes(), max_tokens=max_tokens, truncation=truncation)

    @classmethod
    def from_bytes(cls, data: bytes, *, max_tokens: int, truncation: Truncation) -> TextEncoder:
        """Read the contents of a `tokenizer.json`. Raises BundleError when they are not one."""
        try:
            tokenizer = Tokenizer.from_buffer(data)
        except Exception as error:
            raise BundleError(
                f"tokenizer.json cannot be read ({error}): export the bundle again",
                reason="BUNDLE_BAD_TOKENIZER",
            ) from error
        return cls(tokenizer, max_tokens=max_tokens, truncation=truncation)

    def encode(self, texts: Sequence[str]) -> list[Encoded | TextError]:
        """Return one `Encoded` a text, in order, or the TextError that `clean` raised for it."""
        results: list[Encoded | TextError | None] = [None] * len(texts)
        left: list[tuple[int, str, bool]] = []
        for i, text in enumerate(texts):
            try:
                body, cut = self._cap(clean(text))
            except TextError as error:
                results[i] = error
                continue
            ids = self._fast.ids(body) if self._fast else None
            if ids is None:
                left.append((i, body, cut))
            else:
                results[i] = self._encoded(ids, cut)
        if left:
            bodies = [body for _, body, _ in left]
            encodings = self._tokenizer.encode_batch_fast(bodies, add_special_tokens=False)
            for (i, _, cut), encoding in zip(left, encodings, strict=True):
                results[i] = self._encoded(encoding.ids, cut)
        return [result for result in results if result is not None]

    def _encoded(self, ids: list[int], cut: bool) -> Encoded:
        """Cut *ids* to the budget and put the special tokens around them."""
        budget = self.max_tokens - len(self._prefix) - len(self._suffix)
        kept = truncate(ids, budget, self.truncation)
        whole = np.array([*self._prefix, *kept, *self._suffix], dtype=np.int64)
        return Encoded(whole, cut or len(kept) < len(ids))

    def _cap(self, text: str) -> tuple[str, bool]:
        """Drop the middle of a very long text before it costs anything to tokenise."""
        side = self.max_tokens * _CHARACTERS_PER_TOKEN
        if len(text) <= 2 * side:
            return text, False
        return f"{text[:side]} {text[-side:]}", True


def _special_tokens(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """Return what the tokenizer puts before and after a single text: [CLS] and [SEP] for BERT."""
    bare = tokenizer.encode("a", add_special_tokens=False).ids
    full = tokenizer.encode("a").ids
    for start in range(len(full) - len(bare) + 1):
        if full[start : start + len(bare)] == bare:
            return full[:start], full[start + len(bare) :]
    raise BundleError(
        "tokenizer.json rewrites a text when it adds its special tokens: use one in the style of"
        " BERT or RoBERTa",
        reason="BUNDLE_BAD_TOKENIZER",
    )


def pad(
    rows: Sequence[NDArray[np.int64]], pad_id: int, *, tokens: int | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return ids and mask, both (rows, tokens) int64; the mask is 1 on tokens and 0 on padding.

    tokens: at least the longest row, which is what None means.
    """
    lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
    mask = np.arange(tokens or lengths.max()) < lengths[:, None]
    ids = np.full(mask.shape, pad_id, dtype=np.int64)
    ids[mask] = np.concatenate(rows)  # row by row, as the mask is read
    return ids, mask.astype(np.int64)
