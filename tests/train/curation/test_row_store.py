"""The rows of a curation on disk."""

from __future__ import annotations

import json
from pathlib import Path

from sentimill_train.curation.row_store import store_rows
from sentimill_train.data.schema import Columns


def test_there_may_be_hundreds_of_labels(tmp_path: Path) -> None:
    """The index of a label is larger than a byte."""
    labels = tuple(f"label {i}" for i in range(300))
    source = tmp_path / "r.jsonl"
    rows = ({"text": f"Review {name}.", "label": name} for name in labels)
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))

    store = store_rows(str(source), (), tmp_path, labels, Columns())

    assert store.label.tolist() == list(range(300))
    assert store.row(299).label == "label 299"
    store.close()
