"""JSON Lines in, the same bytes with keys appended out."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scoring_jobs import SMALL_WINDOW_BYTES, job, score
from sentimill.errors import TableError
from sentimill.scoring.formats.table import Layout
from sentimill.scoring.scorers import LocalScorer


def scored(
    folder: Path, scorer: LocalScorer, data: bytes, layout: Layout | None = None, **options: object
) -> list[dict[str, Any]]:
    """Score *data* and return the rows of the output."""
    layout = layout or Layout()
    files = {"source": "in.jsonl", "target": "out.jsonl"}
    _, out = score(folder, scorer, data, layout=layout, **files, **options)  # type: ignore[arg-type]  # options are checked by replace
    return [json.loads(line) for line in out.decode("utf-8-sig", "replace").splitlines() if line]


def test_answers_become_the_last_keys(tmp_path: Path, scorer: LocalScorer) -> None:
    """Everything before them keeps its bytes: order, spaces, numbers, nested values."""
    data = b'{"n": 1.50, "text": "good", "x": {"y": [1, {"z": null}]} }\r\n{"text":"bad"}'
    _, out = score(tmp_path, scorer, data, source="in.jsonl", target="out.jsonl")
    first, second = out.splitlines(keepends=True)

    assert first.startswith(b'{"n": 1.50, "text": "good", "x": {"y": [1, {"z": null}]} ,')
    assert first.endswith(b'"sentiment_error":null}\r\n')
    assert second.startswith(b'{"text":"bad","sentiment_label":"negative","sentiment_score":-0.80')
    assert second.endswith(b"}\n")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{}", "MISSING_TEXT"),
        (b"{ }", "MISSING_TEXT"),
        (b'{"text":null}', "MISSING_TEXT"),
        (b'{"text":NaN}', "MISSING_TEXT"),
        (b'{"text":3}', "NOT_TEXT"),
        (b'{"text":["good"]}', "NOT_TEXT"),
        (b'{"text":""}', "EMPTY_TEXT"),
        (b'{"text":"good\\ud800"}', "INVALID_UNICODE"),
        (b'{"text":"good\xff"}', "UNDECODABLE_ROW"),
        (b'["good"]', "NOT_AN_OBJECT"),
        (b"good", "NOT_AN_OBJECT"),
        (b'{"text":"good"', "NOT_AN_OBJECT"),
        (b'{"text":"good"} {"text":"good"}', "NOT_AN_OBJECT"),
        (b"\xff\xfe", "NOT_AN_OBJECT"),
        (b'{"text":"good","sentiment_label":"x"}', "COLUMN_COLLISION"),
    ],
)
def test_a_bad_row_costs_no_other_row(
    tmp_path: Path, scorer: LocalScorer, line: bytes, reason: str
) -> None:
    """It keeps its place and its bytes; what can take no keys comes back inside an object."""
    data = b'{"text":"good"}\n' + line + b'\n{"text":"bad"}\n'
    before, row, after = scored(tmp_path, scorer, data)

    assert (before["sentiment_label"], after["sentiment_label"]) == ("positive", "negative")
    assert (row["sentiment_label"], row["sentiment_error"]) == (None, reason)
    if "sentiment_source_base64" in row:
        assert base64.b64decode(row["sentiment_source_base64"]) == line
    elif reason in ("NOT_AN_OBJECT", "COLUMN_COLLISION"):
        assert row["sentiment_source"].encode() == line


@pytest.mark.parametrize(
    "line",
    [
        b'{"text":"good","x":NaN}',
        b'{"x":"\xff","text":"good"}',
        b'{"text":"bad","text":"good"}',
        b'{"text":"\\u0067ood","x":1e999}',
        b'{"text":"good","x":123456789012345678901234567890}',
    ],
)
def test_odd_json_is_answered(tmp_path: Path, scorer: LocalScorer, line: bytes) -> None:
    """What is not quite JSON elsewhere in a row is none of our business."""
    _, out = score(tmp_path, scorer, line + b"\n", source="in.jsonl", target="out.jsonl")

    assert out.startswith(line[:-1] + b',"sentiment_label":"positive"')


def test_blank_lines_and_the_byte_order_mark_stay(tmp_path: Path, scorer: LocalScorer) -> None:
    """They are no rows."""
    data = b'\xef\xbb\xbf{"text":"good"}\n\n{"text":"bad"}\n \n'
    summary, out = score(tmp_path, scorer, data, source="in.jsonl", target="out.jsonl")

    assert out.startswith(b'\xef\xbb\xbf{"text":"good",')
    assert out.endswith(b"null}\n \n")
    assert out.count(b"\n") == data.count(b"\n")
    assert summary.rows == 2


@pytest.mark.parametrize(
    ("data", "reason", "says"),
    [
        (b"", "EMPTY_FILE", "it needs a row"),
        ('{"text":"a"}'.encode("utf-16"), "NOT_UTF8", "convert it to UTF-8"),
        (b'{"review":"a"}\n{"review":"b"}\n', "MISSING_COLUMN", "name one with --text-column"),
        (b'{"text":"a","sentiment_score":1}\n', "COLUMN_COLLISION", "another --prefix"),
        (b'[\n  {\n  "text": "a"\n  }\n]\n', "NOT_AN_OBJECT", "add --format json, because"),
        (b'{\n  "text": "a"\n}\n', "NOT_AN_OBJECT", "write one object per line"),
        (b'{"text":"a"}\r{"text":"b"}\r', "NOT_AN_OBJECT", "end each line with LF"),
        (b"id,text\n1,a\n", "NOT_AN_OBJECT", "write one object per line"),
    ],
)
def test_a_file_of_another_kind_is_refused(
    tmp_path: Path, scorer: LocalScorer, data: bytes, reason: str, says: str
) -> None:
    """When not one of its first rows can be answered."""
    (tmp_path / "in.jsonl").write_bytes(data)

    with pytest.raises(TableError, match=r"in\.jsonl") as caught:
        job(tmp_path / "in.jsonl", tmp_path / "out.jsonl").run(scorer)

    assert caught.value.reason == reason
    assert says in str(caught.value)
    assert not (tmp_path / "out.jsonl").exists()


def test_only_columns_keeps_the_bytes_of_their_values(tmp_path: Path, scorer: LocalScorer) -> None:
    """Values of the named keys are not read and written again."""
    data = b'{"a": 1.50, "text": "good", "b": {"c":[1, 2]}}\n[1]\n{"b":1}\n'
    layout = Layout(keep=("b", "a"))
    _, out = score(tmp_path, scorer, data, source="in.jsonl", target="out.jsonl", layout=layout)
    lines = out.splitlines()

    assert lines[0].startswith(b'{"a":1.50,"b":{"c":[1, 2]},"sentiment_label":"positive"')
    assert lines[1].startswith(b'{"sentiment_label":null')
    assert lines[2].startswith(b'{"b":1,"sentiment_label":null')


def test_where_missing_scores_only_the_gaps(tmp_path: Path, scorer: LocalScorer) -> None:
    """A row that has an answer keeps it to the byte; an old error makes way for an answer."""
    rows = [
        b'{"text":"good","sentiment_label":"mine"}',
        b'{"text":"good","sentiment_label":null,"sentiment_error":"ENGINE_FAILED","x": 1.0}',
        b'{"text":"bad"}',
    ]
    _, out = score(
        tmp_path,
        scorer,
        b"\n".join(rows),
        source="in.jsonl",
        target="out.jsonl",
        layout=Layout(update=True),
    )
    kept, filled, new = out.splitlines()

    assert kept == rows[0]
    assert filled.startswith(b'{"text":"good","x":1.0,"sentiment_label":"positive"')
    assert new.startswith(b'{"text":"bad","sentiment_label":"negative"')


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


@settings(max_examples=30)
@given(st.lists(st.dictionaries(st.text(max_size=4) | st.just("text"), VALUES), min_size=1))
def test_every_row_keeps_its_members(
    tmp_path_factory: pytest.TempPathFactory, scorer: LocalScorer, rows: list[dict[str, Any]]
) -> None:
    """Whatever they are, and in order."""
    rows = [{"text": "good"}, *rows]
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    layout = Layout(window_bytes=SMALL_WINDOW_BYTES)

    found = scored(tmp_path_factory.mktemp("rows"), scorer, data, layout)

    assert [
        {key: value for key, value in row.items() if not key.startswith("sentiment_")}
        for row in found
    ] == rows
