"""The benchmark of teachers: each arm sees its own kind of label, and seeds are averaged."""

from __future__ import annotations

import pytest

from benchmarks.training.teachers import FIGURES, TESTS, summary, taught
from sentimill_train.data.schema import Example

ROW = Example(id="a", text="good", label="positive", probs=(0.1, 0.2, 0.7), source="made")


@pytest.mark.parametrize(
    ("arm", "label", "probs"),
    [
        ("shares", "positive", ROW.probs),
        ("labels", "positive", None),
        ("stars", "neutral", None),
        ("mixed", "neutral", ROW.probs),
    ],
)
def test_an_arm_sees_its_own_labels(arm: str, label: str, probs: tuple[float, ...] | None) -> None:
    """The rows and their texts are the same in all."""
    (row,) = taught(arm, [ROW], {"a": "neutral"})

    assert (row.id, row.text, row.label, row.probs) == ("a", "good", label, probs)


def test_the_table_has_a_row_for_each_test_and_arm() -> None:
    """Means and spreads are over seeds."""

    def run(arm: str, value: float) -> dict[str, object]:
        return {"arm": arm, **{of: dict.fromkeys(FIGURES, value) for of in TESTS}}

    runs = {"a": run("shares", 0.5), "b": run("shares", 0.7), "c": run("stars", 0.6)}

    table = summary(runs)

    assert [(line["judged_by"], line["arm"], line["runs"]) for line in table] == [
        (of, arm, runs) for of in TESTS for arm, runs in (("shares", 2), ("stars", 1))
    ]
    assert table[0]["accuracy"] == pytest.approx(0.6)
    assert table[0]["accuracy_sd"] == pytest.approx(0.1414, abs=1e-4)
    assert table[1]["accuracy_sd"] is None
