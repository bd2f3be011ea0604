"""The cascade's hook: who is asked, what it may cost, and what happens when it fails."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from live_server import live_server
from sentimill import AsyncClient, Client
from sentimill.client.fallback import Ask, Fallback
from sentimill.errors import TextError, UsageError
from sentimill.server.settings import Serve
from sentimill.types import Prediction, Probs, Result


def improved(fallback: Fallback, texts: Sequence[str], *results: Result) -> list[Prediction]:
    """Return what a client would give back, where no text has an error."""
    found = fallback.improve(texts, results)
    return [answer for answer in found if isinstance(answer, Prediction)]


def student(confidence: float) -> Prediction:
    """Return a student's answer of that confidence."""
    rest = (1 - confidence) / 2
    return Prediction(
        label="positive",
        probs=Probs((rest, rest, confidence)),
        score=confidence - rest,
        confidence=confidence,
        abstained=confidence < 0.6,
        truncated=False,
        tokens=5,
    )


class Large:
    """A large model that says negative, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, texts: Sequence[str]) -> list[Sequence[float] | None]:
        """Answer."""
        self.asked += texts
        return [(0.9, 0.06, 0.04) for _ in texts]


def test_only_unsure_answers_are_replaced_and_marked() -> None:
    """A confident answer stays the student's; an unsure one becomes the large model's."""
    large = Large()
    found = improved(Fallback(large, below=0.8), ["sure", "unsure"], student(0.9), student(0.7))
    assert large.asked == ["unsure"]
    assert [answer.answered_by for answer in found] == ["student", "large"]
    assert found[1].label == "negative"
    assert found[1].score == pytest.approx(-0.86)
    assert found[1].confidence == pytest.approx(0.9)


def test_without_a_threshold_it_asks_where_the_model_abstained() -> None:
    """The bundle's own threshold decides."""
    large = Large()
    found = improved(Fallback(large), ["a", "b"], student(0.59), student(0.61))
    assert large.asked == ["a"]
    assert not found[0].abstained


def test_the_budget_goes_to_the_least_confident_and_is_never_passed() -> None:
    """Of three unsure texts a budget for two buys the two least sure; then nothing is asked."""
    large = Large()
    fallback = Fallback(large, below=0.9, usd_each=0.4, budget_usd=1.0)
    found = improved(fallback, ["a", "b", "c"], student(0.8), student(0.5), student(0.6))
    assert large.asked == ["b", "c"]
    assert found[0].answered_by == "student"
    assert fallback.spent_usd == pytest.approx(0.8)
    fallback.improve(["d"], [student(0.4)])
    assert large.asked == ["b", "c"]


