"""`sentimill evaluate` from its options to its files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import typer
from msgspec.structs import replace
from typer.testing import CliRunner

from sentimill.bundle.manifest import Source
from sentimill_train.cli.evaluate import evaluate
from sentimill_train.data.readers import digest_of
from synthetic_reviews import write_reviews
from tiny_bundle import write_tiny_bundle

app = typer.Typer()
app.command()(evaluate)


def test_figures_and_report_are_written(bundle: Path, tmp_path: Path) -> None:
    """Several files after one `--on`, a table on stdout, JSON without a review's text, a report."""
    first = write_reviews(tmp_path / "first.jsonl", 120)
    second = write_reviews(tmp_path / "second.jsonl", 60, seed=1)
    with Path(first).open("a", encoding="utf-8") as file:
        file.write('{"text": "N/A", "label": "positive"}\n')
    out, page = tmp_path / "metrics.json", tmp_path / "out" / "report.html"
    options = ["--bundle", str(bundle), "--on", first, second, "--against", str(bundle)]
    options += ["--draws", "100", "--target-error", "0.3", "--json", str(out)]
    options += ["--report", str(page)]
    done = CliRunner().invoke(app, options, catch_exceptions=False)
    assert done.exit_code == 0
    assert "macro-F1" in done.stdout
    assert "does not beat" in done.stderr
    assert "first: left out 0 rows without a label, and 1 that cannot be classified" in done.stderr
    assert "first: Answering" in done.stderr or "first: An error" in done.stderr
    found = json.loads(out.read_bytes())
    assert [result["name"] for result in found["sets"]] == ["first", "second"]
    figure = found["sets"][0]["figures"]["accuracy"]
    assert figure["low"] <= figure["value"] <= figure["high"]
    assert found["rivals"][0]["sets"][0]["comparison"]["only_first"] == 0
    assert "the bad battery" not in out.read_text()
    assert "the bad battery" in page.read_text()


def test_sets_of_one_name_keep_their_own_figures(bundle: Path, tmp_path: Path) -> None:
    """Two folders may each hold a reviews.jsonl."""
    for name, rows in (("a", 60), ("b", 90)):
        (tmp_path / name).mkdir()
        write_reviews(tmp_path / name / "reviews.jsonl", rows)
    sources = [str(tmp_path / name / "reviews.jsonl") for name in ("a", "b")]
    out = tmp_path / "metrics.json"

    options = ["--bundle", str(bundle), "--on", *sources, "--draws", "100", "--json", str(out)]
    done = CliRunner().invoke(app, options, catch_exceptions=False)

    assert done.exit_code == 0
    found = [(result["name"], result["rows"]) for result in json.loads(out.read_bytes())["sets"]]
    assert found == [("reviews", 60), ("reviews (2)", 90)]
    assert "evaluating reviews: 60 rows" in done.stderr


def test_rows_that_the_other_bundle_learnt_are_not_judged_on(bundle: Path, tmp_path: Path) -> None:
    """On those a comparison would be unfair, however they are split in the file."""
    reviews = write_reviews(tmp_path / "reviews.jsonl", 200)
    learnt = (Source(name="r", sha256=digest_of(reviews), rows=200),)
    other = write_tiny_bundle(tmp_path / "other", change=lambda m: replace(m, sources=learnt)).path
    out = tmp_path / "metrics.json"

    options = ["--bundle", str(bundle), "--on", reviews, "--draws", "100", "--json", str(out)]
    done = CliRunner().invoke(app, [*options, "--against", str(other)], catch_exceptions=False)

    assert done.exit_code == 0
    (found,) = json.loads(out.read_bytes())["sets"]
    assert found["part"] == "test"
    assert found["rows"] < 70


def test_baselines_are_fitted_and_named(bundle: Path, tmp_path: Path) -> None:
    """Rows that training used go into them, and the sentence says whether they were beaten."""
    reviews = write_reviews(tmp_path / "first.jsonl", 200)
    done = CliRunner().invoke(
        app,
        ["--bundle", str(bundle), "--on", reviews, "--baselines", reviews, "--draws", "100"],
        catch_exceptions=False,
    )
    assert done.exit_code == 0
    assert "TF-IDF" in done.stderr
    assert "static vectors" in done.stderr


def test_without_a_bundle_the_reference_student_is_judged(tmp_path: Path) -> None:
    """The default of the help text works."""
    rows = write_reviews(tmp_path / "mine.jsonl", 30)

    done = CliRunner().invoke(
        app, ["--on", rows, "--draws", "100", "--behaviour-cases", "1"], catch_exceptions=False
    )

    assert done.exit_code == 0
    assert "reference" in done.stdout


def test_the_command_is_light_to_import() -> None:
    """`sentimill --help` loads the command, and so must not load what it needs to run."""
    code = "import sys, sentimill_train.cli.evaluate; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "sklearn", "matplotlib", "jinja2", "datasets", "numpy", "scipy"}
    assert not heavy & set(done.stdout.split())
