"""The fast tokenizer gives the ids of the reference, or none."""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from repository import ROOT
from sentimill.errors import TextError
from sentimill.text import fast_tokenizer as rooms
from sentimill.text.fast_tokenizer import MANY, PROVEN, FastTokenizer, fast_tokenizer, is_proven
from sentimill.text.tokenizer import TextEncoder
from sentimill_train.data.examples import read_examples

tokie = pytest.importorskip("tokie", reason="no wheel for this machine")

REFERENCE = ROOT / "bundles/reference/tokenizer.json"
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
ALPHABET = [chr(code) for first, last in PROVEN for code in range(first, last + 1)]
SCALARS = [c for c in map(chr, range(sys.maxunicode + 1)) if not "\ud800" <= c <= "\udfff"]
PLACES = (
    "{}", "{}{}", "{} b", "a {}b", "a{}", "{}a", "a{}b", "A{}B", "a{}{}b", "1{}2", ".{}.", "{}!",
    "\u2018{}\u2019", "é{}é", "É {}", "ß{}İ", "😀{}", "{}\ufe0f", "\u200d{}\u200d",
    "{}" * 100, "{}" * 101,
)  # fmt: skip
WORDS = st.sampled_from(["the", "battery", "DIED", "naïve", "don't", "5/5", "x" * 100, "y" * 101])
PROVEN_TEXT = st.lists(WORDS | st.text(st.sampled_from(ALPHABET)), max_size=30).map(" ".join)
ANY_TEXT = st.lists(
    WORDS
    | st.sampled_from(
        ["[CLS]", "[unk]", "e\u0301", "ΟΔΟΣ", "中文", "한국", "\u0336", "\x00", "<br>"]
    )
    | st.text(st.characters(categories=None, exclude_categories=())),
    max_size=20,
).map(" ".join)


def spec(**model: Any) -> dict[str, Any]:
    """Return the reference student's tokenizer, with *model* changed in it."""
    read: dict[str, Any] = json.loads(REFERENCE.read_bytes())
    read |= {"truncation": None, "padding": None}
    read["model"] |= model
    return read


def vocabulary(pieces: list[str]) -> dict[str, int]:
    """Return *pieces*, each once, behind the special ones."""
    return {piece: i for i, piece in enumerate(dict.fromkeys([*SPECIAL, *pieces]))}


def pair(changed: dict[str, Any]) -> tuple[FastTokenizer | None, Tokenizer]:
    """Return the fast tokenizer and the reference."""
    reference = Tokenizer.from_str(json.dumps(changed))
    return fast_tokenizer(reference.to_str()), reference


def read(fast: FastTokenizer, text: str) -> list[int] | None:
    """Return the ids of *text* where the fast tokenizer reads it."""
    return fast.ids([text])[0].tolist() if is_proven(text) else None


def differing(fast: FastTokenizer, reference: Tokenizer, texts: list[str]) -> list[str]:
    """Return the texts for which the fast tokenizer has ids, and they are others."""
    texts = [text for text in texts if is_proven(text)]
    expected = reference.encode_batch_fast(texts)
    together = zip(texts, fast.ids(texts), expected, strict=True)
    return [
        text
        for text, ids, one in together
        if ids.tolist() != one.ids or read(fast, text) != one.ids
    ]


@pytest.fixture(scope="module")
def telling() -> tuple[FastTokenizer, Tokenizer]:
    """Return both over a vocabulary that tells all characters apart: no difference is an [UNK]."""
    characters = {
        form
        for char in ALPHABET
        for whole in (char, unicodedata.normalize("NFD", char))
        for form in whole + whole.lower()
    }
    pieces = sorted(characters - {" "})
    fast, reference = pair(spec(vocab=vocabulary([*pieces, *(f"##{piece}" for piece in pieces)])))
    assert fast
    unknown = [SPECIAL.index(name) for name in ("[CLS]", "[UNK]", "[SEP]")]
    assert all(read(fast, char) != unknown for char in ALPHABET)
    return fast, reference


@pytest.fixture(scope="module")
def shipped() -> tuple[FastTokenizer, Tokenizer]:
    """Return both over the reference student's vocabulary."""
    fast, reference = pair(spec())
    assert fast
    return fast, reference


def encoder() -> TextEncoder:
    """Return an encoder over the reference student's tokenizer."""
    return TextEncoder(REFERENCE.read_bytes(), max_tokens=16, truncation="head-tail")


