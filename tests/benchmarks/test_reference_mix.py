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
    write_set(tmp_path, "imdb", [("i1", "A dull film.", "negative", "train")])
    write_set(tmp_path, "imdb_unsup", [("u1", "Nobody has seen it yet.", "", "none")])
    piece = "Lovely soup."
    lines = ["set\tid\tstart\tend\tsha256\tnegative\tneutral\tpositive"]
    digest = hashlib.sha256(piece.encode()).hexdigest()[:8]
    lines.append(f"yelp_kaggle10k\ty1\t0\t{len(piece)}\t{digest}\t1\t2\t97")
    (tmp_path / "labels.tsv").write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(reference_mix, "TSV", tmp_path / "labels.tsv")
    shares = {"set": "yelp_kaggle10k", "id": "y2", "probs": [0.98, 0.01, 0.01]}
    (tmp_path / "pseudo.jsonl").write_text(json.dumps(shares) + "\n")
    return tmp_path


def mixed(data: Path, left_out: set[str], *, anchors: int = 0) -> reference_mix.Mix:
    """Return the rows of the three trainings."""
    sets = {
        name: reference_mix.read(data, name)
        for name in ("yelp_kaggle10k", "dynasent_r1", "imdb", "imdb_unsup")
    }
    return reference_mix.mix(
        sets,
        data / "pseudo.jsonl",
        left_out,
        random.Random(0),
        tables=[reference_mix.TSV],
        anchors=anchors,
    )


def texts(data: Path, left_out: set[str]) -> dict[str, reference_mix.Row]:
    """Return the rows of the assistant by text."""
    rows = mixed(data, left_out).assistant
    assert len(rows) == len({row["text"] for row in rows})
    return {row["text"]: row for row in rows if row["domain"] != "imdb"}


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


def test_a_set_without_neutral_names_the_labels_that_it_knows(data: Path) -> None:
    """So that it does not teach that nothing is neutral; shares weigh twice."""
    found = {row["text"]: row for row in mixed(data, set()).assistant}

    assert found["A dull film."]["labels_allowed"] == ["negative", "positive"]
    assert "labels_allowed" not in found["Fine."]
    assert [found[text].get("weight") for text in ("Lovely soup.", "Fine.")] == [2.0, None]


def test_the_texts_are_reviews_and_sentences_without_labels(data: Path) -> None:
    """Those of unlabelled sets too, once each, and nothing that is judged on."""
    rows = mixed(data, set()).texts
    found = [row["text"] for row in rows]

    assert len(found) == len(set(found))
    assert {"Never again.", "Nobody has seen it yet."} <= set(found)
    assert "The room was cold and the music far too loud for us." in found
    assert not any(LONG in text for text in found)
    assert not any("label" in row or "probs" in row for row in rows)


def test_the_last_stage_has_every_row_with_shares_and_anchors(data: Path) -> None:
    """It teaches what the teacher said last, and keeps the answers of the assistant."""
    found = mixed(data, set(), anchors=3)

    with_shares = {row["text"] for row in found.assistant if "probs" in row}
    assert {row["text"] for row in found.fine if "probs" in row} == with_shares
    assert sum("probs" not in row for row in found.fine) == 3


def test_the_hard_kinds_that_are_kept_back_are_not_learnt() -> None:
    """A tenth for validation and a tenth for test, and the test split of the starter reviews."""
    found = reference_mix.packaged_rows()

    kinds = {
        split: [r for r in rows if r["domain"] == "hard-kinds"] for split, rows in found.items()
    }
    total = sum(map(len, kinds.values()))
    for split in ("validation", "test"):
        assert len(kinds[split]) == pytest.approx(total / 10, rel=0.1)
    learnt = {row["text"] for row in found["train"]}
    assert learnt.isdisjoint(
        row["text"] for split in ("validation", "test") for row in found[split]
    )


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
