"""Rows drawn from a file as it came in."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from sentimill.errors import TableError
from sentimill_train.data.schema import Columns
from sentimill_train.monitoring.recent_rows import draw_rows


def write(path: Path, rows: int) -> str:
    """Write *rows* texts with an identity each."""
    lines = [json.dumps({"text": f"text {i}", "order": i, "note": None}) for i in range(rows)]
    path.write_text("\n".join(lines))
    return str(path)


def test_a_small_file_is_taken_whole_and_in_order(tmp_path: Path) -> None:
    """With every column where it is asked for, and the text alone where it is not."""
    source = write(tmp_path / "r.jsonl", 5)

    whole = draw_rows(source, columns=Columns(), most=10, seed=0, whole=True)
    texts = draw_rows(source, columns=Columns(), most=10, seed=0)

    assert [row["order"] for row in whole.rows] == [0, 1, 2, 3, 4]
    assert (whole.rows_in_file, whole.texts) == (5, [f"text {i}" for i in range(5)])
    assert texts.rows[0] == {"text": "text 0"}


def test_a_large_file_gives_every_row_the_same_chance(tmp_path: Path) -> None:
    """In the file's order, and the same rows for the same seed."""
    source = write(tmp_path / "r.jsonl", 10)

    drawn = [draw_rows(source, columns=Columns(), most=3, seed=seed) for seed in range(60)]

    assert draw_rows(source, columns=Columns(), most=3, seed=5) == drawn[5]
    assert all(len(each.rows) == 3 and each.rows_in_file == 10 for each in drawn)
    assert all(each.texts == sorted(each.texts) for each in drawn)
    counts = Counter(text for each in drawn for text in each.texts)
    assert len(counts) == 10
    assert max(counts.values()) < 40  # 18 each is expected; the first rows are not preferred


def test_a_missing_text_is_an_empty_one(tmp_path: Path) -> None:
    """It is for the reader of the texts to leave it out."""
    (tmp_path / "r.jsonl").write_text('{"text": null}\n{"text": "a"}\n')

    assert draw_rows(str(tmp_path / "r.jsonl"), columns=Columns(), most=5, seed=0).texts == [
        "",
        "a",
    ]


@pytest.mark.parametrize(
    ("content", "reason"),
    [('{"body": "a"}', "MISSING_COLUMN"), ('{"text": 7}', "BAD_TEXT"), ("", "EMPTY_FILE")],
)
def test_a_file_that_cannot_be_used_says_why(tmp_path: Path, content: str, reason: str) -> None:
    """As an error that names the file."""
    path = tmp_path / "r.jsonl"
    path.write_text(content)

    with pytest.raises(TableError, match=r"r\.jsonl") as caught:
        draw_rows(str(path), columns=Columns(), most=5, seed=0)

    assert caught.value.reason == reason