def encoded(reader: TextEncoder, texts: list[str]) -> list[object]:
    """Return what can be compared of each encoding or error."""
    return [
        (one.reason, str(one))
        if isinstance(one, TextError)
        else (one.ids.tolist(), one.ids.dtype, one.truncated)
        for one in reader.encode(texts)
    ]


@pytest.fixture(scope="module")
def encoders() -> tuple[TextEncoder, TextEncoder]:
    """Return two that differ in the fast tokenizer alone: the first has it."""
    fast, reference = encoder(), encoder()
    assert fast._fast
    reference._fast = None
    return fast, reference


@pytest.fixture
def anew() -> Iterator[None]:
    """Forget what was made before, and what the test makes."""
    fast_tokenizer.cache_clear()
    yield
    fast_tokenizer.cache_clear()


def test_every_code_point_that_is_not_proven_is_refused() -> None:
    """So a text with one of them is the reference's, and only the proven ones need comparing."""
    proven = set(ALPHABET)
    texts = [text for c in SCALARS if c not in proven for text in (c, f"a{c}b", f"é{c}")]

    assert len(SCALARS) == 1_112_064
    assert [text for text in texts if is_proven(text)] == []


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_every_proven_code_point_is_read_alike(
    place: str, telling: tuple[FastTokenizer, Tokenizer], shipped: tuple[FastTokenizer, Tokenizer]
) -> None:
    """Alone, at either end of a word, within one, twice, beside punctuation, too often."""
    texts = [place.replace("{}", char) for char in ALPHABET]

    assert all(map(is_proven, texts))
    assert differing(*telling, texts) == []
    assert differing(*shipped, texts) == []


def test_no_proven_code_point_moves_in_normalisation() -> None:
    """What it becomes begins with a starter, so its neighbours change nothing."""
    firsts = [unicodedata.normalize("NFD", char)[0] for char in ALPHABET]

    assert [char for char in firsts if unicodedata.combining(char)] == []


@settings(max_examples=500)
@given(text=PROVEN_TEXT)
def test_proven_texts_are_read_alike(
    text: str, telling: tuple[FastTokenizer, Tokenizer], shipped: tuple[FastTokenizer, Tokenizer]
) -> None:
    """Whatever stands beside what."""
    for fast, reference in (telling, shipped):
        assert read(fast, text) == reference.encode(text).ids


@settings(max_examples=300)
@given(texts=st.lists(ANY_TEXT, max_size=5))
def test_any_text_is_encoded_as_by_the_reference_alone(
    texts: list[str], encoders: tuple[TextEncoder, TextEncoder]
) -> None:
    """Ids, what is cut, errors and their order; a few texts, or so many that threads share them."""
    fast, reference = encoders
    expected = encoded(reference, texts)

    assert encoded(fast, texts) == expected
    assert encoded(fast, texts * MANY) == expected * MANY


def test_the_starter_reviews_are_read_alike(shipped: tuple[FastTokenizer, Tokenizer]) -> None:
    """And nearly all of them go the fast way."""
    texts = [example.text for example in read_examples("starter")]

    assert differing(*shipped, texts) == []
    assert sum(map(is_proven, texts)) > 0.98 * len(texts)


@settings(max_examples=200)
@given(
    pieces=st.lists(
        st.text(st.sampled_from("abcé.A \u2019😀#"), min_size=1, max_size=5), max_size=40
    ),
    texts=st.lists(st.text(st.sampled_from("abcABCé.\u2019😀# "), max_size=30), max_size=20),
)
def test_any_vocabulary_is_read_alike_or_not_at_all(pieces: list[str], texts: list[str]) -> None:
    """Also with pieces that no word can use."""
    single = [*"abc", *(f"##{char}" for char in "abc#")]
    spelt = [f"##{piece}" if i % 2 else piece for i, piece in enumerate(pieces)]
    fast, reference = pair(spec(vocab=vocabulary([*single, *spelt])))

    if fast:
        assert differing(fast, reference, texts) == []


@pytest.mark.parametrize(
    "text", ["[CLS]", "a [x] b", "é [MASK]", "a\tb", "a\nb", "a\x7fb", "x" * 20_001, "é" * 10_001]
)
def test_a_text_that_was_not_compared_is_refused(text: str) -> None:
    """Special tokens, control characters, and more than tokie reads in one piece."""
    assert not is_proven(text)


