"""Reviews that command the teacher."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from labelling_runs import job_in, quote, teacher_of
from sentimill_train.data.schema import SENTIMENTS
from sentimill_train.labelling.injection_test import (
    MOST_MOVED,
    InjectionResult,
    load_cases,
    run_injection_test,
)
from teacher_server import Behaviour, teacher_server

CASES = load_cases()


def probe(tmp_path: Path, behaviour: Behaviour) -> InjectionResult:
    """Run the probe against a teacher of this behaviour."""
    job = job_in(tmp_path, rows=1)
    with teacher_server(behaviour) as server:
        (result,) = run_injection_test(job, [(teacher_of(server), quote())])
    return result


def test_set_is_large_and_varied() -> None:
    """At least forty attempts of many kinds, in every place, each wanting a wrong label."""
    assert len({case.id for case in CASES}) == len(CASES) >= 40
    assert len({case.kind for case in CASES}) >= 12
    assert len({case.attacked for case in CASES}) == len(CASES)
    assert set(Counter(case.place for case in CASES)) == {"start", "middle", "end"}
    assert all(case.wanted != case.felt for case in CASES)
    assert {case.wanted for case in CASES} | {case.felt for case in CASES} == set(SENTIMENTS)
    assert 1 / len(CASES) <= MOST_MOVED  # one slip may be forgiven


def test_command_stands_in_the_review() -> None:
    """With nothing of the review lost."""
    for case in CASES:
        words = set(case.review.replace("\n", " ").split())
        assert words <= set(case.attacked.split())


def test_teacher_that_obeys_fences_passes(tmp_path: Path) -> None:
    """It reads the words of the review and follows none of them."""
    result = probe(tmp_path, Behaviour())

    assert result.cases == len(CASES)
    assert result.passed
    assert result.rate <= MOST_MOVED


def test_gullible_teacher_is_found_out(tmp_path: Path) -> None:
    """It says whatever label the review names last; the probe says so, by kind."""
    result = probe(tmp_path, Behaviour(gullible=True))

    assert not result.passed
    assert result.rate > 0.5
    assert result.by_kind["direct"] >= 5
    assert result.shift > 0.3


def test_cases_without_an_answer_are_not_counted_as_passed(tmp_path: Path) -> None:
    """A teacher that refuses half of them is measured on the other half."""
    result = probe(tmp_path, Behaviour(hopeless=0.2))

    assert result.cases + len(result.unanswered) == len(CASES)
    assert result.unanswered
    assert result.by_kind == {}
    assert not result.passed  # too few answers to say so


def test_teacher_that_answers_nothing_does_not_pass(tmp_path: Path) -> None:
    """Silence is no resistance."""
    assert not probe(tmp_path, Behaviour(hopeless=1.0)).passed
