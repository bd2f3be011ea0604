"""What `sentimill serve` makes of its options before the server starts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest

from cli_in_process import Sentimill
from sentimill.server import lifecycle
from sentimill.server.settings import Serve
from sentimill.server.workers import supervisor


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_bundle_on_the_hub_is_looked_up_once(
    sentimill: Sentimill, bundle: Path, monkeypatch: pytest.MonkeyPatch, workers: str
) -> None:
    """The server gets a folder, so a reload or another worker cannot get another revision."""
    asked: list[tuple[str, str | None]] = []
    served: list[Path] = []

    def download(repository: str, *, revision: str | None) -> str:
        asked.append((repository, revision))
        return str(bundle)

    def run(settings: Serve, *_: int | Callable[..., None]) -> None:
        served.append(settings.bundle)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr(lifecycle, "run", run)
    monkeypatch.setattr(supervisor, "run_workers", run)

    found = sentimill("serve", "--bundle", "hub:me/mine@v2", "--workers", workers)

    assert (found.code, asked, served) == (0, [("me/mine", "v2")], [bundle])
