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
