"""From text to token ids."""

from __future__ import annotations

import html
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentimill.errors import BundleError, TextError
from sentimill.text.tokenizer import (
    Encoded,
    TextEncoder,
    Truncation,
    clean,
    pad,
    truncate,
)
from sentimill.types import MAX_TEXT_BYTES
from tiny_bundle import WORDS, tokenizer_json

CLS, SEP, UNK, GOOD, BAD = (
    WORDS.index(word) for word in ("[CLS]", "[SEP]", "[UNK]", "good", "bad")
)
# Every code point, lone surrogates too: a caller may send any of them.
ANY_TEXT = st.text(st.characters(categories=None, exclude_categories=()))


def encoder(*, max_tokens: int = 8, truncation: Truncation = "head-tail") -> TextEncoder:
    """Return an encoder over the tiny tokenizer."""
    return TextEncoder.from_bytes(tokenizer_json(), max_tokens=max_tokens, truncation=truncation)


def encode_one(text: str, *, max_tokens: int = 8, truncation: Truncation = "head-tail") -> Encoded:
    """Return the encoding of a text that has one."""
    (found,) = encoder(max_tokens=max_tokens, truncation=truncation).encode([text])
    assert isinstance(found, Encoded)
    return found


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
    assert expected == clean(text)


def plainly_cleaned(text: str) -> str:
    """Return what `clean` promises, by one rule after the other."""
    text = re.sub(r"<(?:br|p|/p)\s*/?>", " ", html.unescape(text), flags=re.IGNORECASE)
    text = re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\ufeff]", " ", text)
    return re.sub(r"\s+", " ", text).strip()


@pytest.mark.slow
def test_every_character_is_cleaned_by_the_plain_rules() -> None:
    """The short ways for texts that need little leave no blank and no control character."""
    characters = [c for c in map(chr, range(sys.maxunicode + 1)) if not "\ud800" <= c <= "\udfff"]

    assert [c for c in characters if clean(f"a{c}b {c}") != plainly_cleaned(f"a{c}b {c}")] == []


@given(st.text(st.sampled_from("ab \t\n\x00\x1c\x85\u200b\u200d\u2028\u3000é<br>&#9;👍")))
def test_any_mixture_is_cleaned_by_the_plain_rules(text: str) -> None:
    """Tags, entities and blanks may stand beside each other."""
    expected = plainly_cleaned(text)
    try:
        assert expected == clean(text)
    except TextError:
        assert expected == ""


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

    assert at_limit == clean(at_limit)
    with pytest.raises(TextError, match=f"the limit is {MAX_TEXT_BYTES}") as caught:
        clean(at_limit + char)
    assert caught.value.reason == "TEXT_TOO_LARGE"


def test_a_megabyte_of_lone_surrogates_is_an_error_of_the_text() -> None:
    """Measuring a text that UTF-8 cannot hold raises nothing else."""
    with pytest.raises(TextError):
        clean("\ud800" * MAX_TEXT_BYTES)


@pytest.mark.parametrize(
    ("how", "tokens", "expected"),
    [
        ("head", 4, [0, 1, 2, 3]),
        ("head-tail", 4, [0, 7, 8, 9]),
        ("head-tail", 1, [9]),
        ("head-tail", 10, list(range(10))),
        ("head", 10, list(range(10))),
        ("head", 99, list(range(10))),
    ],
)
def test_truncate_keeps_head_or_head_and_tail(
    how: Truncation, tokens: int, expected: list[int]
) -> None:
    """A quarter of the budget goes to the head, the rest to the tail, and what fits is not cut."""
    assert expected == truncate(list(range(10)), tokens, how)


def test_special_tokens_stand_around_the_text() -> None:
    """Ids begin with [CLS] and end with [SEP]."""
    found = encode_one("Good bad zebra")

    assert found.ids.tolist() == [CLS, GOOD, BAD, UNK, SEP]
    assert found.ids.dtype == np.int64
    assert not found.truncated


def test_a_long_text_keeps_its_special_tokens() -> None:
    """Truncation counts the special tokens and leaves them in place."""
    found = encode_one("good " * 5 + "bad " * 5, max_tokens=6)

    assert found.ids.tolist() == [CLS, GOOD, BAD, BAD, BAD, SEP]
    assert found.truncated


