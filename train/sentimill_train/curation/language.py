"""In which language a text is written, as far as its length allows to tell.

The only file that knows `py3langid`, which is often wrong about a few words: a text of fewer than
six, and one that it is less than 90 % sure of, is never called foreign.
"""

from __future__ import annotations

import functools
import re
from itertools import islice
from typing import TYPE_CHECKING, Final

from sentimill.errors import UsageError

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

__all__ = ["foreign_language", "is_empty"]

_SURE: Final = 0.9
_LEAST_WORDS: Final = 6
_READ_CHARACTERS: Final = 400
_WORD: Final = re.compile(r"\w+")
_NO_LANGUAGE: Final = frozenset({"zxx", "und"})

# A quarter of ordinary English is these; asking the model costs twenty times as much as a look.
_ENGLISH: Final = {
    *("the", "a", "an", "and", "or", "but", "of", "to", "in", "on", "at", "for", "with", "was"),
    *("were", "is", "are", "it", "its", "this", "that", "i", "my", "we", "you", "they", "he"),
    *("she", "not", "no", "have", "had", "has", "be", "been", "as", "so", "very", "from", "by"),
    *("all", "just", "would", "will"),
}
_ENGLISH_SHARE: Final = 0.2


def is_empty(text: str, least_words: int) -> bool:
    """Say whether a text has fewer than *least_words* words."""
    found = _WORD.finditer(text)
    return next(islice(found, least_words - 1, None), None) is None if least_words else False


def foreign_language(text: str, wanted: frozenset[str]) -> str | None:
    """Return the language of a text when it is surely none of *wanted*, else None."""
    head = text[:_READ_CHARACTERS]
    words = _WORD.findall(head.lower())
    if len(words) < _LEAST_WORDS and not _unspaced(head):
        return None
    if "en" in wanted and sum(word in _ENGLISH for word in words) >= _ENGLISH_SHARE * len(words):
        return None
    language, sure = _model().classify(head)
    if language in wanted or language in _NO_LANGUAGE or float(sure) < _SURE:
        return None
    return str(language)


def _unspaced(text: str) -> bool:
    """Say whether a text of few words is long all the same, as Chinese, Japanese and Thai are."""
    return len(text) >= 12 and sum(ord(c) > 0x0E00 for c in text) > len(text) / 2


@functools.lru_cache(maxsize=1)
def _model() -> LanguageIdentifier:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError as error:
        raise UsageError(
            "telling languages apart needs py3langid: pip install 'sentimill[label]'",
            reason="EXTRA_MISSING",
        ) from error
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
