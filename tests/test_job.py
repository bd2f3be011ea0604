"""The scoring job: a table in, the same table with answers out."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentimill.classifier import Classifier
from sentimill.errors import SentimillError, TableError, UsageError
from sentimill.scoring import job
from sentimill.scoring.job import COLUMNS, Score, Summary
from tiny import graph, write_tiny_bundle

ADDED = [f"sentiment_{name}" for name in COLUMNS]


@pytest.fixture(scope="module")
def classifier(bundle: Path) -> Classifier:
    """Return the tiny bundle, loaded."""
    return Classifier.load(bundle, threads=1)


def silent(rows: int, done: int) -> None:
    """Show no progress."""


def score(
    folder: Path, classifier: Classifier, data: bytes, *, name: str = "in.csv"
) -> tuple[Summary, bytes]:
    """Score *data* and return the summary and the output."""
    source = folder / name
    source.write_bytes(data)
    target = folder / "out.csv"
    summary = Score(source=source, target=target, overwrite=True).run(classifier, silent)
    return summary, target.read_bytes()


def table(data: bytes) -> list[list[str]]:
    """Return the cells of a CSV file."""
    return list(csv.reader(data.decode("utf-8-sig", "replace").splitlines(keepends=True)))


def test_each_row_gets_its_answer(tmp_path: Path, classifier: Classifier) -> None:
    """Answers are appended in input order."""
    summary, out = score(tmp_path, classifier, b"id,text\n1,good\n2,bad\n3,the\n")
    header, *rows = table(out)

    assert header == ["id", "text", *ADDED]
    assert [row[:3] for row in rows] == [
        ["1", "good", "positive"],
        ["2", "bad", "negative"],
        ["3", "the", "neutral"],
    ]
    assert (summary.rows, summary.failed) == (3, 0)


def test_figures_read_back_to_the_same_bits(tmp_path: Path, classifier: Classifier) -> None:
    """Score and confidence are written without loss."""
    _, out = score(tmp_path, classifier, b"text\ngood\n")
    (expected,) = classifier.classify(["good"])
    _, row = table(out)

    assert not isinstance(expected, SentimillError)
    assert [float(row[2]), float(row[3])] == pytest.approx(
        [expected.score, expected.confidence], abs=1e-8
    )
    assert row[4:] == ["false", ""]


@pytest.mark.parametrize(
    "data",
    [
        b"id,text\n1,good\n2,bad",
        b"id,text\r\n1,good\r\n2,bad\r\n",
        b'\xef\xbb\xbfid,text\n1,"good, ""so"""\n2,"two\nlines"\n',
        b"text,x,x\ngood,1,2\n",
        b"id,text\n1,caf\xe9\n2,\x00\n",
        "id,text\n1,👍🏽 رائع\n".encode(),
    ],
)
def test_every_byte_of_a_row_is_kept(tmp_path: Path, classifier: Classifier, data: bytes) -> None:
    """Quoting, encoding, line ends and byte-order mark come out as they went in."""
    _, out = score(tmp_path, classifier, data)
    end = b"\r\n" if b"\r\n" in data else b"\n"

    rest = out
    for raw in data.removesuffix(end).split(end):
        assert raw in rest
        rest = rest[rest.index(raw) + len(raw) :]
    assert out.startswith(data[:5])
    assert out.endswith(end)
    assert out.count(b"\r") == data.count(b"\r")


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_bad_rows_carry_their_reason(tmp_path: Path, classifier: Classifier, end: str) -> None:
    """What cannot be classified is reported in its own row, under the right column."""
    rows = ["id,text,x", "1,good,y", "2,,y", "3", "", "4,caf\udce9,y", f"5,{'x' * (2 << 20)},y"]
    summary, out = score(
        tmp_path, classifier, "".join(row + end for row in rows).encode("utf-8", "surrogateescape")
    )
    header, *found = table(out)

    assert [dict(zip(header, row, strict=True))["sentiment_error"] for row in found] == [
        "",
        "EMPTY_TEXT",
        "RAGGED_ROW",
        "RAGGED_ROW",
        "UNDECODABLE_ROW",
        "TEXT_TOO_LARGE",
    ]
    assert (summary.rows, summary.failed) == (6, 5)


def test_a_row_of_too_many_fields_is_kept_and_reported(
    tmp_path: Path, classifier: Classifier
) -> None:
    """Its own fields stay, and its answers stand behind them."""
    summary, out = score(tmp_path, classifier, b"id,text\n1,good,more\n")

    assert table(out)[1] == ["1", "good", "more", "", "", "", "", "RAGGED_ROW"]
    assert summary.failed == 1


def test_a_header_alone_is_a_table(tmp_path: Path, classifier: Classifier) -> None:
    """No rows are no error."""
    summary, out = score(tmp_path, classifier, b"text")

    assert (summary.rows, table(out)) == (0, [["text", *ADDED]])


def test_tabs_part_the_fields_of_a_tsv(tmp_path: Path, classifier: Classifier) -> None:
    """The suffix chooses the delimiter, of the answers too."""
    _, out = score(tmp_path, classifier, b"id\ttext\n1\tgood, so\n", name="in.tsv")

    assert out.splitlines()[1].split(b"\t")[:3] == [b"1", b"good, so", b"positive"]