@pytest.mark.parametrize("text", ["the battery died. " * 1111, "a" * 20_000, "a.\u2019" * 4000])
def test_the_longest_texts_are_read_alike(
    text: str, shipped: tuple[FastTokenizer, Tokenizer]
) -> None:
    """With blanks and without."""
    assert read(shipped[0], text) == shipped[1].encode(text).ids


def cased(changed: dict[str, Any]) -> None:
    """Keep capitals."""
    changed["normalizer"]["lowercase"] = False


def accented(changed: dict[str, Any]) -> None:
    """Keep accents."""
    changed["normalizer"]["strip_accents"] = False


def spaced(changed: dict[str, Any]) -> None:
    """Split at blanks alone."""
    changed["pre_tokenizer"] = {"type": "WhitespaceSplit"}


def shorter(changed: dict[str, Any]) -> None:
    """Call words of 51 characters unknown."""
    changed["model"]["max_input_chars_per_word"] = 50


def named(changed: dict[str, Any]) -> None:
    """Add a token that is a word."""
    added = changed["added_tokens"][0] | {"id": 5, "content": "battery", "special": False}
    changed["added_tokens"].append(added)


def longer_rests(changed: dict[str, Any]) -> None:
    """Begin a piece with a character that is none: tokie would leave out a word's end."""
    del changed["model"]["vocab"]["##q"]


def empty_piece(changed: dict[str, Any]) -> None:
    """Let a word go on with nothing."""
    changed["model"]["vocab"]["##"] = len(changed["model"]["vocab"])


@pytest.mark.parametrize(
    "change", [cased, accented, spaced, shorter, named, longer_rests, empty_piece]
)
def test_a_tokenizer_of_another_kind_has_no_fast_one(
    change: Callable[[dict[str, Any]], None], caplog: pytest.LogCaptureFixture
) -> None:
    """It is no fault, so nothing is said."""
    changed = spec()
    change(changed)
    pieces = changed["model"]["vocab"]
    changed["model"]["vocab"] = {piece: i for i, piece in enumerate(pieces)}

    assert pair(changed)[0] is None
    assert caplog.records == []


def test_a_vocabulary_that_is_read_in_another_way_is_given_up(
    anew: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Before any text is read, and with a warning."""
    monkeypatch.setattr(FastTokenizer, "ids", lambda self, texts: [np.ones(1, int)] * len(texts))

    assert pair(spec())[0] is None
    assert "reads this vocabulary differently" in caplog.text


def test_ids_of_other_pieces_are_given_up(
    anew: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Two pieces that changed places are found."""
    read = rooms.read_tokie

    def swapped(tokenizer_json: str) -> object:
        places = {"the": "of", "of": "the"}
        return read(re.sub('"(the|of)":', lambda found: f'"{places[found[1]]}":', tokenizer_json))

    monkeypatch.setattr(rooms, "read_tokie", swapped)

    assert pair(spec())[0] is None
    assert "reads this vocabulary differently" in caplog.text


def test_another_version_of_tokie_is_not_used(anew: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is one that is not installed: its version is None then."""
    monkeypatch.setattr(rooms, "package_version", {"tokie": "0.1.5"}.get)

    assert pair(spec())[0] is None


def test_without_tokie_all_texts_are_the_reference_s(
    anew: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An installation that cannot be imported is said, and texts are encoded all the same."""
    texts = ["The battery died.", "", "é [CLS]"]
    expected = encoded(encoder(), texts)
    fast_tokenizer.cache_clear()
    monkeypatch.setitem(sys.modules, "tokie", None)
    reader = encoder()

    assert reader._fast is None
    assert "tokie cannot be used" in caplog.text
    assert expected == encoded(reader, texts)


def test_what_tokie_cannot_read_is_said(
    anew: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its own error becomes a warning."""

    def refuse(path: str) -> None:
        raise tokie.TokieError("no such thing")

    monkeypatch.setattr("tokie.Tokenizer", type("Tokenizer", (), {"from_json": refuse}))

    assert pair(spec())[0] is None
    assert "no such thing" in caplog.text


def test_one_object_serves_all_encoders_of_a_bundle() -> None:
    """Making it takes longer than making the reference."""
    assert encoder()._fast is encoder()._fast
