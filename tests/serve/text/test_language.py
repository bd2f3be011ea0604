"""Which texts are in a language that a model was not made for."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from live_server import live_server
from scoring_jobs import job
from sentimill import Classifier, Client, Prediction
from sentimill.scoring.scorers import LocalScorer
from sentimill.scoring.server_scorer import ServerScorer
from sentimill.server.settings import Serve
from sentimill.text.language import find_english, foreign_language, languages_of
from tiny_bundle import write_tiny_bundle

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
        ("Livraison rapide et produit conforme, je recommande ce vendeur.", "fr"),
        ("no me gusta nada este telefono", "es"),
        ("produto muito bom recomendo, chegou antes do prazo", "pt"),
        ("ottimo prodotto, consegna veloce e imballaggio perfetto", "it"),
        ("bardzo dobry produkt polecam wszystkim", "pl"),
        ("ürün çok kötü, iki günde bozuldu iade ettim", "tr"),
        ("goed product, snel geleverd en netjes verpakt", "nl"),
        ("Очень плохо", "ru"),
        ("质量很好下次还会再来", "zh"),
        ("아주 좋아요", "ko"),
        ("@JetBlue AIRPORT CODE TEST GO. SLC.  BOS MCO", None),
        ("Bwarrrrngarooroorooroorooroororooro beoooooooooo", None),
        ("10/10!!! 5 stars \u2b50\u2b50\u2b50\u2b50\u2b50", None),
    ],
)
def test_only_what_is_surely_foreign_is_called_so(text: str, expected: str | None) -> None:
    """Short and sloppy English stays, whole sentences of other languages are told."""
    assert foreign_language(text, ENGLISH) == expected


def test_wanted_languages_stay() -> None:
    """A set may want several."""
    text = "Das Gerät ist nach zwei Wochen kaputt gegangen, der Händler antwortet nicht."

    assert foreign_language(text, frozenset({"en", "de"})) is None


WORDS = st.sampled_from(
    ["the", "The", "WOULD", "wouldx", "i", "a_b", "don't", "thethethe", "7", "schlecht", "gut"]
)
HEADS = st.lists(WORDS | st.sampled_from([" ", ", ", "\n", "."]), max_size=60).map(" ".join)


@given(texts=st.lists(HEADS, min_size=1, max_size=9))
def test_many_texts_are_english_where_each_is(texts: list[str]) -> None:
    """Every text counts by itself, whatever stands before and behind it."""
    counted = [
        [re.findall(r"\w+", text[:most].lower(), re.ASCII) for most in (100, 400)] for text in texts
    ]
    expected = [
        any(
            len(words) >= 5
            and sum(word in {"the", "would", "i"} for word in words) >= 0.2 * len(words)
            for words in both
        )
        for both in counted
    ]

    assert find_english(texts).tolist() == expected
    assert not any(
        foreign_language(text, ENGLISH) for text, one in zip(texts, expected, strict=True) if one
    )


@pytest.fixture(scope="module")
def english(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a bundle that is made for English."""
    folder = tmp_path_factory.mktemp("english") / "tiny"
    return write_tiny_bundle(
        folder, change=lambda m: msgspec.structs.replace(m, languages=("en",))
    ).path


GERMAN = "Das Gerät ist nach zwei Wochen kaputt gegangen, good good good."


def reason(classifier: Classifier, text: str) -> str | None:
    """Return why the classifier abstained on *text*."""
    (found,) = classifier.classify([text])
    assert isinstance(found, Prediction)
    assert found.abstained == (found.abstain_reason is not None)
    return found.abstain_reason


def test_a_text_in_another_language_is_abstained(english: Path) -> None:
    """However sure the model is, and the label is still there; the flag turns it off."""
    assert reason(Classifier.load(english), GERMAN) == "UNSUPPORTED_LANGUAGE"
    assert reason(Classifier.load(english), "good battery") is None
    assert reason(Classifier.load(english, detect_language=False), GERMAN) is None


def test_a_bundle_without_languages_abstains_on_none(bundle: Path) -> None:
    """Whoever trained it did not say which languages it reads."""
    assert reason(Classifier.load(bundle), GERMAN) is None


def test_names_of_emoji_are_no_english_words(english: Path) -> None:
    """The text is looked at before emoji get their names."""
    assert reason(Classifier.load(english), f"😍😂👍🏽🙏 {GERMAN} 😍") == "UNSUPPORTED_LANGUAGE"


def test_server_and_score_give_the_same_reason(english: Path, tmp_path: Path) -> None:
    """Through gRPC, in files scored here, and in files scored by a server."""
    (tmp_path / "in.csv").write_text(f'text\ngood\n"{GERMAN}"\n""\n')
    with live_server(Serve(bundle=english, port=0, metrics_port=0, threads=1)) as serving:
        with Client(serving.address) as client:
            good, german = client.classify(["good", GERMAN])
            assert client.model().languages == ("en",)
        remote = ServerScorer(serving.address)
        job(tmp_path / "in.csv", tmp_path / "remote.csv").run(remote)
        remote.close()
    job(tmp_path / "in.csv", tmp_path / "local.csv").run(LocalScorer(Classifier.load(english)))

    assert isinstance(good, Prediction)
    assert isinstance(german, Prediction)
    assert (good.abstain_reason, german.abstain_reason) == (None, "UNSUPPORTED_LANGUAGE")
    rows = (tmp_path / "local.csv").read_text().splitlines()
    assert [row.split(",")[-3:] for row in rows[1:]] == [
        ["false", "", ""],
        ["true", "UNSUPPORTED_LANGUAGE", ""],
        ["", "", "EMPTY_TEXT"],
    ]
    assert (tmp_path / "remote.csv").read_bytes() == (tmp_path / "local.csv").read_bytes()


def test_a_bundle_is_made_for_english_when_its_training_texts_are() -> None:
    """Of other texts, and of words that are no sentences, nothing is claimed."""
    english = ["The battery died in a week.", "It is as good as they say it is.", "Great!"]

    assert languages_of(english * 40) == ("en",)
    assert languages_of([GERMAN] * 40) == ()
    assert languages_of([GERMAN, english[0]]) == ()
    assert languages_of(["good bad battery fine good", "ok"]) == ()
    assert languages_of([]) == ()


def test_a_server_may_turn_the_detection_off(english: Path) -> None:
    """`serve --no-detect-language` answers as a model of unknown languages."""
    config = Serve(bundle=english, port=0, metrics_port=0, threads=1, detect_language=False)
    with live_server(config) as serving, Client(serving.address) as client:
        (found,) = client.classify([GERMAN])

    assert isinstance(found, Prediction)
    assert found.abstain_reason is None
