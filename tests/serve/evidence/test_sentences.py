"""Which sentence says so: the same answer, sentences with their places, on every way to ask."""

from __future__ import annotations

import csv
import json
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from cli_in_process import Sentimill
from live_server import live_server, live_service
from raw_calls import refusal, request_of
from sentimill import AsyncClient, Classifier, Client, Prediction, Security, TextError
from sentimill.cli.classify import Table
from sentimill.errors import QuotaError, UsageError
from sentimill.evidence.sentences import (
    MAX_CHARACTERS,
    MAX_SENTENCES,
    Explanation,
    sentence_spans,
)
from sentimill.server.access.auth import TokenAuth, new_token
from sentimill.server.settings import Serve
from sentimill.types import Sentence
from tiny_bundle import LABELS

MIXED = "  The battery is good.  The the is bad! It is fine.\n"
TEXTS = [MIXED, "good", "", "bad battery. good the. good fine."]


@pytest.fixture(scope="module")
def classifier(bundle: Path) -> Classifier:
    """Return the tiny bundle, loaded."""
    return Classifier.load(bundle, threads=1)


def sentences(answer: object) -> tuple[Sentence, ...]:
    """Return the sentences of an answer."""
    assert isinstance(answer, Prediction)
    return answer.sentences


def test_a_sentence_has_its_place_and_its_answer(classifier: Classifier) -> None:
    """Offsets are into the text as it came, blanks included."""
    found = sentences(classifier.classify([MIXED], explain=True)[0])

    assert [MIXED[one.start : one.end] for one in found] == [
        "The battery is good.",
        "The the is bad!",
        "It is fine.",
    ]
    assert [one.label for one in found] == ["positive", "negative", "neutral"]
    assert found[0].probs["positive"] == max(found[0].probs)


def test_the_change_is_what_the_text_loses(classifier: Classifier) -> None:
    """The score of the text minus the score of the text without the sentence."""
    whole, rest = classifier.classify([MIXED, "The the is bad! It is fine."])
    found = sentences(classifier.classify([MIXED], explain=True)[0])

    assert isinstance(whole, Prediction)
    assert isinstance(rest, Prediction)
    assert whole.score is not None
    assert rest.score is not None
    assert found[0].change == pytest.approx(whole.score - rest.score, abs=1e-6)
    assert found[1].change is not None
    assert found[1].change < 0 < (found[0].change or 0.0)


def test_explaining_changes_no_answer(classifier: Classifier) -> None:
    """Bits of labels, probs and errors stay, whatever is asked beside them."""
    plain = classifier.classify(TEXTS)
    explained = classifier.classify(TEXTS, explain=True)

    assert [one.probs for one in plain if isinstance(one, Prediction)] == [
        one.probs for one in explained if isinstance(one, Prediction)
    ]
    assert isinstance(explained[2], TextError)
    assert explained[2].position == 2
    assert len(explained) == len(TEXTS)


def test_neighbours_in_the_batch_change_no_sentence(classifier: Classifier) -> None:
    """A text alone gets the same sentences to the bit."""
    together = classifier.classify(TEXTS, explain=True)

    assert classifier.classify([TEXTS[3]], explain=True)[0] == together[3]


def test_one_sentence_is_the_whole_answer(classifier: Classifier) -> None:
    """Without it nothing is left, so there is no change to tell."""
    (only,) = sentences(classifier.classify(["good battery"], explain=True)[0])

    assert (only.start, only.end, only.label, only.change) == (0, 12, "positive", None)


def test_many_sentences_are_taken_together() -> None:
    """At most 32 parts, in order, which cover the text; a very long text has none."""
    text = " ".join(f"This is sentence {k} of many." for k in range(100))

    spans = sentence_spans(text)

    assert len(spans) == MAX_SENTENCES
    assert (spans[0][0], spans[-1][1]) == (0, len(text))
    assert all(a[1] < b[0] for a, b in pairwise(spans))
    assert sentence_spans("Fine. " * MAX_CHARACTERS) == []


def test_other_labels_have_the_change_of_their_own_label() -> None:
    """Where labels are no sentiments, there is no score."""
    explanation = Explanation(["Good food here. The place is far."])
    assert len(list(explanation)) == 5
    probs = [[0.7, 0.3], [0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.8, 0.2]]

    (found,) = explanation.sentences(probs, ("food", "place"))

    assert [one.label for one in found] == ["food", "place"]
    assert [one.change for one in found] == pytest.approx([0.3, -0.1])


