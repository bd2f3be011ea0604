"""The reference student's mix: what is taken, what shares belong to, and what is left out."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.reference import mix as reference_mix

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


def mixed(
    data: Path, left_out: set[str]
) -> tuple[list[reference_mix.Row], list[reference_mix.Row]]:
    """Return both stages of the mix."""
    sets = {name: reference_mix.read(data, name) for name in ("yelp_kaggle10k", "dynasent_r1")}
    return reference_mix.mix(sets, data / "pseudo.jsonl", left_out, random.Random(0))


def texts(data: Path, left_out: set[str]) -> dict[str, reference_mix.Row]:
    """Return the first stage by text."""
    rows, _ = mixed(data, left_out)
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


def test_the_second_stage_has_every_row_with_shares_and_a_part_of_the_rest(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It teaches what the teacher said last."""
    monkeypatch.setitem(reference_mix.FINE_CAPS, "yelp_kaggle10k", 0)

    broad, fine = mixed(data, set())

    assert {row["text"] for row in fine} == {row["text"] for row in broad if "probs" in row}
    assert len(fine) == 2 < len(broad)


def test_held_out_rows_come_from_other_splits(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as asked for, each with its split, and none of train."""
    monkeypatch.setattr(reference_mix, "CAPS", {"yelp_kaggle10k": 10})
    sets = {
        "yelp_kaggle10k": reference_mix.read(data, "yelp_kaggle10k"),
        "yelp_augpe": [
            {"id": str(i), "text": str(i), "label": "neutral", "split": "validation"}
            for i in range(reference_mix.HELD_OUT + 9)
        ],
    }

    rows = reference_mix.held_out(sets, random.Random(0))

    assert [row["split"] for row in rows].count("validation") == reference_mix.HELD_OUT
    assert [row["text"] for row in rows if row["split"] == "test"] == ["best tacos in town"]


def test_the_originals_of_a_suite_are_read_from_it(tmp_path: Path) -> None:
    """Its pairs say which review they came from."""
    with gzip.open(tmp_path / "pairs.jsonl.gz", "wt") as file:
        file.write('{"imdb_id": "imdb-train/pos/1"}\n{"imdb_id": "imdb-train/neg/2"}\n')

    found = reference_mix.originals(tmp_path / "pairs.jsonl.gz")

    assert found == {"imdb-train/pos/1", "imdb-train/neg/2"}


def test_a_text_that_changed_is_refused(data: Path) -> None:
    """Shares are never given to other words than those that were judged."""
    labels = (data / "labels.tsv").read_text().replace("\t12\t", "\t11\t")
    (data / "labels.tsv").write_text(labels)

    with pytest.raises(SystemExit, match="another text"):
        texts(data, set())
