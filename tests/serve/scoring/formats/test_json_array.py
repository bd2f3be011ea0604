"""JSON arrays in, the same bytes with keys appended out."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scoring_jobs import SMALL_WINDOW_BYTES, job, score
from sentimill.errors import SentimillError
from sentimill.scoring.formats import json_array, jsonlines
from sentimill.scoring.formats.json_array import elements
from sentimill.scoring.formats.table import Layout
from sentimill.scoring.scorers import LocalScorer


def scored(folder: Path, scorer: LocalScorer, data: bytes, **options: Any) -> bytes:
    """Score *data* and return the output."""
    return score(folder, scorer, data, source="in.json", target="out.json", **options)[1]


@pytest.mark.parametrize("indent", [None, 2, "\t"])
def test_every_element_gets_its_answers(
    tmp_path: Path, scorer: LocalScorer, indent: int | str | None
) -> None:
    """Elements keep their members and their bytes, however the array is laid out."""
    rows = [{"id": i, "text": ["good", "bad"][i % 2], "x": [{"]": "}\\"}]} for i in range(50)]
    data = json.dumps(rows, indent=indent).encode()
    out = scored(tmp_path, scorer, data, layout=Layout(window_bytes=SMALL_WINDOW_BYTES))
    found = json.loads(out)

    assert [row.pop("sentiment_label") for row in found] == ["positive", "negative"] * 25
    assert [{k: row[k] for k in ("id", "text", "x")} for row in found] == rows
    at = 0
    for byte in data:
        at = out.index(byte, at) + 1


def test_elements_that_are_no_objects_are_bad_rows(tmp_path: Path, scorer: LocalScorer) -> None:
    """The array stays an array."""
    data = b'\xef\xbb\xbf [1, {"text": "good"},\n"a]", {"text":null}, null , [[]], {}]\n'
    found = json.loads(scored(tmp_path, scorer, data).decode("utf-8-sig"))

    reasons = [row["sentiment_error"] for row in found]
    assert reasons[:3] == ["NOT_AN_OBJECT", None, "NOT_AN_OBJECT"]
    assert reasons[3:] == ["MISSING_TEXT", "NOT_AN_OBJECT", "NOT_AN_OBJECT", "MISSING_TEXT"]
    lines = (tmp_path / "out.json.errors.jsonl").read_text().splitlines()
    assert [json.loads(line)["line"] for line in lines] == [1, 2, 2, 2, 2, 2]


def test_an_empty_array_stays_empty(tmp_path: Path, scorer: LocalScorer) -> None:
    """It has no rows, which is no error."""
    assert scored(tmp_path, scorer, b"[ ]\n") == b"[ ]\n"


def test_gaps_are_filled(tmp_path: Path, scorer: LocalScorer) -> None:
    """An element with a label keeps its bytes; a null or blank label is a gap."""
    data = b'[{"text":"good","sentiment_label":"mine"}, {"text":"bad","sentiment_label":" "}]'
    found = json.loads(scored(tmp_path, scorer, data, layout=Layout(update=True)))

    assert [row["sentiment_label"] for row in found] == ["mine", "negative"]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "EMPTY_FILE"),
        (b"  ", "TRUNCATED"),
        (b'{"text":"good"}\n{"text":"bad"}\n', "NOT_A_JSON_ARRAY"),
        (b'[{"text":"good"} {"text":"bad"}]', "NOT_A_JSON_ARRAY"),
        (b'[{"text":"good"}] []', "NOT_A_JSON_ARRAY"),
        (b'[{"text":"good"}, ]', "NOT_A_JSON_ARRAY"),
        (b'[{"text":"good"}, {"text":"ba', "TRUNCATED"),
        (b'[{"text":"good"}', "TRUNCATED"),
        (b'["good", "bad"]', "NOT_AN_OBJECT"),
        (b'[{"review":"good"}]', "MISSING_COLUMN"),
    ],
)
def test_what_is_no_array_is_refused(
    tmp_path: Path, scorer: LocalScorer, data: bytes, reason: str
) -> None:
    """With the true cause, and no output."""
    (tmp_path / "in.json").write_bytes(data)

    with pytest.raises(SentimillError, match=r"in\.json") as caught:
        job(tmp_path / "in.json", tmp_path / "out.json").run(scorer)

    assert caught.value.reason == reason
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize("name", ["in.json", "in.jsonl"])
def test_a_row_has_a_limit(
    tmp_path: Path, scorer: LocalScorer, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A file that never ends its row is not read into memory."""
    monkeypatch.setattr(json_array, "MAX_ROW_BYTES", 1000)
    monkeypatch.setattr(jsonlines, "MAX_ROW_BYTES", 1000)
    monkeypatch.setattr(json_array, "_CHUNK_BYTES", 100)
    monkeypatch.setattr(json_array, "_LOOKAHEAD_BYTES", 100)
    (tmp_path / name).write_bytes(b'[{"text": "' + b"good " * 1000 + b'"}]')

    with pytest.raises(
        SentimillError, match=r"has more than|has an element of more than"
    ) as caught:
        job(tmp_path / name, tmp_path / f"out.{name}").run(scorer)

    assert caught.value.reason == "RECORD_TOO_LARGE"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


@settings(max_examples=60)
@given(st.lists(VALUES), st.sampled_from([None, 1]), st.integers(1, 40), st.integers(0, 9))
def test_elements_are_found_wherever_a_block_ends(
    values: list[Any], indent: int | None, block: int, skip: int
) -> None:
    """In blocks of any size, and from any element on, as a resumed job reads them."""
    data = json.dumps(values, indent=indent, ensure_ascii=False).encode() + b" " * block
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_array, "_CHUNK_BYTES", block)
        patch.setattr(json_array, "_LOOKAHEAD_BYTES", 1)
        found = list(elements(io.BytesIO(data), "x", begun=False))
        skip = min(skip, len(values))
        begin = sum(len(a) + len(b) for a, b in found[:skip])
        rest = list(elements(io.BytesIO(data[begin:]), "x", begun=skip > 0))

    assert b"".join(a + b for a, b in found) == data
    assert [json.loads(element) for _, element in found[:-1]] == values
    assert rest == found[skip:]
