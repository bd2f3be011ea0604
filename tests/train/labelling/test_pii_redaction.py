"""Masks before a text leaves the machine."""

from __future__ import annotations

import pytest

from sentimill_train.labelling.pii_redaction import redact


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Write to jo.doe+shop@mail.example.co.uk now", "Write to [email] now"),
        ("see https://x.example/a?b=c#d, really", "see [url] really"),
        ("see www.shop.example and shop.com/deal!", "see [url] and [url]"),
        ("card 4111 1111 1111 1111 was charged", "card [card] was charged"),
        ("card 4111-1111-1111-1111.", "card [card]."),
        ("call +44 20 7946 0958 or (555) 010-9999", "call [phone] or [phone]"),
        ("my number is 0301234567", "my number is [phone]"),
        ("on 2026-11-23 I paid 19.99 for 2 of 100", "on 2026-11-23 I paid 19.99 for 2 of 100"),
        ("10/10, 5 stars, model 3310, since 1999", "10/10, 5 stars, model 3310, since 1999"),
        ("I waited 2 hours. 30 minutes would do.", "I waited 2 hours. 30 minutes would do."),
    ],
)
def test_identifying_parts_are_masked_and_the_rest_stays(text: str, expected: str) -> None:
    """E-mail, web, card and phone numbers go; dates, prices and ratings stay."""
    assert expected == redact(text)
