"""Languages and emptiness."""

from __future__ import annotations

import pytest

from sentimill_train.curation.language import foreign_language, is_empty

ENGLISH = frozenset({"en"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The battery died in a week and nobody answers my mails.", None),
        ("awesum prodct worth evry rupee go 4 it frnds", None),
        ("Super!", None),
        ("Très bien", None),
        ("Das Gerät ist nach zwei Wochen kaputt gegangen, der Händler antwortet nicht.", "de"),
        ("La comida estaba fría y el camarero fue muy antipático con nosotros.", "es"),
        ("この商品はとても良かったです。また買いたいと思います。", "ja"),
        ("Очень плохое качество, сломалось через неделю после покупки.", "ru"),
    ],
)
def test_only_what_is_surely_foreign_is_called_so(text: str, expected: str | None) -> None:
    """Short and sloppy English stays, whole sentences of other languages are told."""
    assert foreign_language(text, ENGLISH) == expected


def test_wanted_languages_stay() -> None:
    """A set may want several."""
    text = "Das Gerät ist nach zwei Wochen kaputt gegangen, der Händler antwortet nicht."

    assert foreign_language(text, frozenset({"en", "de"})) is None


@pytest.mark.parametrize(
    ("text", "least", "expected"),
    [("", 1, True), ("!!! :-)", 1, True), ("good", 1, False), ("good", 2, True), ("", 0, False)],
)
def test_words_decide_emptiness(text: str, least: int, expected: bool) -> None:
    """Punctuation is no word."""
    assert is_empty(text, least) is expected