@given(
    st.lists(st.sampled_from(["good", "bad bad bad", "", "the " * 30, "é👍"]), max_size=40),
    st.integers(1, 60),
)
def test_windows_and_batches_change_nothing(
    tmp_path_factory: pytest.TempPathFactory, classifier: Classifier, words: list[str], tokens: int
) -> None:
    """The output is the same whatever the sizes of window and batch."""
    folder = tmp_path_factory.mktemp("job")
    source = folder / "in.csv"
    source.write_text("text\n" + "".join(f'"{text}"\n' for text in words))
    one, two = folder / "one.csv", folder / "two.csv"
    Score(source=source, target=one).run(classifier, silent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "WINDOW_BYTES", 500)
        Score(source=source, target=two, batch_tokens=tokens).run(classifier, silent)

    assert one.read_bytes() == two.read_bytes()


def test_progress_counts_rows_and_bytes(tmp_path: Path, classifier: Classifier) -> None:
    """At the end every row and every byte behind the header is done."""
    source = tmp_path / "in.csv"
    source.write_bytes(b"text\ngood\nbad\n")
    seen: list[tuple[int, int]] = []

    Score(source=source, target=tmp_path / "out.csv").run(
        classifier, lambda rows, done: seen.append((rows, done))
    )

    assert seen[-1] == (2, len(b"good\nbad\n"))


def refusal(job: Score) -> SentimillError:
    """Return the error with which *job* does not begin."""
    with pytest.raises(SentimillError) as caught:
        job.check()
    return caught.value


def test_a_source_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """Neither nothing nor a folder is a table."""
    for name in ("absent.csv", "."):
        error = refusal(Score(source=tmp_path / name, target=tmp_path / "out.csv"))
        assert (type(error), error.reason) == (TableError, "FILE_NOT_FOUND")


@pytest.mark.parametrize(
    ("target", "overwrite", "reason"),
    [
        ("in.csv", True, "OUTPUT_IS_INPUT"),
        ("link.csv", True, "OUTPUT_IS_INPUT"),
        ("other.csv", False, "OUTPUT_EXISTS"),
        ("folder", True, "OUTPUT_IS_FOLDER"),
        ("folder", False, "OUTPUT_IS_FOLDER"),
        ("absent/out.csv", False, "NO_SUCH_FOLDER"),
    ],
)
def test_a_target_that_cannot_be_is_refused_before_any_work(
    tmp_path: Path, target: str, overwrite: bool, reason: str
) -> None:
    """Nothing is read, loaded or written first."""
    source = tmp_path / "in.csv"
    source.write_bytes(b"text\ngood\n")
    (tmp_path / "link.csv").symlink_to(source)
    (tmp_path / "other.csv").write_bytes(b"")
    (tmp_path / "folder").mkdir()

    error = refusal(Score(source=source, target=tmp_path / target, overwrite=overwrite))

    assert (type(error), error.reason) == (UsageError, reason)


def test_a_table_that_has_our_columns_is_refused(tmp_path: Path) -> None:
    """Scoring a scored table again needs another prefix."""
    source = tmp_path / "in.csv"
    source.write_bytes(b"text,sentiment_label\ngood,\n")

    error = refusal(Score(source=source, target=tmp_path / "out.csv"))
    Score(source=source, target=tmp_path / "out.csv", prefix="again_").check()

    assert error.reason == "COLUMN_COLLISION"
    assert "choose another --prefix" in str(error)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    """A table needs a header row."""
    source = tmp_path / "in.csv"
    source.touch()

    assert refusal(Score(source=source, target=tmp_path / "out.csv")).reason == "EMPTY_FILE"


@pytest.mark.parametrize("old", [None, b"old"])
def test_a_job_that_fails_changes_nothing(
    tmp_path: Path, classifier: Classifier, old: bytes | None
) -> None:
    """The final name keeps what it had, and no part of the output is left behind."""
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_bytes(b'text\ngood\n"open\n')
    if old is not None:
        target.write_bytes(old)
    before = sorted(os.listdir(tmp_path))

    with pytest.raises(TableError, match="never closed"):
        Score(source=source, target=target, overwrite=True).run(classifier, silent)

    assert sorted(os.listdir(tmp_path)) == before
    assert old is None or target.read_bytes() == old


def test_the_target_appears_only_at_the_end(
    tmp_path: Path, classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While rows are written, the final name is free."""
    monkeypatch.setattr(job, "WINDOW_BYTES", 1)
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_bytes(b"text\ngood\nbad\n")
    seen: list[bool] = []

    Score(source=source, target=target).run(
        classifier, lambda rows, done: seen.append(target.exists())
    )

    assert seen == [False, False]
    assert target.exists()


def test_an_engine_that_fails_leaves_no_output(tmp_path: Path) -> None:
    """A broken engine is a failure of the job and not of a row."""
    made = write_tiny_bundle(tmp_path / "tiny", model=graph(fail_on="poison"))
    source = tmp_path / "in.csv"
    source.write_bytes(b"text\npoison\n")

    with pytest.raises(SentimillError, match="the engine failed"):
        Score(source=source, target=tmp_path / "out.csv").run(Classifier.load(made.path), silent)

    assert sorted(os.listdir(tmp_path)) == ["in.csv", "tiny"]
