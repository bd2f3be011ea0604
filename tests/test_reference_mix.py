"""The reference student's mix: what is taken, what shares belong to, and what is left out."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import reference_mix

LONG = "The waiter brought the wrong plate and would not take it back."


def write_set(folder: Path, name: str, rows: list[tuple[str, str, str, str]]) -> None:
    """Write a set of (id, text, label, split)."""
    columns = zip(*rows, strict=True)
    names = ("id", "text", "label", "split")
    table = {n: list(column) for n, column in zip(names, columns, strict=True)}
    pq.write_table(pa.table(table), folder / f"{name}.parquet")


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two sets, shares of one whole review and of one sentence."""
    write_set(
        tmp_path,
        "yelp_kaggle10k",
        [
            (
                "y1",
                "Lovely soup. The room was cold and the music far too loud for us.",
                "neutral",
                "train",
            ),
            ("y2", "Never again.", "negative", "train"),
            ("y3", f"Nice place. {LONG}", "positive", "train"),
            ("y4", "Best tacos in town!", "positive", "train"),
            ("y5", "best tacos in town", "positive", "test"),
            ("y6", "Fine.", "neutral", "train"),
        ],
    )
    write_set(tmp_path, "dynasent_r1", [("d1", LONG, "negative", "test")])
    piece = "Lovely soup."
    lines = ["set\tid\tstart\tend\tsha256\tnegative\tneutral\tpositive"]
    digest = hashlib.sha256(piece.encode()).hexdigest()[:8]
    lines.append(f"yelp_kaggle10k\ty1\t0\t{len(piece)}\t{digest}\t1\t2\t97")
    (tmp_path / "labels.tsv").write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(reference_mix, "TSV", tmp_path / "labels.tsv")
    shares = {"set": "yelp_kaggle10k", "id": "y2", "probs": [0.98, 0.01, 0.01]}
    (tmp_path / "pseudo.jsonl").write_text(json.dumps(shares) + "\n")
    return tmp_path


def texts(data: Path, left_out: set[str]) -> dict[str, reference_mix.Row]:
    """Return the mix by text."""
    rows = reference_mix.mix(data, data / "pseudo.jsonl", left_out, seed=0)
    assert len(rows) == len({row["text"] for row in rows})
    return {row["text"]: row for row in rows}


def test_shares_go_to_the_text_that_was_read(data: Path) -> None:
    """A sentence gets its own shares and label, a whole review its own, and neither comes twice."""
    found = texts(data, set())

    assert found["Lovely soup."]["probs"] == [0.01, 0.02, 0.97]
    assert found["Lovely soup."]["label"] == "positive"
    assert found["Never again."]["probs"] == [0.98, 0.01, 0.01]
    assert "probs" not in found["Fine."]


def test_nothing_of_a_judged_split_is_learnt(data: Path) -> None:
    """A text of a test split, in other spelling or as a sentence of a review, is left out."""
    found = texts(data, set())

    assert "Best tacos in town!" not in found
    assert not any(LONG in text for text in found)
    assert {row["split"] for row in found.values()} == {"train"}


def test_ids_to_leave_out_are_left_out(data: Path) -> None:
    """A review that a behavioural suite is made of gives neither itself nor a piece."""
    found = texts(data, {"y1"})

    assert set(found) == {"Never again.", "Fine."}


def test_a_text_that_changed_is_refused(data: Path) -> None:
    """Shares are never given to other words than those that were judged."""
    labels = (data / "labels.tsv").read_text().replace("\t12\t", "\t11\t")
    (data / "labels.tsv").write_text(labels)

    with pytest.raises(SystemExit, match="another text"):
        texts(data, set())
