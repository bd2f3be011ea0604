"""`sentimill sample` from its options to the rows that a person labels."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner, Result

from sentimill.errors import SentimillError
from sentimill_train.cli.sample import sample
from sentimill_train.curation.pipeline import CurateJob, curate_rows
from sentimill_train.data.examples import read_examples, write_examples
from sentimill_train.monitoring.sampling import choose
from tiny_bundle import write_tiny_bundle
from tiny_bundle_with_weights import write_weighted_bundle

app = typer.Typer()
app.command()(sample)


def run(*args: str | Path) -> Result:
    """Run the command."""
    return CliRunner().invoke(app, [str(arg) for arg in args])


@pytest.fixture(scope="module")
def weighted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bundle with the weights of an encoder."""
    return write_weighted_bundle(tmp_path_factory.mktemp("pick") / "weighted")


@pytest.fixture
def recent(tmp_path: Path) -> Path:
    """Return a Parquet file of texts with other columns, one of them empty."""
    words = ("good", "bad", "fine", "good bad")
    texts = [f"the {words[i % 4]} battery {'the ' * (i % 5)}{i}" for i in range(60)]
    table = pa.table({"text": [*texts, " "], "ticket": range(61), "when": [None] * 61})
    pq.write_table(table, tmp_path / "recent.parquet")
    return tmp_path / "recent.parquet"


def rows(path: Path) -> list[dict[str, object]]:
    """Return the rows of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rows_keep_their_columns_and_say_how_unsure(
    weighted: Path, recent: Path, tmp_path: Path
) -> None:
    """And training reads what comes out; the same seed gives the same bytes."""
    out, again = tmp_path / "to-label.jsonl", tmp_path / "again.jsonl"

    done = run(recent, "--budget", "12", "--bundle", weighted, "--out", out)
    run(recent, "--budget", "12", "--bundle", weighted, "--out", again)

    assert done.exit_code == 0, done.output
    found = rows(out)
    assert len({row["ticket"] for row in found}) == 12
    assert set(found[0]) == {"text", "ticket", "when", "split", "sample_uncertainty"}
    unsure = [float(str(row["sample_uncertainty"])) for row in found]
    assert unsure == sorted(unsure, reverse=True)
    assert out.read_bytes() == again.read_bytes()
    assert len(read_examples(str(out))) == 12
    assert "61 of 61 rows looked at, 0 with a label, 1 unreadable" in done.stderr
    assert "battery" not in done.output


def test_picked_rows_are_for_train_once_they_have_labels(
    weighted: Path, recent: Path, tmp_path: Path
) -> None:
    """Through a teacher's reader and through curation: a chosen row may not be judged on."""
    picked, out = tmp_path / "to-label.jsonl", tmp_path / "more.jsonl"
    run(recent, "--budget", "20", "--bundle", weighted, "--out", picked)
    labelled = tmp_path / "labelled.jsonl"
    write_examples(labelled, (replace(row, label="positive") for row in read_examples(str(picked))))

    curate_rows(CurateJob(source=str(labelled), out=out))

    assert {example.split for example in read_examples(str(out))} == {"train"}


def test_bundles_that_differ_are_least_sure_together(
    weighted: Path, recent: Path, tmp_path: Path
) -> None:
    """The labels of the second are in another order, and are put in place before they are mixed."""
    turned = write_tiny_bundle(
        tmp_path / "turned",
        change=lambda m: msgspec.structs.replace(m, labels=tuple(reversed(m.labels))),
    ).path
    out, alone = tmp_path / "to-label.jsonl", tmp_path / "alone.jsonl"

    done = run(recent, "--budget", "60", "--bundle", weighted, "--bundle", turned, "--out", out)
    run(recent, "--budget", "60", "--bundle", weighted, "--out", alone)

    assert done.exit_code == 0, done.output
    both, one = (
        {str(row["text"]): float(str(row["sample_uncertainty"])) for row in rows(path)}
        for path in (out, alone)
    )
    for text in both.keys() & one.keys():
        at_odds = ("good" in text) != ("bad" in text)  # the second takes one for the other
        assert (both[text] > one[text] + 0.05) == at_odds


