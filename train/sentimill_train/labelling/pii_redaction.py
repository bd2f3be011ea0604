"""Masks personal data before a text leaves the machine.

Regular expressions find e-mail and web addresses and numbers, but no names or streets. If in doubt,
they mask too much rather than too little.
"""

from __future__ import annotations

import re
from typing import Final

_URL: Final = re.compile(r"\b(?:https?://|www\.)[^\s<>\"']+|\b[\w-]+(?:\.[\w-]+)*\.(?:com|org|net|io|co|info|biz|de|fr|uk|eu|us)\b(?:/[^\s<>\"']*)?", re.IGNORECASE)  # fmt: skip # noqa: E501
_EMAIL: Final = re.compile(r"[\w.+%-]+@[\w-]+(?:\.[\w-]+)+")
_DIGITS: Final = re.compile(r"(?<![\w.])\+?\(?\d[\d\s().\-/]{5,}\d(?![\w])")
_CARD_DIGITS: Final = range(13, 20)
_PHONE_DIGITS: Final = range(7, 16)
_DATE: Final = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}")
_BARE: Final = re.compile(r"\d+")


def redact(text: str) -> str:
    """Return *text* with e-mail addresses, web addresses, card and phone numbers masked."""
    return _DIGITS.sub(_mask_digits, _URL.sub("[url]", _EMAIL.sub("[email]", text)))


def _mask_digits(match: re.Match[str]) -> str:
    found = match[0]
    digits = re.sub(r"\D", "", found)
    if len(digits) in _CARD_DIGITS and _luhn(digits):
        return "[card]"
    bare = _BARE.fullmatch(found) is not None
    # Seven to nine digits without separators may also be an order number or a price, but masking
    # them does not change the sentiment. Dates stay.
    if len(digits) in _PHONE_DIGITS and (bare or not _DATE.fullmatch(found.strip())):
        return "[phone]"
    return found


def _luhn(digits: str) -> bool:
    """Say whether the check digit is right (ISO/IEC 7812-1, annex B)."""
    total = 0
    for i, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + i % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0
