"""What is done to a text before a tokenizer reads it."""

from __future__ import annotations

import contextlib
import html
import html.entities
import re
import sys
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentimill.errors import TextError
from sentimill.text.cleaning import CLEANING_VERSIONS, clean, find_plain, join_texts
from sentimill.types import MAX_TEXT_BYTES

# Every code point, lone surrogates too: a caller may send any of them.
ANY_CHARACTER = st.characters(categories=None, exclude_categories=())
# What HTML gives a meaning to: references by number and by name, whole and broken, and tags.
ANY_MARKUP = st.one_of(
    st.from_regex(r"&#[0-9]{0,12};?", fullmatch=True),
    st.from_regex(r"&#[xX][0-9a-fA-F]{0,12};?", fullmatch=True),
    st.sampled_from([f"&{name}" for name in sorted(html.entities.html5)]),
    st.integers(90, 9000).map(lambda digits: f"&#{'9' * digits}"),
    st.integers(90, 9000).map(lambda digits: f"&#x{'f' * digits};"),
    st.sampled_from(["<br>", "<BR/>", "</p>", "<p", "<", "&", "&#", "&#;", "&#x;"]),
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("good", "good"),
        ("  good \t\r\n battery  ", "good battery"),
        ("good<br />battery<BR>fine<p>the</p>", "good battery fine the"),
        ("a < b > c <brown>", "a < b > c <brown>"),
        ("Tom &amp; Jerry&#39;s", "Tom & Jerry's"),
        ("good&lt;br&gt;bad", "good bad"),
        ("AT&T &unknown; &", "AT&T &unknown; &"),
        ("go\x00od\x07 \x1b[31m\x7f", "go od [31m"),
        ("\ufeffgood\u200bbad", "good bad"),
        ("a\u00a0b\u3000c\u2028d", "a b c d"),
        ("👍🏽 great 👩\u200d💻", "👍🏽 great 👩\u200d💻"),
        ("مُنتَج رائع", "مُنتَج رائع"),
        ("&#xD800;", "\ufffd"),
    ],
)
def test_clean_keeps_the_words_and_drops_the_rest(text: str, expected: str) -> None:
    """Break tags, entities, control characters and runs of blanks go; every script stays."""
    assert expected == clean(text, version=1)


TELLING = st.text(st.sampled_from("aXxDoP 5&<3>:;=_^()\\-'|[\x00\x7f\té\ud800"), max_size=30)


@given(texts=st.lists(TELLING | st.sampled_from(["", "n/a", "x" * 20_001]), min_size=1, max_size=9))
def test_plain_texts_stay_as_they_are(texts: list[str]) -> None:
    """Whatever stands at the end of a text, or of the one before."""
    for text, plain in zip(texts, find_plain(texts), strict=True):
        assert not plain or (clean(text) == text and "[" not in text and len(text) <= 20_000)


def test_most_texts_are_plain() -> None:
    """A colon, a semicolon or an angle bracket that begins no emoticon changes nothing."""
    texts = ["Bad battery: died; twice", "about 5 = five stars", "as good as new, 10/10 :", "<3"]

    assert find_plain(texts).tolist() == [True, True, True, False]


def plainly_cleaned(text: str) -> str:
    """Return what `clean` promises, by one rule after the other."""
    text = re.sub(r"<(?:br|p|/p)\s*/?>", " ", html.unescape(text), flags=re.IGNORECASE)
    text = re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\ufeff]", " ", text)
    return re.sub(r"\s+", " ", text).strip()


@pytest.mark.slow
def test_every_character_is_cleaned_by_the_plain_rules() -> None:
    """The short ways for texts that need little leave no blank and no control character."""
    characters = [c for c in map(chr, range(sys.maxunicode + 1)) if not "\ud800" <= c <= "\udfff"]

    assert [c for c in characters if clean(f"a{c}b {c}", 1) != plainly_cleaned(f"a{c}b {c}")] == []


@given(st.text(st.sampled_from("ab \t\n\x00\x1c\x85\u200b\u200d\u2028\u3000é<br>&#9;👍")))
def test_any_mixture_is_cleaned_by_the_plain_rules(text: str) -> None:
    """Tags, entities and blanks may stand beside each other."""
    expected = plainly_cleaned(text)
    try:
        assert expected == clean(text, version=1)
    except TextError:
        assert set(expected) <= set("\u200d ")


@pytest.mark.parametrize("text", ["", " ", "\t\r\n", "\x00", "\u200b\ufeff", "<br>", "&nbsp;"])
def test_a_text_of_nothing_visible_is_empty(text: str) -> None:
    """Blanks, control characters and break tags alone are no text."""
    with pytest.raises(TextError, match="at least one visible character") as caught:
        clean(text)

    assert caught.value.reason == "EMPTY_TEXT"


@pytest.mark.parametrize("text", ["\ud800", "good \udfff", "\udc80bad"])
def test_a_lone_surrogate_is_named_with_its_place(text: str) -> None:
    """The error says which half character stands where."""
    place = next(i for i, char in enumerate(text) if "\ud800" <= char <= "\udfff")

    with pytest.raises(
        TextError, match=f"U\\+{ord(text[place]):04X} at character {place}"
    ) as caught:
        clean(text)

    assert caught.value.reason == "INVALID_UNICODE"


