"""Ratios with intervals, what counts as right, the cascade's curve, and an endpoint."""

from __future__ import annotations

import json
import math
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import msgspec
import numpy as np
import pytest

from benchmarks.proof.cascade import THRESHOLDS, curve
from benchmarks.proof.endpoint import Endpoint
from benchmarks.proof.judging import judge, retained, two_class
from benchmarks.proof.prompts import LABELS, PROMPTS
from benchmarks.proof.race import race, ratio_of
from benchmarks.proof.record import Speed
from benchmarks.proof.scaling import billion_a_day
from sentimill_train.metrics.classification import Answers


def speed(name: str, seconds: tuple[float, ...]) -> Speed:
    """Return a contestant that did 100 reviews a round."""
    return Speed(
        name=name,
        kind="student",
        path="engine",
        precision="fp32",
        reviews=100,
        tokens=1000,
        seconds=seconds,
    )


def answers(gold: list[int], probs: list[list[float]]) -> Answers:
    """Return what a model said."""
    return Answers(LABELS, np.array(gold), np.array(probs))


def test_contestants_take_turns_after_a_warm_up() -> None:
    """Each runs once unmeasured, then all run once a round in the same order."""
    order: list[str] = []
    seconds = race({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=3)
    assert order == ["a", "b"] * 4
    assert [len(times) for times in seconds.values()] == [3, 3]


def test_a_ratio_is_taken_round_against_round() -> None:
    """A machine that halves its speed for both in one round does not move the ratio."""
    student = speed("student", (1.0, 2.0, 1.0, 1.0))
    large = speed("large", (10.0, 20.0, 10.0, 10.0))
    found = ratio_of(student, large)
    assert (found.value, found.low, found.high) == pytest.approx((10, 10, 10))
    assert found.repeats
    assert ratio_of(student, large, factor=16).value == pytest.approx(160)


def test_a_ratio_that_drifts_says_that_it_does_not_repeat() -> None:
    """The second half of the rounds is a fifth slower: no repetition within 10 %."""
    found = ratio_of(speed("s", (1.0, 1.0, 1.0, 1.0)), speed("l", (10.0, 10.0, 12.0, 12.0)))
    assert not found.repeats
    assert found.low < found.value < found.high


def test_two_classes_leave_neutral_out_of_rows_and_columns() -> None:
    """A row that leans to neutral still says which of the two poles is likelier."""
    found = answers([0, 0, 1], [[0.3, 0.6, 0.1], [0.1, 0.6, 0.3], [0.1, 0.8, 0.1]])
    assert two_class(found).tolist() == [True, False]
    assert found.correct.tolist() == [False, False, True]
    assert [(row.classes, row.accuracy.rows) for row in judge("m", "d", found)] == [(2, 2), (3, 3)]


def test_what_is_retained_is_one_accuracy_over_the_other() -> None:
    """The student gets three of four, the teacher all; neutral rows do not count."""
    right, wrong = [0.1, 0.1, 0.8], [0.8, 0.1, 0.1]
    student = answers([2, 2, 2, 2, 1], [right, right, right, wrong, wrong])
    found = retained(student, answers([2, 2, 2, 2, 1], [right] * 5))
    assert (found.value, found.rows) == (0.75, 4)
    assert found.low < 0.75 < found.high


def test_the_curve_runs_from_the_student_alone_to_the_large_model_alone() -> None:
    """At 0 nothing is handed over; above 1 everything is, at both prices together."""
    student = answers([2, 0] * 20, [[0.05, 0.05, 0.9], [0.2, 0.25, 0.55]] * 20)
    teacher = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]] * 20)
    points = curve(student, teacher, student_usd=1e-6, large_usd=1e-3)
    first, last = points[0], points[-1]
    assert (first.handed_over, first.accuracy.value) == (0, 0.5)
    assert (last.handed_over, last.accuracy.value) == (1, 1)
    assert last.usd_million == pytest.approx(1 + 1000)
    (best,) = (point for point in points if point.best)
    assert (best.accuracy.value, best.handed_over) == (1, 0.5)
    assert len(points) == len(THRESHOLDS)


def test_records_read_back_as_they_were_written() -> None:
    """JSON keeps every raw sample."""
    one = speed("a", (0.1, 0.2, 0.30000001))
    assert msgspec.json.decode(msgspec.json.encode(one), type=Speed) == one


def test_a_billion_a_day_takes_whole_machines() -> None:
    """11,574 reviews a second by machines that keep half of 100: 232 of them, at $24 a day each."""
    points = billion_a_day(100, 1.0, utilisation=0.5, bytes_a_review=500)
    found = {point.axis: point.value for point in points}
    assert found["machines"] == 232
    assert found["US dollars a day"] == 232 * 24
    assert all(point.note for point in points)


class Chat(BaseHTTPRequestHandler):
    """An endpoint that says `pos` with 60 %, ` Negative` with 20 %, and something else."""

    def do_POST(self) -> None:
        """Answer, if the question is one token with its probabilities."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert (asked["max_tokens"], asked["logprobs"]) == (1, True)
        shares = {"pos": 0.6, " Negative": 0.2, "the": 0.2}
        top = [{"token": token, "logprob": math.log(p)} for token, p in shares.items()]
        body = json.dumps({"choices": [{"logprobs": {"content": [{"top_logprobs": top}]}}]})
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def test_an_endpoint_is_asked_for_one_token_and_its_shares_are_renormalised() -> None:
    """Tokens that begin a label count for it, the rest is left out."""
    with HTTPServer(("127.0.0.1", 0), Chat) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/v1"
        endpoint = Endpoint(url=url, model="m", prompt=PROMPTS["zero-shot"], callers=2)
        found = endpoint.classify(["a", "b"])
        server.shutdown()
        thread.join()
    np.testing.assert_allclose(found, [[0.25, 0, 0.75]] * 2)
