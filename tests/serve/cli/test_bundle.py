"""`sentimill bundle`: what it prints about a model folder, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from cli_in_process import Sentimill
from sentimill.bundle.manifest import Manifest
from sentimill.bundle.reader import open_bundle
from sentimill.bundle.reference import reference_bundle
from sentimill.classifier import Classifier
from sentimill.engine.base import Precision
from sentimill.errors import EngineError
from tiny_bundle import write_tiny_bundle


def test_inspect_shows_the_manifest(sentimill: Sentimill, bundle: Path) -> None:
    """Name, digest, labels and size, a line each."""
    found = sentimill("bundle", "inspect", bundle)
    lines = dict(line.split(maxsplit=1) for line in found.out.splitlines())

    assert (found.code, lines["name"]) == (0, "tiny")
    assert lines["digest"] == open_bundle(bundle).digest
    assert lines["labels"] == "negative, neutral, positive"


def test_inspect_prints_json(sentimill: Sentimill, bundle: Path) -> None:
    """The manifest and its digest, for programs."""
    found = json.loads(sentimill("bundle", "inspect", bundle, "--json").out)

    assert (found["name"], found["schema_version"]) == ("tiny", 1)
    assert found["digest"] == open_bundle(bundle).digest


def test_verify_says_what_it_checked(sentimill: Sentimill, bundle: Path) -> None:
    """Files, golden texts and the digest."""
    found = sentimill("bundle", "verify", bundle)

    assert found.code == 0
    assert "fp32: golden texts give the same probs on cpu" in found.out
    assert f"ok: 2 files, digest {open_bundle(bundle).digest}" in found.out


def test_verify_refuses_a_file_with_another_hash(sentimill: Sentimill, tmp_path: Path) -> None:
    """Exit code 4, and no `ok`."""
    made = write_tiny_bundle(tmp_path / "tiny")
    (made.path / "tokenizer.json").write_bytes(b"{}")

    found = sentimill("bundle", "verify", made.path)

    assert (found.code, found.out) == (4, "")
    assert "tokenizer.json has 2 bytes" in found.error


def test_verify_says_which_precisions_it_cannot_replay(
    sentimill: Sentimill, tmp_path: Path
) -> None:
    """A later exporter may name one that this program does not know."""

    def rename(manifest: Manifest) -> Manifest:
        precisions = {"int4": manifest.precisions["fp32"]}
        return msgspec.structs.replace(manifest, precisions=precisions)

    made = write_tiny_bundle(tmp_path / "tiny", change=rename)

    found = sentimill("bundle", "verify", made.path)

    assert found.code == 0
    assert "int4: not replayed, unknown precision 'int4'" in found.out


@pytest.mark.parametrize(
    ("reason", "code", "line"),
    [
        ("ENGINE_PROVIDER_FALLBACK", 0, "fp16: not replayed, no driver"),
        ("ENGINE_LOAD_FAILED", 1, None),
    ],
)
def test_verify_goes_on_where_only_the_device_is_missing(
    sentimill: Sentimill,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    reason: str,
    code: int,
    line: str | None,
) -> None:
    """A GPU's package without a driver says nothing about the bundle; a bad graph does."""

    def with_fp16(manifest: Manifest) -> Manifest:
        precisions = {"fp16": manifest.precisions["fp32"], "fp32": manifest.precisions["fp32"]}
        return msgspec.structs.replace(manifest, precisions=precisions)

    made = write_tiny_bundle(tmp_path / "tiny", change=with_fp16)
    load = Classifier.load

    def without_driver(folder: Path, *, precision: Precision) -> Classifier:
        if precision == "fp16":
            raise EngineError("no driver", reason=reason)
        return load(folder, precision=precision)

    monkeypatch.setattr(Classifier, "load", without_driver)

    found = sentimill("bundle", "verify", made.path)

    assert found.code == code
    assert (line in found.out.splitlines()) is (code == 0)
    assert ("fp32: golden texts give the same probs on cpu" in found.out) is (code == 0)


def test_inspect_without_a_folder_shows_the_reference(sentimill: Sentimill) -> None:
    """As `classify` does, which answers with it."""
    found = sentimill("bundle", "inspect")

    assert found.code == 0
    assert open_bundle(reference_bundle()).digest in found.out


def test_verify_says_that_the_training_weights_are_not_here(
    sentimill: Sentimill, tmp_path: Path
) -> None:
    """An installation that serves leaves them out; the bundle verifies and answers all the same."""
    (tmp_path / "weights").write_bytes(b"only training reads this")
    more = {"model.safetensors": tmp_path / "weights"}
    made = write_tiny_bundle(tmp_path / "tiny", more=more)
    complete = sentimill("bundle", "verify", made.path)
    (made.path / "model.safetensors").unlink()
    served = sentimill("bundle", "verify", made.path)

    assert (complete.code, "ok: 3 files" in complete.out) == (0, True)
    assert "model.safetensors" not in complete.out
    assert (served.code, "ok: 2 files" in served.out) == (0, True)
    assert "model.safetensors: not here" in served.out
    assert sentimill("classify", "good", "--bundle", made.path).code == 0