@pytest.mark.parametrize("char", ["a", "é", "€", "👍"])
def test_the_size_limit_counts_bytes_of_utf8(char: str) -> None:
    """A text of exactly the limit passes, and one character more does not."""
    width = len(char.encode())
    at_limit = char * (MAX_TEXT_BYTES // width)

    assert at_limit == clean(at_limit, version=1)
    with pytest.raises(TextError, match=f"the limit is {MAX_TEXT_BYTES}") as caught:
        clean(at_limit + char)
    assert caught.value.reason == "TEXT_TOO_LARGE"


def test_a_megabyte_of_lone_surrogates_is_an_error_of_the_text() -> None:
    """Measuring a text that UTF-8 cannot hold raises nothing else."""
    with pytest.raises(TextError):
        clean("\ud800" * MAX_TEXT_BYTES)


@pytest.mark.parametrize(
    "text",
    [
        *("\u200d", "\u200d\u200d \u200c", "\u00ad", "&shy;&shy;", "\u2060\ufeff\u180e"),
        *("\u0301", "a\u0301"[1:] * 3, "\u0903", "\u20dd"),
        *("\ufe0f", "\ufe0e\ufe0f", "\U000e0100", "\U000e0067\U000e007f"),
        *("\u3164", "\u115f\u1160\uffa0", "\u2800\u2800", "\u202e\u2066"),
    ],
)
@pytest.mark.parametrize("version", CLEANING_VERSIONS)
def test_a_text_that_draws_nothing_is_empty(text: str, version: int) -> None:
    """Joiners, soft hyphens, combining marks, variation selectors and fillers are no text."""
    with pytest.raises(TextError, match="at least one visible character") as caught:
        clean(text, version)

    assert caught.value.reason == "EMPTY_TEXT"


@pytest.mark.parametrize("text", ["!", "?!", "\ufffd", "\ue000", "\U0001fadf", "\u0661", "©", "🏽"])
def test_a_sign_is_visible(text: str) -> None:
    """Punctuation, symbols, private signs and emoji newer than this Python are drawn."""
    assert text == clean(text, version=1)


@pytest.mark.parametrize(
    "text",
    ["N/A", "n/a", " n/a. ", "NA", "#N/A", "-", "--", "—", "none", "None.", "NULL", "nan",
     "#NAME?", "#DIV/0!",
     "no comment", "No Comments", "Not applicable.", "n&#47;a"],
)  # fmt: skip
def test_a_placeholder_is_empty(text: str) -> None:
    """What people and programs write into a cell without a text is no text."""
    with pytest.raises(TextError, match="is the placeholder") as caught:
        clean(text)

    assert caught.value.reason == "EMPTY_TEXT"


@pytest.mark.parametrize(
    "text", ["none of it works", "no comment from us", "nada", "ok", "nothing", "- good", "nan!"]
)
def test_a_text_with_a_placeholder_in_it_is_a_text(text: str) -> None:
    """Only a whole cell is a placeholder."""
    assert text == clean(text)


def test_emoji_get_names_in_version_2_alone() -> None:
    """A bundle that was trained before keeps reading them as it did."""
    assert clean("so 😍&lt;3", version=1) == "so 😍<3"
    assert clean("so 😍 &lt;3", version=2) == "so :smiling face with heart eyes: :red heart:"


@given(st.lists(st.one_of(ANY_CHARACTER, ANY_MARKUP, st.text(ANY_CHARACTER)), max_size=12))
def test_whatever_comes_is_cleaned_or_is_a_text_error(pieces: list[str]) -> None:
    """Nothing that Unicode and HTML allow raises anything else, in either version."""
    for version in CLEANING_VERSIONS:
        try:
            cleaned = clean("".join(pieces), version)
        except TextError as error:
            assert error.reason in ("EMPTY_TEXT", "INVALID_UNICODE")
            continue
        assert cleaned == cleaned.strip() != ""
        assert not any(unicodedata.category(char) in ("Cs", "Cc") for char in cleaned)


@pytest.mark.parametrize("digits", [99, 100, 641, 4301, 100_000])
def test_a_reference_of_many_digits_is_one_replacement_character(digits: int) -> None:
    """Python refuses to read so many digits as a number."""
    assert clean(f"good &#{'1' * digits}; bad") == "good \ufffd bad"


@pytest.mark.parametrize(
    "unit", ["😍", "👩\u200d", "🇫🇷🇩", ":)(", "&#1", "<p", "\u0301a", "⭐☆", "-_", "^_"]
)
def test_a_text_of_anything_is_cleaned_in_linear_time(unit: str) -> None:
    """One text cannot hold a tokenizer thread.

    The longest text takes 0.1 to 1.4 s of a CPU. In a time that grows with the square of the length
    it would take from some 20 s to hours.
    """
    began = time.thread_time()
    with contextlib.suppress(TextError):  # of control characters nothing is left
        clean(unit * (MAX_TEXT_BYTES // len(unit.encode())))

    assert time.thread_time() - began < 15


@pytest.mark.parametrize(
    ("parts", "joined"),
    [
        (["Great phone", "The battery lasts."], "Great phone. The battery lasts."),
        (["Great phone!", "It lasts", "Buy it"], "Great phone! It lasts. Buy it"),
        (["", " good "], "good"),
        ([None, float("nan"), "good", 3], "good"),
        (["Title", None], "Title"),
        ([" ", None], None),
        ([], None),
    ],
)
def test_title_and_body_are_joined_as_sentences(parts: list[object], joined: str | None) -> None:
    """Empty parts are left out, and a title does not run into the first sentence."""
    assert join_texts(parts) == joined
