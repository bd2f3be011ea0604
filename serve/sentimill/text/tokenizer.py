"""Text to token ids: tokenizing, truncation and padding. Training and serving share this file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from sentimill.errors import BundleError, TextError
from sentimill.text.cleaning import CLEANING, CLEANING_VERSIONS, LONGEST_PLAIN, find_plain, tidy
from sentimill.text.emoji_names import name_emoji
from sentimill.text.fast_tokenizer import fast_tokenizer, is_proven
from sentimill.text.language import find_english, foreign_language

Truncation = Literal["head", "head-tail"]
"""How a long text is cut: keep its beginning, or its beginning and its end."""

# A very long text is cut before it is tokenized, and this many characters are kept on each side of
# the cut for each token of the budget. English has about 4.5 characters per token, so 16 does not
# change the tokens that are kept, and a megabyte costs no more than a long review.
_CHARACTERS_PER_TOKEN: Final = 16

_MANY: Final = 512
"""From this many texts on, checking them together is quicker than checking each."""

_MOST: Final = 4096
"""At most this many texts are checked and tokenized together, to limit the memory of copies."""


def truncate(ids: NDArray[np.int64], tokens: int, how: Truncation) -> NDArray[np.int64]:
    """Return *ids* cut to at most *tokens*.

    `head-tail` spends a quarter of the budget on the beginning and three quarters on the end. Sun
    et al., "How to Fine-Tune BERT for Text Classification?" (2019), section 5.3.1, found head and
    tail together (128 + 382) better than either alone on IMDB: reviews often conclude at the end.
    """
    if len(ids) <= tokens:
        return ids
    if how == "head":
        return ids[:tokens]
    head = tokens // 4
    return np.concatenate([ids[:head], ids[len(ids) - (tokens - head) :]])


class Encoded(NamedTuple):
    """One text as the model reads it.

    ids: (tokens,) int64, special tokens included. truncated: the middle or the end was left out.
    foreign: the text is in a language that the model was not made for.
    """

    ids: NDArray[np.int64]
    truncated: bool
    foreign: bool = False


class TextEncoder:
    """A tokenizer with its limits. Only one thread at a time may use an object."""

    def __init__(
        self,
        tokenizer_json: bytes,
        *,
        max_tokens: int,
        truncation: Truncation,
        cleaning: int = CLEANING,
        languages: Sequence[str] = (),
    ) -> None:
        """Read the contents of a `tokenizer.json`.

        cleaning: one of `CLEANING_VERSIONS`; see `sentimill.text.cleaning`. languages: a text in
        none of these is marked as foreign; an empty tuple marks none.

        Raises BundleError when this is not a tokenizer, or a limit does not fit it.
        """
        if truncation not in get_args(Truncation):
            raise BundleError(
                f"unknown truncation {truncation!r}: use {' or '.join(get_args(Truncation))}",
                reason="BUNDLE_UNKNOWN_TRUNCATION",
            )
        if cleaning not in CLEANING_VERSIONS:
            raise BundleError(
                f"unknown cleaning version {cleaning}: update sentimill",
                reason="BUNDLE_UNKNOWN_CLEANING",
            )
        try:
            tokenizer = Tokenizer.from_buffer(tokenizer_json)
        except Exception as error:
            raise BundleError(
                f"tokenizer.json cannot be read ({error}): export the bundle again",
                reason="BUNDLE_BAD_TOKENIZER",
            ) from error
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._special = _special_tokens(tokenizer)
        if max_tokens <= (special := sum(self._special)):
            raise BundleError(
                f"max_tokens {max_tokens} leaves no token for the text: use {special + 1} or more",
                reason="BUNDLE_MAX_TOKENS_TOO_SMALL",
            )
        self.max_tokens = max_tokens
        self.truncation = truncation
        self.cleaning = cleaning
        self.languages = frozenset(languages)
        self._tokenizer = tokenizer
        self._fast = fast_tokenizer(tokenizer.to_str())

    def encode(self, texts: Sequence[str]) -> list[Encoded | TextError]:
        """Return one `Encoded` for each text, in order, or the TextError that `clean` raised."""
        if len(texts) > _MOST:
            parts = (texts[at : at + _MOST] for at in range(0, len(texts), _MOST))
            return [one for part in parts for one in self.encode(part)]
        results: list[Encoded | TextError | None] = [None] * len(texts)
        fast: list[tuple[int, str, bool, bool]] = []
        left: list[tuple[int, str, bool, bool]] = []
        tidied, plain = _tidy(texts)
        english = self._find_english(tidied)
        for i, text in enumerate(tidied):
            if isinstance(text, TextError):
                results[i] = text
                continue
            body, cut = self._cap(text if plain[i] or self.cleaning < 2 else name_emoji(text))
            # On the text before emoji get names, which would be English words.
            foreign = not english[i] and foreign_language(text, self.languages) is not None
            proven = self._fast is not None and (plain[i] or is_proven(body))
            (fast if proven else left).append((i, body, cut, foreign))
        if self._fast:
            found = self._fast.ids([body for _, body, _, _ in fast])
            for (i, _, cut, foreign), ids in zip(fast, found, strict=True):
                results[i] = self._encoded(ids, cut, foreign)
        if left:
            encodings = self._tokenizer.encode_batch_fast([body for _, body, _, _ in left])
            for (i, _, cut, foreign), encoding in zip(left, encodings, strict=True):
                results[i] = self._encoded(np.array(encoding.ids, np.int64), cut, foreign)
        return [result for result in results if result is not None]

    def _find_english(self, tidied: Sequence[str | TextError]) -> list[bool]:
        """Tell which texts need no check by `foreign_language`; few texts are all checked."""
        if not self.languages:
            return [True] * len(tidied)
        if len(tidied) < _MANY or "en" not in self.languages:
            return [False] * len(tidied)
        read = [text if isinstance(text, str) else "" for text in tidied]
        english: list[bool] = find_english(read).tolist()
        return english

    def _encoded(self, ids: NDArray[np.int64], cut: bool, foreign: bool) -> Encoded | TextError:
        """Cut *ids* to the limit, but keep special tokens; a text with no others is empty."""
        prefix, suffix = self._special
        if len(ids) == prefix + suffix:  # BERT's tokenizer drops U+FFFD and private characters
            why = "the text is empty: the tokenizer drops each of its characters"
            return TextError(why, reason="EMPTY_TEXT")
        if len(ids) <= self.max_tokens:
            return Encoded(ids, cut, foreign)
        end = len(ids) - suffix
        kept = truncate(ids[prefix:end], self.max_tokens - prefix - suffix, self.truncation)
        return Encoded(np.concatenate([ids[:prefix], kept, ids[end:]]), True, foreign)

    def _cap(self, text: str) -> tuple[str, bool]:
        """Drop the middle of a very long text, so that its tokens are never computed."""
        side = self.max_tokens * _CHARACTERS_PER_TOKEN
        if len(text) <= 2 * side:
            return text, False
        return f"{text[:side]} {text[-side:]}", True


def _tidy(texts: Sequence[str]) -> tuple[list[str | TextError], list[bool]]:
    """Return for each text what `tidy` returns or raises, and whether it is then plain.

    Few texts are tidied one by one, which is faster for them, and none of them counts as plain.
    """
    if len(texts) < _MANY:
        return [*map(_tidy_one, texts)], [False] * len(texts)
    # A longer text is never plain, and its blanks count in the limit on its size.
    stripped = [text.strip() if len(text) <= LONGEST_PLAIN else text for text in texts]
    plain = find_plain(stripped)
    tidied: list[str | TextError] = [*stripped]
    if rest := np.flatnonzero(~plain).tolist():
        found = [_tidy_one(texts[i]) for i in rest]
        plain[rest] = find_plain(["" if isinstance(one, TextError) else one for one in found])
        for i, one in zip(rest, found, strict=True):
            tidied[i] = one
    return tidied, plain.tolist()


def _tidy_one(text: str) -> str | TextError:
    try:
        return tidy(text)
    except TextError as error:
        return error


def _special_tokens(tokenizer: Tokenizer) -> tuple[int, int]:
    """Return how many special tokens are before and after a text: [CLS] and [SEP] for BERT."""
    bare = tokenizer.encode("a", add_special_tokens=False).ids
    full = tokenizer.encode("a").ids
    for start in range(len(full) - len(bare) + 1):
        if full[start : start + len(bare)] == bare:
            return start, len(full) - start - len(bare)
    raise BundleError(
        "tokenizer.json changes a text when it adds its special tokens: use one in the style of"
        " BERT or RoBERTa",
        reason="BUNDLE_BAD_TOKENIZER",
    )


def pad(
    rows: Sequence[NDArray[np.int64]], pad_id: int, *, tokens: int | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return ids and mask, both (rows, tokens) int64; the mask is 1 on tokens and 0 on padding.

    tokens: the length of the padded rows, at least that of the longest row, which is the default.
    """
    lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
    mask = np.arange(tokens or lengths.max()) < lengths[:, None]
    ids = np.full(mask.shape, pad_id, dtype=np.int64)
    ids[mask] = np.concatenate(rows)  # row by row, as the mask is read
    return ids, mask.astype(np.int64)


def plan_batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Yield batches of indices into *lengths*, each of at most *batch_tokens* padded tokens.

    An item longer than the budget is a batch by itself. The longest items come first, so that a
    batch that does not fit into memory fails at once and not after an hour.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
    begin = 0
    while begin < len(order):
        end = begin + max(1, batch_tokens // max(1, lengths[order[begin]]))
        yield order[begin:end]
        begin = end
