"""Where a person names no model, the reference student answers, or the error says what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli_in_process import Sentimill
from sentimill.bundle import reference
from sentimill.bundle.reference import find_reference, reference_bundle
from sentimill.errors import UsageError
from sentimill_train.model.packaged_encoders import MINILM
from sentimill_train.pipeline import starting_point
from tiny_bundle import write_tiny_bundle
from train_parts import write_base


def test_a_link_leads_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is loaded and shown is the folder itself, not the link."""
    write_tiny_bundle(tmp_path / "bundle")
    (tmp_path / "link").symlink_to("bundle")
    monkeypatch.setattr(reference, "_FOLDER", tmp_path / "link")

    assert reference_bundle() == tmp_path / "bundle"


def test_without_one_the_error_names_the_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An installation may have none."""
    monkeypatch.setattr(reference, "_FOLDER", tmp_path)

    assert find_reference() is None
    with pytest.raises(UsageError, match="--bundle") as caught:
        reference_bundle()
    assert caught.value.reason == "NO_MODEL"


@pytest.mark.slow
def test_every_command_that_needs_a_model_takes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sentimill: Sentimill
) -> None:
    """`classify` and `score` without --bundle."""
    monkeypatch.setattr(reference, "_FOLDER", tmp_path / "model")
    write_tiny_bundle(tmp_path / "model")
    (tmp_path / "in.csv").write_text("text\ngood\n")

    answered = sentimill("classify", "good")
    scored = sentimill("score", tmp_path / "in.csv", tmp_path / "out.csv")

    assert answered.code == scored.code == 0
    assert answered.out.startswith("positive")
    assert "good,positive" in (tmp_path / "out.csv").read_text()


@pytest.mark.slow
def test_two_models_are_refused(sentimill: Sentimill) -> None:
    """A bundle and a server at once."""
    found = sentimill("classify", "good", "--bundle", "here", "--server", "127.0.0.1:1")

    assert found.code == 2
    assert "either --bundle FOLDER or --server" in found.error


def test_training_goes_on_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless the preset asks for random weights."""
    write_base(tmp_path / "model")
    (tmp_path / "model" / "manifest.json").write_text("{}")
    monkeypatch.setattr(reference, "_FOLDER", tmp_path / "model")

    assert starting_point(None, "minilm-l6").folder == tmp_path / "model"
    assert starting_point("all-MiniLM-L6-v2", "minilm-l6").name == MINILM.name
    assert starting_point(None, "tiny").name == MINILM.name
