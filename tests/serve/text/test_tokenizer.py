"""From text to token ids."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from sentimill.bundle.reference import reference_bundle
from sentimill.errors import BundleError, TextError
from sentimill.text.cleaning import find_plain
from sentimill.text.tokenizer import (
    Encoded,
    TextEncoder,
    Truncation,
    pad,
    truncate,
)
from tiny_bundle import WORDS, tokenizer_json

CLS, SEP, UNK, GOOD, BAD = (
    WORDS.index(word) for word in ("[CLS]", "[SEP]", "[UNK]", "good", "bad")
)
# Every code point, lone surrogates too: a caller may send any of them.
ANY_TEXT = st.text(st.characters(categories=None, exclude_categories=()))


# Numbers, names and tags of HTML, whole and broken.
ANY_MARKUP = st.one_of(
    st.from_regex(r"&#[0-9]{0,12};?|&#[xX][0-9a-fA-F]{0,12};?|&[a-zA-Z]{1,8};?", fullmatch=True),
    st.sampled_from(
        ["<br>", "</p>", "<", "&#" + "9" * 5000 + ";", "😍", "👩\u200d🔥", "★☆", ":-("]
    ),
)


def encoder(*, max_tokens: int = 8, truncation: Truncation = "head-tail") -> TextEncoder:
    """Return an encoder over the tiny tokenizer."""
    return TextEncoder(tokenizer_json(), max_tokens=max_tokens, truncation=truncation)


def encode_one(text: str, *, max_tokens: int = 8, truncation: Truncation = "head-tail") -> Encoded:
    """Return the encoding of a text that has one."""
    (found,) = encoder(max_tokens=max_tokens, truncation=truncation).encode([text])
    assert isinstance(found, Encoded)
    return found


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
    assert expected == truncate(np.arange(10), tokens, how).tolist()


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
    ids = np.array([WORDS.index(word) for word in text.split()])

    found = encode_one(text, max_tokens=16, truncation=how)

    assert truncate(ids, 14, how).tolist() == found.ids[1:-1].tolist()
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
        TextEncoder(data, max_tokens=8, truncation="head")

    assert caught.value.reason == "BUNDLE_BAD_TOKENIZER"


def test_max_tokens_must_leave_room_for_a_text() -> None:
    """Two special tokens do not fit two with a text between them."""
    with pytest.raises(BundleError, match="max_tokens 2 leaves no token for the text: use 3"):
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


@given(st.lists(st.one_of(ANY_TEXT, ANY_MARKUP), max_size=12))
def test_the_reference_reads_whatever_comes(pieces: list[str]) -> None:
    """Cleaning, emoji, language and word pieces raise nothing but errors of a text."""
    reader = reference_encoder()
    (found,) = reader.encode(["".join(pieces)])

    assert isinstance(found, TextError) or 3 <= len(found.ids) <= 64


@pytest.mark.parametrize("text", ["\ufffd", "&#0;", "\ue000\uf8ff"])
def test_a_text_without_tokens_is_empty(text: str) -> None:
    """BERT's tokenizer drops replacement characters and private ones."""
    (found,) = reference_encoder().encode([text])

    assert isinstance(found, TextError)
    assert found.reason == "EMPTY_TEXT"


@cache
def reference_encoder() -> TextEncoder:
    """Return the tokenizer of the reference student, with all that new bundles have."""
    return TextEncoder(
        (reference_bundle() / "tokenizer.json").read_bytes(),
        max_tokens=64,
        truncation="head-tail",
        languages=("en",),
    )


PLAIN = " The seller was kind and it came in a day."
BLANKS = (("", ""), (" ", "\n"), ("\t  ", ""), ("", "\xa0 "))


@given(st.lists(st.one_of(ANY_TEXT, ANY_MARKUP, st.just(PLAIN)), min_size=1, max_size=12))
def test_many_texts_are_encoded_like_each_alone(texts: list[str]) -> None:
    """Also with blanks around them, which a text alone loses too."""
    texts = [f"{before}{text}{PLAIN}{after}" for text in texts for before, after in BLANKS]
    reader = reference_encoder()
    alone = [found for text in texts for found in reader.encode([text])]
    together = reader.encode(texts * (512 // len(texts) + 1))[: len(texts)]

    assert [*map(summary, together)] == [*map(summary, alone)]


def summary(found: Encoded | TextError) -> object:
    """Return all that a result says."""
    if isinstance(found, TextError):
        return found.reason, str(found)
    return found.ids.tolist(), found.truncated, found.foreign


def test_many_texts_are_encoded_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, and without a copy of all of them in memory. What is not plain comes twice."""
    sizes: list[int] = []

    def count(texts: Sequence[str]) -> NDArray[np.bool_]:
        sizes.append(len(texts))
        return find_plain(texts)

    monkeypatch.setattr("sentimill.text.tokenizer.find_plain", count)
    texts = [("good", "", "bad bad")[i % 3] for i in range(10_000)]

    found = encoder().encode(texts)

    assert sizes == [4096, 4096, 4096, 4096, 1808, 1808]
    got = [list(one.ids) if isinstance(one, Encoded) else None for one in found]
    expected = ([CLS, GOOD, SEP], None, [CLS, BAD, BAD, SEP])
    assert got == [expected[i % 3] for i in range(10_000)]