def test_labelled_texts_are_left_out(weighted: Path, recent: Path, tmp_path: Path) -> None:
    """A second round goes on from the first."""
    first, second = tmp_path / "1.jsonl", tmp_path / "2.jsonl"
    run(recent, "--budget", "15", "--bundle", weighted, "--out", first)

    done = run(
        *(recent, "--budget", "15", "--bundle", weighted, "--out", second, "--exclude", first)
    )

    assert "15 with a label" in done.stderr
    assert not {row["ticket"] for row in rows(first)} & {row["ticket"] for row in rows(second)}


def test_a_file_with_labels_is_never_overwritten(
    weighted: Path, recent: Path, tmp_path: Path
) -> None:
    """An hour of a person's work may be in it."""
    out = tmp_path / "to-label.jsonl"
    out.write_text("labels")

    done = run(recent, "--bundle", weighted, "--out", out)

    assert isinstance(done.exception, SentimillError)
    assert done.exception.reason == "OUTPUT_EXISTS"
    assert out.read_text() == "labels"


def test_what_cannot_be_is_said(weighted: Path, recent: Path, tmp_path: Path) -> None:
    """A bundle with other labels, and nothing left to label."""
    other = write_tiny_bundle(
        tmp_path / "other", change=lambda m: msgspec.structs.replace(m, labels=("a", "b", "c"))
    ).path
    out = tmp_path / "out.jsonl"
    cases: dict[str, list[str | Path]] = {
        "LABELS_DIFFER": ["--bundle", weighted, "--bundle", other],
        "NOTHING_LEFT": ["--bundle", weighted, "--exclude", recent],
    }

    for reason, options in cases.items():
        done = run(recent, "--out", out, *options)

        assert isinstance(done.exception, SentimillError), done.output
        assert done.exception.reason == reason
        assert not out.exists()


def test_several_text_columns_are_joined(weighted: Path, tmp_path: Path) -> None:
    """The title comes first, and a text that is nowhere is unreadable."""
    source = tmp_path / "recent.csv"
    source.write_text("title,body\ngood,battery\nbad,\n,\n")

    columns = ("--text-column", "title", "--text-column", "body")
    done = run(source, "--bundle", weighted, *columns)

    assert done.exit_code == 0, done.output
    assert "3 of 3 rows looked at, 0 with a label, 1 unreadable" in done.stderr
    assert {row["title"] for row in rows(tmp_path / "recent.to-label.jsonl")} == {"good", "bad"}


def test_the_command_is_light_to_import() -> None:
    """`sentimill --help` loads the command, and so must not load what it needs to run."""
    code = "import sys, sentimill_train.cli.sample; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "sklearn", "datasets", "numpy", "scipy"} & set(done.stdout.split())


def test_without_options_the_reference_student_picks_and_the_name_is_told(
    weighted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows lie beside the input, and stdout has their name for the next command."""
    monkeypatch.setattr("sentimill_train.cli.sample.reference_bundle", lambda: weighted)
    source = tmp_path / "recent.jsonl"
    source.write_text('{"text": "good battery"}\n{"text": "bad"}\n{"text": "the battery"}\n')

    done = run(source, "--budget", "2")

    out = tmp_path / "recent.to-label.jsonl"
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{out}\n"
    assert len(out.read_text().splitlines()) == 2


def test_the_least_sure_texts_come_first_and_none_twice() -> None:
    """Neither letter by letter, nor with a word more; a small sample begins a larger one."""
    base = [f"the {word} of my phone broke after a week or so" for word in ("screen", "strap")]
    texts = [*base, base[0].upper(), f"{base[0]} again", "!!!", "!!!"]
    unsure = np.array([0.5, 0.9, 0.6, 0.4, 0.2, 0.1])

    found = choose(texts, unsure, 6)

    assert found == [1, 2, 4]
    assert choose(texts, unsure, 2) == found[:2]
