"""Answers as columns of tables, whichever library the tables are of."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pytest

import sentimill
from live_server import live_server
from scoring_jobs import job
from sentimill import Classifier, Client
from sentimill.errors import InputError
from sentimill.scoring.scorers import LocalScorer
from sentimill.server.settings import Serve

TEXTS = ["good", None, "bad bad", "good bad"]
COLUMNS = {"id": [1, 2, 3, 4], "text": TEXTS}
LABELS = ["positive", None, "negative", None]
ADDED = ["label", "score", "confidence", "abstained", "abstain_reason", "error"]


@pytest.fixture(scope="module")
def classifier(bundle: Path) -> Classifier:
    """Return the tiny bundle, loaded."""
    return Classifier.load(bundle, threads=1)


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame(COLUMNS),
        pd.DataFrame(COLUMNS, index=[7, 7, 5, 6]),
        pl.DataFrame(COLUMNS),
        pa.table(COLUMNS),
    ],
    ids=["pandas", "pandas index", "polars", "arrow"],
)
def test_a_frame_comes_back_with_the_columns_of_the_command(
    classifier: Classifier, tmp_path: Path, frame: Any
) -> None:
    """The same type, rows and index, and the figures that `sentimill score` writes."""
    (tmp_path / "in.csv").write_text("id,text\n1,good\n2,\n3,bad bad\n4,good bad\n")
    job(tmp_path / "in.csv", tmp_path / "out.csv", probs=True).run(LocalScorer(classifier))
    file = pa.csv.read_csv(tmp_path / "out.csv").to_pylist()

    scored = sentimill.score(frame, model=classifier, probs=True)

    assert type(scored) is type(frame)
    if isinstance(frame, pd.DataFrame):
        assert scored.index.tolist() == frame.index.tolist()
    table = pa.table(scored)
    assert table.column_names[:8] == ["id", "text", *(f"sentiment_{name}" for name in ADDED)]
    for row, expected in zip(table.to_pylist(), file, strict=True):
        for name in table.column_names[2:7] + table.column_names[8:11]:
            wanted = None if expected[name] == "" else expected[name]
            got = None if row[name] != row[name] else row[name]
            assert got == (pytest.approx(wanted) if isinstance(wanted, float) else wanted)
    assert table["sentiment_error"].to_pylist() == [None, "MISSING_TEXT", None, None]


def test_title_and_body_are_read_as_one_text(classifier: Classifier) -> None:
    """The title comes first; a row without either has no text."""
    frame = pl.DataFrame(
        {"title": ["Good", "", None], "body": ["battery", "bad bad", None]},
    )

    scored = sentimill.score(frame, text=["title", "body"], model=classifier)

    assert scored["sentiment_label"].to_list() == ["positive", "negative", None]
    assert scored["sentiment_error"].to_list() == [None, None, "MISSING_TEXT"]


def test_a_server_gives_the_same_columns(classifier: Classifier, bundle: Path) -> None:
    """A client takes the place of the classifier."""
    frame = pl.DataFrame(COLUMNS)
    with (
        live_server(Serve(bundle=bundle, port=0, metrics_port=0, threads=1)) as serving,
        Client(serving.address) as client,
    ):
        remote = sentimill.score(frame, model=client, probs=True)

    assert remote.equals(sentimill.score(frame, model=classifier, probs=True))


@pytest.mark.parametrize(
    ("frame", "text", "reason", "hint"),
    [
        (pl.DataFrame({"body": ["good"]}), "text", "MISSING_COLUMN", "It has body"),
        (pd.DataFrame(index=[1]), "text", "MISSING_COLUMN", "It has none"),
        (pd.DataFrame(COLUMNS), [], "MISSING_COLUMN", "names no column. It has id, text"),
        (pd.DataFrame([["a", "b"]], columns=["text", "text"]), "text", "NOT_A_TABLE", "named once"),
        (pd.Series(["good"]), "text", "NOT_A_TABLE", "pass the column to classify"),
        (pl.LazyFrame(COLUMNS), "text", "NOT_A_TABLE", "call .collect"),
        (pa.record_batch(COLUMNS), "text", "NOT_A_TABLE", "pyarrow.table"),
        ({"text": ["good"]}, "text", "NOT_A_TABLE", "pass a DataFrame"),
        (
            pl.DataFrame({"text": ["good"], "sentiment_error": [1]}),
            "text",
            "COLUMN_COLLISION",
            "choose another prefix",
        ),
    ],
)
def test_columns_are_checked_before_anything_is_computed(
    frame: object, text: str | list[str], reason: str, hint: str
) -> None:
    """No model is loaded for a table that does not fit, and the message has a remedy."""
    with pytest.raises(InputError, match=hint) as caught:
        sentimill.score(frame, text=text, model="no such folder")

    assert caught.value.reason == reason


def test_pandas_abstained_selects_rows_though_some_have_no_answer(classifier: Classifier) -> None:
    """A row without an answer is in neither selection; a column of None would raise."""
    scored = sentimill.score(pd.DataFrame(COLUMNS), model=classifier)

    assert scored[scored["sentiment_abstained"]]["id"].tolist() == [4]
    assert scored[~scored["sentiment_abstained"]]["id"].tolist() == [1, 3]


def test_a_number_among_several_parts_is_said(classifier: Classifier) -> None:
    """It is no text, and is not left out silently; columns may have numbers as names."""
    frame = pd.DataFrame({0: ["good", "good", None], 1: ["good", 5, None]})

    scored = sentimill.score(frame, text=[0, 1], model=classifier)

    assert scored["sentiment_error"].fillna("").tolist() == ["", "NOT_TEXT", "MISSING_TEXT"]
    assert sentimill.score(frame, text=0, model=classifier)["sentiment_label"][0] == "positive"


def test_a_bundle_that_was_replaced_is_loaded_again(bundle: Path, tmp_path: Path) -> None:
    """The folder of a training keeps its name; an answer of the model before would mislead."""
    folder = tmp_path / "bundle"
    shutil.copytree(bundle, folder)
    frame = pl.DataFrame({"text": ["good"]})
    assert not sentimill.score(frame, model=folder)["sentiment_abstained"].item()
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["threshold"] = 0.9999
    (folder / "manifest.json").write_text(json.dumps(manifest))

    assert sentimill.score(frame, model=folder)["sentiment_abstained"].item()


def test_results_become_a_table(classifier: Classifier) -> None:
    """Of the library that is asked for; an empty list gives an empty table."""
    results = classifier.classify(TEXTS)

    table = sentimill.to_frame(results, backend="pyarrow", prefix="", probs=True)
    assert isinstance(table, pa.Table)
    assert table["label"].to_pylist()[:3] == LABELS[:3]
    assert table["abstain_reason"].to_pylist() == [None, None, None, "LOW_CONFIDENCE"]
    assert table.column_names == [*ADDED, "prob_negative", "prob_neutral", "prob_positive"]
    assert isinstance(sentimill.to_frame(results), pd.DataFrame)
    empty = sentimill.to_frame([], backend="polars")
    assert isinstance(empty, pl.DataFrame)
    assert empty.shape == (0, 6)
