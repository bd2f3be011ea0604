"""Where the outputs of several inputs go."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sentimill.errors import UsageError
from sentimill.scoring.planning import plan


@pytest.mark.parametrize(
    ("sources", "targets"),
    [
        (["a.csv"], ["a.csv"]),
        (["../a.csv"], ["a.csv"]),
        (["a.csv", "b.csv"], ["a.csv", "b.csv"]),
        (["a.csv", "sub/a.csv"], ["a.csv", "sub/a.csv"]),
        (["./sub/a.csv", "sub/b.csv"], ["a.csv", "b.csv"]),
        (["../a.csv", "b.csv"], ["a.csv", "here/b.csv"]),
        (["{top}/x/a.csv", "sub/b.csv"], ["x/a.csv", "here/sub/b.csv"]),
        (["file://{top}/here/a.csv", "sub/b.csv"], ["a.csv", "sub/b.csv"]),
        (["sub/../../x/a.csv", "b.csv"], ["x/a.csv", "here/b.csv"]),
        (["memory://d/a.csv", "memory://d/e/a.csv"], ["a.csv", "e/a.csv"]),
        (["memory://d/a.csv", "memory://e/a.csv"], ["d/a.csv", "e/a.csv"]),
    ],
)
def test_outputs_stay_below_the_output_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sources: list[str], targets: list[str]
) -> None:
    """Under the paths that the inputs have below their common folder, however they are written."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    units = plan([source.format(top=tmp_path) for source in sources], "out/")

    assert [unit.target for unit in units] == [os.path.join("out", name) for name in targets]


@pytest.mark.parametrize(
    "sources",
    [
        ["a.csv", "memory://d/a.csv"],
        ["file:///x/a.csv", "memory://d/a.csv"],
        ["memory://d/a.csv", "memory://d/e/../../../a.csv"],
    ],
)
def test_inputs_without_a_common_folder_are_refused(sources: list[str]) -> None:
    """Their outputs would be outside of the output folder."""
    with pytest.raises(UsageError, match="score it in a job of its own") as caught:
        plan(sources, "out/")

    assert caught.value.reason == "BAD_INPUTS"


def test_two_spellings_of_an_input_are_refused() -> None:
    """Both have the same output."""
    with pytest.raises(UsageError, match=r"would both become out/a\.csv"):
        plan(["a.csv", "./a.csv"], "out/")
