"""A teacher answers a text once; its logits are found again by the cleaned text."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sentimill.errors import UsageError
from sentimill.text.cleaning import clean
from sentimill_train.training.teacher_logits import find_logits, text_keys, write_logits
from train_parts import TWO

TEXTS = ("Good  <b>battery</b>", "bad battery", "so so")
LOGITS = np.array([[0.5, 1.5], [2.0, -1.0], [0.25, 0.75]], dtype=np.float32)


def test_logits_are_found_by_the_cleaned_text(tmp_path: Path) -> None:
    """In any order, twice for a text that is there twice, and NaN for one that was never asked."""
    path = tmp_path / "new" / "logits.parquet"
    write_logits(path, text_keys(TEXTS), LOGITS, TWO)

    found = find_logits(path, text_keys([TEXTS[2], "other", clean(TEXTS[0]), TEXTS[2]]), TWO)

    assert np.isnan(found[1]).all()
    np.testing.assert_array_equal(found[[0, 2, 3]], LOGITS[[2, 0, 2]])


def test_the_key_is_the_first_eight_bytes_of_the_hash() -> None:
    """So that another program can write such a file; a text that no model can read has no key."""
    key = hashlib.sha256(clean(TEXTS[0], 1).encode("utf-8")).digest()[:8]

    assert text_keys([TEXTS[0], " "]) == [key, b""]


def test_new_answers_are_added(tmp_path: Path) -> None:
    """The file is replaced whole, and keeps those that it had."""
    path = tmp_path / "logits.parquet"
    keys = text_keys(TEXTS)
    write_logits(path, keys[:1], LOGITS[:1], TWO)

    write_logits(path, keys[1:], LOGITS[1:], TWO)

    np.testing.assert_array_equal(find_logits(path, keys, TWO), LOGITS)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_columns_of_other_labels_are_left_alone(tmp_path: Path) -> None:
    """They are found by name, whatever their order; a missing one is named."""
    path = tmp_path / "logits.parquet"
    table = {"positive": [1.5], "source": ["x"], "negative": [0.5]}
    keys = pa.array(text_keys(TEXTS[:1]), pa.binary(8))
    pq.write_table(pa.table({"text_sha256": keys, **table}), path)

    assert find_logits(path, text_keys(TEXTS[:1]), TWO).tolist() == [[0.5, 1.5]]
    with pytest.raises(UsageError, match="no column neutral") as caught:
        find_logits(path, text_keys(TEXTS[:1]), ("negative", "neutral", "positive"))
    assert caught.value.reason == "LABELS_DIFFER"


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    """Instead of a traceback of the library that reads it."""
    (tmp_path / "x.parquet").write_bytes(b"nonsense")

    with pytest.raises(UsageError, match=r"x\.parquet cannot be read") as caught:
        find_logits(tmp_path / "x.parquet", [b"12345678"], TWO)

    assert caught.value.reason == "TEACHER_LOGITS_UNREADABLE"
