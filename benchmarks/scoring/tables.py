"""Writes the figures of scoring jobs into a page, from the results of `score_job`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from benchmarks.record import between

__all__ = ["fill"]


def fill(readme: str, results: Path) -> str:
    """Return the page *readme* with the figures of the folder *results* between its markers."""
    return between(readme, "scoring", _lines(results))


def _lines(results: Path) -> str:
    lines = []
    for name, say in _SAID.items():
        path = results / f"scoring-{name}.json"
        if path.exists():
            lines.append(f"- {say(json.loads(path.read_text(encoding='utf-8')))}\n")
    return "".join(lines)


def _peers(found: dict[str, Any]) -> str:
    times = ", ".join(f"{x:.1f} times the {name}" for name, x in found["times_as_fast"].items())
    return (
        f"Rate on a CSV of {found['rows']:,} reviews, compared with programs that people write by"
        " hand"
        f" with pandas and transformers (fp32, the same encoder): {times}."
    )


def _ratio(found: dict[str, Any]) -> str:
    shares = ", ".join(
        f"{share:.2f} from {kind}" for kind, share in found["share_of_bare_loop"].items()
    )
    return (
        f"Rate compared with a loop of the bare engine over the same {found['rows']:,} texts in"
        " memory:"
        f" {shares} (medians of {found['repeats']} turns; {found['useful_share']:.0%} of the"
        " computed"
        " tokens are no padding)."
    )


def _memory(found: dict[str, Any]) -> str:
    spread: dict[str, list[float]] = {}
    for name, run in found["runs"].items():
        spread.setdefault(name.split()[0], []).append(run["peak_mib"])
    most = max(max(peaks) - min(peaks) for peaks in spread.values())
    return (
        f"From ten thousand to {found['rows']:,} rows the peak memory grew by at most {most:.0f}"
        " MiB, over Parquet, CSV and JSON Lines."
    )


def _faults(found: dict[str, Any]) -> str:
    kills = sum(run["kills"] for run in found["kills"].values())
    return (
        f"Jobs in {len(found['kills'])} formats were killed {kills} times at random moments. A disk"
        " was"
        " full, a folder was removed, an input was cut short. Each job then continued to the same"
        " bytes, or was refused with a message."
    )


def _equal(found: dict[str, Any]) -> str:
    same = all(found[f"equal_to_{other}"] for other in ("classify", "server", "ray"))
    said = "give the same bits" if same else "do NOT give the same bits"
    return f"`score`, `classify`, a server and Ray {said} on {found['rows']:,} rows."


_SAID: Final = {
    "peers": _peers,
    "ratio": _ratio,
    "pipeline": _memory,
    "faults": _faults,
    "equal": _equal,
}