def test_a_text_of_exactly_the_limit_is_not_truncated() -> None:
    """Six words and two special tokens fit eight."""
    assert not encode_one("good " * 6, max_tokens=8).truncated
    assert encode_one("good " * 7, max_tokens=8).truncated


@pytest.mark.parametrize("how", ["head", "head-tail"])
def test_dropping_the_middle_first_gives_the_same_tokens(how: Truncation) -> None:
    """The short cut for very long texts does not change what the model reads."""
    words = ["good", "bad", "battery", "fine", "the"]
    text = " ".join(words[i * i % 5] for i in range(2000))
    ids = [WORDS.index(word) for word in text.split()]

    found = encode_one(text, max_tokens=16, truncation=how)

    assert truncate(ids, 14, how) == found.ids[1:-1].tolist()
    assert found.truncated


def test_a_bad_text_gets_its_error_in_its_own_place() -> None:
    """Neighbours of a bad text are encoded."""
    found = encoder().encode(["good", "", "bad", "\ud800"])

    assert [Encoded, TextError, Encoded, TextError] == [type(one) for one in found]


def test_no_texts_give_no_results() -> None:
    """An empty list is fine."""
    assert encoder().encode([]) == []


@given(st.lists(ANY_TEXT, max_size=8))
def test_any_text_is_encoded_within_the_limit_or_gets_an_error(texts: list[str]) -> None:
    """Whatever comes, each text has one result, and none has too many tokens."""
    found = encoder(max_tokens=5).encode(texts)

    assert len(texts) == len(found)
    for one in found:
        assert isinstance(one, TextError) or (
            3 <= len(one.ids) <= 5 and one.ids[0] == CLS and one.ids[-1] == SEP
        )


@given(st.lists(ANY_TEXT, max_size=8))
def test_a_text_is_encoded_as_if_it_were_alone(texts: list[str]) -> None:
    """Neighbours change nothing."""
    reader = encoder()
    together = reader.encode(texts)
    alone = [reader.encode([text])[0] for text in texts]

    for a, b in zip(together, alone, strict=True):
        assert type(a) is type(b)
        if isinstance(a, Encoded) and isinstance(b, Encoded):
            assert a.ids.tolist() == b.ids.tolist()


@pytest.mark.parametrize("data", [b"", b"{}", b"\x80\x04pickle", b'{"model": 3}'])
def test_what_is_no_tokenizer_is_a_bundle_error(data: bytes) -> None:
    """A broken tokenizer.json names itself."""
    with pytest.raises(BundleError, match=r"tokenizer\.json cannot be read") as caught:
        TextEncoder.from_bytes(data, max_tokens=8, truncation="head")

    assert caught.value.reason == "BUNDLE_BAD_TOKENIZER"


def test_a_tokenizer_is_read_from_its_file(tmp_path: Path) -> None:
    """Training reads the same tokenizer by path."""
    path = tmp_path / "tokenizer.json"
    path.write_bytes(tokenizer_json())

    read = TextEncoder.from_file(path, max_tokens=8, truncation="head")

    assert isinstance(read.encode(["good"])[0], Encoded)


def test_max_tokens_must_leave_room_for_a_text() -> None:
    """Two special tokens do not fit two with a text between them."""
    with pytest.raises(BundleError, match="max_tokens 2 leaves no room"):
        encoder(max_tokens=2)


def test_an_unknown_truncation_is_refused() -> None:
    """A manifest of a later version may name another."""
    with pytest.raises(BundleError, match="unknown truncation 'middle': use head or head-tail"):
        encoder(truncation="middle")  # type: ignore[arg-type]  # what a manifest may say


def test_pad_makes_rows_as_long_as_the_longest() -> None:
    """The mask is 1 on tokens and 0 on padding."""
    ids, mask = pad([np.array([1, 4, 2]), np.array([1])], pad_id=9)

    assert ids.tolist() == [[1, 4, 2], [1, 9, 9]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert ids.dtype == mask.dtype == np.int64
