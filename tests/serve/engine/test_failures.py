"""A failed engine call: its error, its log, and the search for the text to blame."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from sentimill.engine import failures
from sentimill.engine.failures import FAILED, call_engine, run_or_split
from sentimill.errors import EngineError


class Engine:
    """Gives each row its own number, and fails on batches with a bad one."""

    def __init__(self, bad: Sequence[int] = (), *, broken: bool = False) -> None:
        self.bad = set(bad)
        self.broken = broken
        self.calls = 0

    def run(self, rows: Sequence[NDArray[np.int64]]) -> NDArray[np.float32]:
        """Return (rows, 1)."""
        self.calls += 1
        found = [int(row[0]) for row in rows]
        if self.broken or self.bad & set(found):
            raise EngineError("bad", reason="ENGINE_FAILED")
        return np.array(found, dtype=np.float32).reshape(-1, 1)


def rows_of(count: int) -> list[NDArray[np.int64]]:
    """Return *count* rows of one token, their number."""
    return [np.array([i]) for i in range(count)]


@given(st.integers(1, 40).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1)))))
def test_each_good_row_has_its_answer(case: tuple[int, set[int]]) -> None:
    """Only the bad rows have an error, unless they are so many that the engine seems broken."""
    count, bad = case
    engine = Engine([*bad])

    logits, errors = run_or_split(engine.run, rows_of(count))

    if logits is None:
        assert len(bad) > math.log2(count)
        assert errors.keys() == set(range(count))
        return
    assert errors.keys() == bad
    assert [int(logits[i, 0]) for i in range(count) if i not in bad] == sorted(
        set(range(count)) - bad
    )
    assert np.isnan(logits[sorted(bad)]).all()


@pytest.mark.parametrize("count", [1, 2, 3, 31, 256, 1000])
def test_a_broken_engine_costs_few_calls(count: int) -> None:
    """Once it fails on everything down to a single row, nothing else is tried."""
    engine = Engine(broken=True)

    logits, errors = run_or_split(engine.run, rows_of(count))

    assert logits is None
    assert errors.keys() == set(range(count))
    assert engine.calls <= 2 * math.ceil(math.log2(count)) + 1 if count > 1 else 1


def test_what_works_at_once_is_one_call() -> None:
    """And its logits are handed on as they are."""
    engine = Engine()
    given_rows = rows_of(5)

    logits, errors = run_or_split(engine.run, given_rows)

    assert (engine.calls, errors) == (1, {})
    assert logits is not None
    assert logits.ravel().tolist() == [0, 1, 2, 3, 4]


def test_an_error_keeps_nothing_of_its_batch() -> None:
    """A traceback holds frames, and the frames hold the texts."""
    _, errors = run_or_split(Engine([1]).run, rows_of(3))

    assert errors[1].__traceback__ is None
    assert errors[1].__cause__ is None
    assert (str(errors[1]), errors[1].reason) == ("bad", "ENGINE_FAILED")


def test_the_log_is_bounded(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broken engine fails for thousands of batches a second; the log says it once a second."""
    monkeypatch.setattr(failures, "_LOG_EVERY_S", 60.0)

    def broken() -> NDArray[np.float32]:
        raise RuntimeError("out of luck")

    def run(rows: Sequence[NDArray[np.int64]]) -> NDArray[np.float32]:
        return call_engine("Fake Runtime", broken)

    with caplog.at_level(logging.ERROR):
        for _ in range(50):
            run_or_split(run, rows_of(30))

    mine = [r for r in caplog.records if r.name == failures.__name__]
    assert len(mine) <= 2  # the library's message, and where it came from
    assert FAILED not in "".join(r.getMessage() for r in mine)


def test_callers_do_not_see_what_the_library_says(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes into the log."""
    monkeypatch.setattr(failures, "_LOG_EVERY_S", 0.0)

    def broken() -> NDArray[np.float32]:
        raise RuntimeError("node 17 of /srv/model")

    with pytest.raises(EngineError) as caught, caplog.at_level(logging.ERROR):
        call_engine("Fake Runtime", broken)

    assert (str(caught.value), caught.value.reason) == (FAILED, "ENGINE_FAILED")
    assert "Fake Runtime failed: node 17 of /srv/model" in caplog.text
