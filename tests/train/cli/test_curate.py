"""`sentimill curate`: what it refuses before it reads."""

from __future__ import annotations

from pathlib import Path

from cli_in_process import Sentimill


def test_a_bundle_without_weights_is_refused_at_once(
    sentimill: Sentimill, bundle: Path, tmp_path: Path
) -> None:
    """Before a row is read; without the search for wrong labels it is not used."""
    command = ("curate", tmp_path / "none.csv", tmp_path / "out.jsonl", "--bundle", bundle)
    found = sentimill(*command)

    assert found.code == 4
    assert f"{bundle} holds no model.safetensors" in found.error
    assert "give --no-label-errors" in found.error
    assert "there is no file" in sentimill(*command, "--no-label-errors").error


def test_no_output_replaces_the_reviews_or_the_other_one(
    sentimill: Sentimill, tmp_path: Path
) -> None:
    """The report has a second file, of the same name with .json."""
    reviews, out = tmp_path / "reviews.csv", tmp_path / "curated.json"
    reviews.write_text("text,label\ngood,positive\n")
    report = ("--report", out.with_suffix(".html"))

    assert f"{reviews} is an input too" in sentimill("curate", reviews, reviews).error
    assert f"{out} is another output too" in sentimill("curate", reviews, out, *report).error
    assert reviews.read_text() == "text,label\ngood,positive\n"
    assert list(tmp_path.iterdir()) == [reviews]
