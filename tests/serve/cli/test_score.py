"""`sentimill score`: what it writes, what it says, and how it exits."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cli_in_process import Sentimill


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    """Return a table of three good rows."""
    path = tmp_path / "reviews.csv"
    path.write_bytes(b"id,text\n1,good\n2,bad\n3,the\n")
    return path


def test_score_writes_the_table_and_says_so(
    sentimill: Sentimill, bundle: Path, reviews: Path, tmp_path: Path
) -> None:
    """The figures go to stderr, and the file is complete."""
    target = tmp_path / "scored.csv"

    found = sentimill("score", reviews, target, "--bundle", bundle)

    assert (found.code, found.out) == (0, "")
    assert "3 rows in" in found.err
    assert f"head -3 {target}" in found.err
    assert target.read_text().splitlines()[1].startswith("1,good,positive,")


def test_no_command_is_suggested_for_a_remote_output(
    sentimill: Sentimill, bundle: Path, reviews: Path, tmp_path: Path
) -> None:
    """Neither head nor sample can read one."""
    options = ("--bundle", bundle, "--work", tmp_path / "work")

    found = sentimill("score", reviews, "memory://look.csv", *options)

    assert found.code == 0
    assert "3 rows in" in found.err
    assert "look:" not in found.err
    assert "next:" not in found.err


def test_score_reports_failed_rows_by_its_exit_code(
    sentimill: Sentimill, bundle: Path, tmp_path: Path
) -> None:
    """Exit code 3, and the table is there all the same."""
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_bytes(b'id,text\r\n1,good\r\n2\r\n3,"a\r\nb"\r\n4,\xff\r\n')

    found = sentimill("score", source, target, "--bundle", bundle)

    assert (found.code, found.error) == (
        3,
        f"no answer for 2 of 4 rows, see {target}.errors.jsonl",
    )
    assert target.exists()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "is empty"),
        (b"id,review\n1,good\n", "no column 'text'"),
        (b"text,text\na,b\n", "2 columns named 'text'"),
        ("text\ngood\n".encode("utf-16"), "add --encoding utf-16"),
    ],
)
def test_score_of_what_is_no_table_is_bad_input(
    sentimill: Sentimill, bundle: Path, tmp_path: Path, data: bytes, why: str
) -> None:
    """Exit code 4, one line that names the file, and no output."""
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_bytes(data)

    found = sentimill("score", source, target, "--bundle", bundle)

    assert found.code == 4
    assert found.error.startswith(f"{source} ")
    assert why in found.error
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_score_looks_at_the_table_before_it_loads_a_model(
    sentimill: Sentimill, tmp_path: Path
) -> None:
    """Of two mistakes the cheap one is told first."""
    found = sentimill("score", tmp_path / "in.csv", tmp_path / "out.csv", "--bundle", "absent")

    assert (found.code, "in.csv does not exist" in found.error) == (4, True)


def test_score_replaces_a_file_only_with_leave(
    sentimill: Sentimill, bundle: Path, reviews: Path, tmp_path: Path
) -> None:
    """Exit code 2 without --overwrite, and the old file stays."""
    target = tmp_path / "out.csv"
    target.write_text("old")

    refused = sentimill("score", reviews, target, "--bundle", bundle)
    assert (refused.code, target.read_text()) == (2, "old")
    assert "add --overwrite" in refused.error

    assert sentimill("score", reviews, target, "--bundle", bundle, "--overwrite").code == 0
    assert target.read_text() != "old"


def test_an_error_of_the_system_is_one_line(
    sentimill: Sentimill, bundle: Path, reviews: Path, tmp_path: Path
) -> None:
    """Exit code 1 without a trace."""
    found = sentimill("score", reviews, tmp_path / ("x" * 300 + ".csv"), "--bundle", bundle)

    assert found.code == 1
    assert "File name too long" in found.error


def test_options_are_read_from_the_environment(
    sentimill: Sentimill,
    bundle: Path,
    reviews: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A flag goes before a variable, and a variable before the default."""
    monkeypatch.setenv("SENTIMILL_BUNDLE", str(bundle))
    monkeypatch.setenv("SENTIMILL_SCORE_PREFIX", "mood_")
    one, two = tmp_path / "one.csv", tmp_path / "two.csv"

    assert sentimill("score", reviews, one).code == 0
    assert sentimill("score", reviews, two, "--prefix", "x_").code == 0

    assert one.read_text().startswith("id,text,mood_label,")
    assert two.read_text().startswith("id,text,x_label,")


def test_a_column_with_a_comma_in_its_name_can_be_kept(
    sentimill: Sentimill, bundle: Path, tmp_path: Path
) -> None:
    """It stands in quotes, as in CSV."""
    (tmp_path / "in.csv").write_text('id,text,"price, EUR"\n1,good,2\n')
    keep = ("--only-columns", '"price, EUR",id')

    found = sentimill("score", tmp_path / "in.csv", tmp_path / "o.csv", *keep, "--bundle", bundle)
    first, second = (tmp_path / "o.csv").read_text().splitlines()

    assert found.code == 0
    assert first.startswith('"price, EUR",id,sentiment_label')
    assert second.startswith("2,1,positive")


@pytest.mark.parametrize("option", ["--summary", "--metrics-textfile"])
def test_no_other_output_replaces_the_table(
    sentimill: Sentimill, bundle: Path, reviews: Path, option: str
) -> None:
    """Neither that which is read nor that which is written."""
    before, target = reviews.read_bytes(), reviews.with_name("scored.csv")
    command = ("score", reviews, target, "--bundle", bundle, option)

    assert f"{reviews} is an input too" in sentimill(*command, reviews).error
    assert f"{target} is another output too" in sentimill(*command, target).error
    assert reviews.read_bytes() == before
    assert list(reviews.parent.iterdir()) == [reviews]


def test_a_summary_may_go_to_a_pipe(sentimill: Sentimill, bundle: Path, tmp_path: Path) -> None:
    """It is written without a rename, so `--summary >(jq .)` and /dev/stderr lose nothing."""
    (tmp_path / "in.csv").write_text("text\ngood\n")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(pipe.read_text)
        found = sentimill(
            "score", tmp_path / "in.csv", tmp_path / "o.csv", "--summary", pipe, "--bundle", bundle
        )
        summary = json.loads(read.result(timeout=60))

    assert found.code == 0
    assert summary["rows"] == 1
    assert pipe.is_fifo()