def test_a_budget_holds_under_many_threads() -> None:
    """Forty threads share a budget for ten texts."""
    large = Large()
    fallback = Fallback(large, below=0.9, usd_each=0.1, budget_usd=1.0, callers=40)
    threads = [
        threading.Thread(target=fallback.improve, args=(["a"], [student(0.5)])) for _ in range(40)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(large.asked) == 10
    assert fallback.spent_usd == pytest.approx(1.0)


def test_a_late_answer_leaves_the_students() -> None:
    """The call returns after the timeout, and what was sent counts as spent."""
    release = threading.Event()

    def slow(texts: Sequence[str]) -> list[Sequence[float] | None]:
        release.wait()
        return [(1.0, 0.0, 0.0) for _ in texts]

    fallback = Fallback(slow, below=0.9, timeout_seconds=0.05, usd_each=0.1)
    found = fallback.improve(["a"], [student(0.5)])
    release.set()
    assert found == [student(0.5)]
    assert fallback.spent_usd == pytest.approx(0.1)


def fails(texts: Sequence[str]) -> list[Sequence[float] | None]:
    """Fail as a provider does."""
    raise ConnectionError(f"{len(texts)} texts")


@pytest.mark.parametrize(
    "ask",
    [
        fails,
        lambda texts: [],
        lambda texts: [None for _ in texts],
        lambda texts: [(0.5, 0.5) for _ in texts],
        lambda texts: [(0.5, 0.5, 0.5) for _ in texts],
        lambda texts: [(float("nan"), 0.5, 0.5) for _ in texts],
        lambda texts: None,
        lambda texts: ["often" for _ in texts],
    ],
    ids=["raises", "too few", "none", "two labels", "sum", "nan", "no list", "words"],
)
def test_a_failing_or_odd_large_model_changes_nothing(ask: Ask) -> None:
    """Whatever the hook does, a call that succeeded stays a success with the student's answers."""
    assert Fallback(ask, below=0.9).improve(["a"], [student(0.5)]) == [student(0.5)]


def test_what_was_never_sent_costs_nothing() -> None:
    """While the only caller is busy, a second text waits in vain, and its money comes back."""
    release, busy = threading.Event(), threading.Event()

    def slow(texts: Sequence[str]) -> list[Sequence[float] | None]:
        busy.set()
        release.wait()
        return [(1.0, 0.0, 0.0) for _ in texts]

    fallback = Fallback(slow, below=0.9, timeout_seconds=0.05, usd_each=0.1, callers=1)
    first = threading.Thread(target=fallback.improve, args=(["a"], [student(0.5)]))
    first.start()
    busy.wait()
    fallback.improve(["b"], [student(0.5)])
    release.set()
    first.join()
    fallback.close()
    assert fallback.asked == 1
    assert fallback.spent_usd == pytest.approx(0.1)


def test_a_closed_fallback_leaves_the_students() -> None:
    """Nothing is raised, and nothing is spent."""
    large = Large()
    fallback = Fallback(large, below=0.9, usd_each=0.1)
    fallback.close()
    assert fallback.improve(["a"], [student(0.5)]) == [student(0.5)]
    assert (large.asked, fallback.spent_usd) == ([], 0.0)


def test_closing_while_a_call_waits_for_a_thread_leaves_the_students() -> None:
    """The text that waits is never sent: its call does not fail, and its money comes back."""
    release, busy = threading.Event(), threading.Event()

    def slow(texts: Sequence[str]) -> list[Sequence[float] | None]:
        busy.set()
        release.wait()
        return [(0.9, 0.06, 0.04) for _ in texts]

    fallback = Fallback(slow, below=0.9, timeout_seconds=60, usd_each=0.1, callers=1)
    with ThreadPoolExecutor(2) as pool:
        sent = pool.submit(fallback.improve, ["a"], [student(0.5)])
        busy.wait()
        waits = pool.submit(fallback.improve, ["b"], [student(0.5)])
        while fallback._pool._work_queue.empty():
            time.sleep(0.001)
        fallback.close()
        release.set()
        found = waits.result()
        (large,) = sent.result()

    assert found == [student(0.5)]
    assert isinstance(large, Prediction)
    assert large.label == "negative"
    assert fallback.asked == 1
    assert fallback.spent_usd == pytest.approx(0.1)


def test_labels_that_are_not_the_models_are_refused_before_anything_is_spent() -> None:
    """Probs under the wrong names would be wrong answers."""
    labels = ("bad", "fair", "good")
    unsure = replace(student(0.5), label="good", probs=Probs((0.25, 0.25, 0.5), labels))
    large = Large()
    with pytest.raises(UsageError, match="the model's are bad, fair, good") as caught:
        Fallback(large, below=0.9).improve(["a"], [unsure])
    assert (caught.value.reason, large.asked) == ("FALLBACK_LABELS", [])


def test_the_answer_is_in_the_order_of_the_model() -> None:
    """The fallback may name the same labels in an order of its own."""
    order = ("positive", "neutral", "negative")
    unsure = replace(student(0.5), probs=Probs((0.25, 0.25, 0.5), order))
    (found,) = improved(Fallback(Large(), below=0.9), ["a"], unsure)
    assert tuple(found.probs) == (0.04, 0.06, 0.9)
    assert (found.probs["negative"], found.label, found.abstain_reason) == (0.9, "negative", None)


def test_labels_that_are_no_sentiments_get_no_score() -> None:
    """The hook works for any closed set of labels."""
    fallback = Fallback(lambda texts: [(0.2, 0.8)], below=0.9, labels=("bug", "praise"))
    (found,) = improved(fallback, ["a"], replace(student(0.5), score=None))
    assert (found.label, found.score) == ("praise", None)


def test_a_text_with_an_error_keeps_it() -> None:
    """Nothing is asked about a text that could not be classified."""
    error = TextError("empty", reason="EMPTY_TEXT")
    large = Large()
    found = Fallback(large, below=0.9).improve(["", "a"], [error, student(0.5)])
    assert found[0] is error
    assert large.asked == ["a"]


@pytest.mark.parametrize("options", [{"below": 1.5}, {"usd_each": -1.0}, {"timeout_seconds": 0.0}])
def test_settings_that_make_no_sense_are_refused(options: dict[str, float]) -> None:
    """A confidence above 1, a negative price and no time at all are usage errors."""
    with pytest.raises(UsageError):
        Fallback(Large(), **options)  # type: ignore[arg-type]  # one option at a time


def test_both_clients_mark_who_answered(bundle: Path) -> None:
    """Through a real server: the unsure text is the large model's, the sure one the student's."""
    texts = ["good good good", "the battery"]
    with live_server(Serve(bundle=bundle, port=0, metrics_port=0, threads=1)) as serving:
        with Client(serving.address, fallback=Fallback(Large(), below=0.8)) as client:
            found = client.classify(texts)

        async def ask() -> list[Result]:
            fallback = Fallback(Large(), below=0.8)
            async with AsyncClient(serving.address, fallback=fallback) as client:
                return await client.classify(texts)

        assert asyncio.run(ask()) == found
    by = [answer.answered_by for answer in found if isinstance(answer, Prediction)]
    assert by == ["student", "large"]