def test_a_missing_package_is_named(
    classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what installs it."""
    monkeypatch.setitem(sys.modules, "nupunkt", None)

    with pytest.raises(UsageError, match=r"nupunkt.*pip install 'sentimill\[evidence\]'"):
        classifier.classify(["good"], explain=True)


def test_a_server_explains_as_a_classifier_does(bundle: Path, classifier: Classifier) -> None:
    """To clients of both kinds; places, labels, probs and changes."""
    expected = classifier.classify(TEXTS, explain=True)

    with (
        live_server(Serve(bundle=bundle, port=0, metrics_port=0, threads=1)) as serving,
        Client(serving.address) as client,
    ):
        found = client.classify(TEXTS, explain=True)
        plain = client.classify(TEXTS)

    for ours, theirs in zip(expected, found, strict=True):
        if isinstance(ours, TextError):
            assert isinstance(theirs, TextError)
            continue
        for one, other in zip(sentences(ours), sentences(theirs), strict=True):
            assert (one.start, one.end, one.label) == (other.start, other.end, other.label)
            assert other.probs == pytest.approx(one.probs, abs=1e-6)
            assert other.probs.labels == LABELS
            assert other.change == (one.change and pytest.approx(one.change, abs=1e-6))
    assert sentences(plain[0]) == ()


async def test_the_server_counts_answers_and_not_sentences(bundle: Path) -> None:
    """The metrics are of texts; the tokens of all parts go through admission."""
    async with live_service(bundle) as live, AsyncClient(live.address) as client:
        await client.classify([MIXED], explain=True)

        outcomes = [live.value("sentimill_texts_total", outcome=one) or 0.0 for one in LABELS]

    assert sum(outcomes) == 1


async def test_sentences_count_in_the_quota(bundle: Path, tmp_path: Path) -> None:
    """An explained text is several texts of work, and the next request waits for them."""
    token, line = new_token("shop", 0.2)  # two texts at once
    (tmp_path / "tokens").write_text(line + "\n")
    security = Security(tls=False, token=token)
    async with (
        live_service(bundle, auth=TokenAuth(tmp_path / "tokens")) as live,
        AsyncClient(live.address, security=security) as client,
    ):
        await client.classify([MIXED], explain=True)
        with pytest.raises(QuotaError) as refused:
            await client.classify(["good"])

    assert refused.value.reason == "QUOTA_EXCEEDED"


async def test_a_request_of_many_texts_is_not_explained(bundle: Path) -> None:
    """A sixteenth of the texts that a plain request may have; our client sends fewer."""
    async with live_service(bundle) as live:
        message = request_of(*["good"] * 65)
        message.explain = True
        error = await refusal(live, message)
        async with AsyncClient(live.address) as client:
            found = await client.classify([MIXED] * 40, explain=True)

    assert "65 texts, the limit is 1 to 64" in str(error.details())
    assert {len(sentences(one)) for one in found} == {3}


def test_the_command_prints_sentences_as_json(sentimill: Sentimill, bundle: Path) -> None:
    """Where no terminal can show colours; a text without an answer has none."""
    found = sentimill("classify", MIXED, "", "--explain", "--bundle", bundle)
    mixed, empty = [json.loads(line) for line in found.out.splitlines()]

    assert [one["label"] for one in mixed["sentences"]] == ["positive", "negative", "neutral"]
    assert empty["error"] == "EMPTY_TEXT"


def test_a_terminal_shows_sentences_in_colours(bundle: Path, classifier: Classifier) -> None:
    """Green for what is good and red for what is bad, with the change."""
    lines = list(Table().lines([MIXED], classifier.classify([MIXED], explain=True)))

    assert len(lines) == 5
    assert lines[2].startswith("\x1b[32m    +0.")
    assert lines[3].startswith("\x1b[31m    -0.")
    assert "The the is bad!" in lines[3]


def test_a_table_gets_a_column_of_sentences(
    sentimill: Sentimill, bundle: Path, tmp_path: Path
) -> None:
    """From a bundle and from a server alike; a row without an answer has an empty cell."""
    (tmp_path / "in.jsonl").write_text(
        "".join(json.dumps({"text": text}) + "\n" for text in TEXTS), encoding="utf-8"
    )
    options = ("--explain-column", "--bundle", bundle)
    sentimill("score", tmp_path / "in.jsonl", tmp_path / "out.jsonl", *options)
    with live_server(Serve(bundle=bundle, port=0, metrics_port=0, threads=1)) as serving:
        served = ("--explain-column", "--server", serving.address)
        sentimill("score", tmp_path / "in.jsonl", tmp_path / "served.jsonl", *served)

    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]

    cells = [row["sentiment_sentences"] for row in rows]
    mixed = json.loads(cells[0])
    assert [MIXED[one["start"] : one["end"]] for one in mixed][1] == "The the is bad!"
    assert [one["label"] for one in mixed] == ["positive", "negative", "neutral"]
    assert mixed[1]["change"] < 0
    assert cells[2] is None
    assert (tmp_path / "served.jsonl").read_bytes() == (tmp_path / "out.jsonl").read_bytes()


def test_a_csv_quotes_its_sentences(sentimill: Sentimill, bundle: Path, tmp_path: Path) -> None:
    """JSON has commas and quotes; the rows that have answers are kept as they are the next time."""
    (tmp_path / "in.csv").write_text('text\nIt is good. It is bad!\n""\ngood\n')
    options = ("--explain-column", "--bundle", bundle)
    sentimill("score", tmp_path / "in.csv", tmp_path / "out.csv", *options)
    again = ("--where-missing", *options)
    sentimill("score", tmp_path / "out.csv", tmp_path / "again.csv", *again)

    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))

    assert [len(json.loads(row["sentiment_sentences"] or "[]")) for row in rows] == [2, 0, 1]
    assert all(None not in row for row in rows)  # no more cells than columns
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "out.csv").read_bytes()
