"""What the machine is said to be."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import huggingface_hub
import pytest

from cli_in_process import Sentimill
from sentimill.bundle.reader import open_bundle
from sentimill.cli.doctor import CPU_FLAGS, report
from sentimill.engine.hardware import Machine


def test_the_report_names_versions_and_providers() -> None:
    """Python, the packages and what ONNX Runtime can run on are there."""
    found = report()

    assert platform.python_version() == found["python"]
    assert "CPUExecutionProvider" in found["providers"]
    assert {"sentimill", "grpcio", "protobuf", "tokenizers", "onnxruntime", "gpu"} <= set(found)


def test_every_finding_says_something() -> None:
    """An empty line would tell a reader nothing."""
    assert all(value.strip() for value in report().values())


def test_only_flags_that_matter_are_named() -> None:
    """A flag is reported exactly when the processor has it and we know its use."""
    line = report()["cpu flags"]

    assert [name for name in CPU_FLAGS if name in Machine.here().cpu_flags] == [
        part.split(" (")[0] for part in line.split(", ") if part.split(" (")[0] in CPU_FLAGS
    ]


def test_the_report_does_not_load_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Versions are read from the metadata; nothing large is imported for them.

    Other tests may have imported it before: the report is the same where an import would fail.
    """
    expected = report()
    for name in ("torch", "transformers"):
        monkeypatch.setitem(sys.modules, name, None)

    assert expected == report()


def test_the_digest_of_a_bundle_on_the_hub_is_shown(
    sentimill: Sentimill, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that `classify` takes is good here too, also from the variable."""
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda name, revision: {"me/mine": str(bundle)}[name]
    )
    line = f"bundle         {open_bundle(bundle).digest}"

    assert line in sentimill("doctor", "--bundle", "hub:me/mine").out.splitlines()
    monkeypatch.setenv("SENTIMILL_BUNDLE", "hub:me/mine")
    assert line in sentimill("doctor").out.splitlines()
