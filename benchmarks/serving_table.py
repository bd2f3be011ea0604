"""The list of serving figures in docs/operate.md, from what the serving benchmarks found.

python benchmarks/serving_table.py
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from record import between

__all__ = ["fill"]

_ROOT: Final = Path(__file__).parents[1]
Found = dict[str, Any]


def fill(guide: str, results: Path) -> str:
    """Return *guide* with the list of figures in the folder *results* between its markers."""
    lines = []
    for name, say in _SAID.items():
        path = results / f"{name}.json"
        if path.exists():
            lines.append(f"- {say(json.loads(path.read_text(encoding='utf-8')))}\n")
    return between(guide, "serving", "".join(lines))


def _engine(found: Found) -> str:
    """Say what was measured on the same threads and batches as plain fp32, at each budget."""
    rates: dict[str, dict[int, float]] = {}
    for row in found["rows"]:
        case = row["case"]
        name = f"{case['engine']} {case['precision']}"
        rates.setdefault(name, {})[case["batch_tokens"]] = row["texts_per_second"]
    plain = rates.pop("plain fp32", {})
    told = "; ".join(
        f"{name} {' and '.join(_at(budget, each[budget], plain) for budget in sorted(each))}"
        for name, each in rates.items()
    )
    mean = f"{found['mean_tokens']:.0f} tokens"
    slow = ", ".join(f"{rate:.0f} at {budget:,}" for budget, rate in sorted(plain.items()))
    unit = (
        "as times the rate of one plain fp32 session of ONNX Runtime on the same threads and"
        f" batches, by batch budget ({slow} reviews of {mean} a second)"
        if plain
        else f"in reviews of {mean} a second, by batch budget, as no fp32 graph was there"
    )
    exact = all(row["exact"] == row["checked"] for row in found["rows"])
    alike = "; a text gets the same bits in any batch" if exact else ""
    return f"Engines, {unit}: {told}{alike}."


def _at(budget: int, rate: float, plain: Mapping[int, float]) -> str:
    """Say *rate* against that of plain fp32 at the same budget, where that was measured."""
    if budget in plain:
        return f"{rate / plain[budget]:.2f} at {budget:,}"
    return f"{rate:.0f} {'a second ' if plain else ''}at {budget:,}"


def _serving(found: Found) -> str:
    told = " and ".join(
        f"{load['served_by_offline']:.2f} of it with {load['texts_a_request']} to a request and"
        f" {load['callers']} callers ({load['useful_share']:.2f} of the padded tokens useful)"
        for load in found["loads"]
    )
    return (
        "Served over gRPC, by the bare engine's best offline rate on the same texts:"
        f" {told}. Batches in order of arrival would have"
        f" {found['arrival_order_useful_share']:.2f} of their tokens useful."
    )


def _latency(found: Found) -> str:
    rows = {row["load"]: row for row in found["curve"]}
    told = ", ".join(
        f"{1000 * rows[load]['p50_seconds']:.0f} and {1000 * rows[load]['p99_seconds']:.0f} ms at"
        f" {load:.0%} ({1 - rows[load]['codes'].get('OK', 0) / rows[load]['calls']:.1%} refused)"
        for load in (0.1, 0.3, 0.5, 0.7, 0.9)
        if rows.get(load, {}).get("p99_seconds")
    )
    over = found["overload"]
    return (
        f"Latency of {found['texts_a_request']} texts a request, p50 and p99 by load: {told}"
        " ([curve](../benchmarks/results/latency.svg)); one full batch takes"
        f" {1000 * found['full_batch_seconds']:.0f} ms. At {over['times_capacity']:g} times the"
        f" capacity for {over['seconds']:.0f} s the goodput was {over['goodput_by_capacity']:.2f}"
        f" of it, p99 of what was accepted {over['p99_seconds']:.2f} s with a deadline of"
        f" {found['deadline_seconds']:g} s, memory {over['resident_growth']:+.1%}, and latency as"
        f" before {over['recovered_after_seconds']:.0f} s after it."
    )


def _peers(found: Found) -> str:
    same, own = (
        ", ".join(f"{times:.1f} x {name}" for name, times in peers.items())
        for peers in found["times_as_fast"].values()
    )
    return (
        f"Served rate by that of other servers on the same {found['precision']} graph, threads and"
        f" texts, {found['callers']} callers of one text each: {same}; with our default,"
        f" {found['default']}: {own}."
    )


def _cut(found: Found) -> str:
    after, before = found["after"], found["before"]
    left = "none" if after["open_files"] <= before["open_files"] else "some"
    counted = 0.9 * sum(found["ended"].values())  # the first tenth came before the clock
    calls_a_second = counted / found["seconds"]
    grown = found["slope_share_an_hour"] / 3600 * found["resident_bytes"][0] / calls_a_second
    return (
        f"With the {found['bundle']} bundle {found['cut']:,} calls cut at random moments and"
        f" {found['malformed']} of made-up bytes: {left} left a file open,"
        f" {found['healthy_calls']:,} calls beside them were answered to the bit, memory"
        f" {found['resident_growth']:+.1%}, in the second half {grown:+.0f} bytes a bad call."
    )


def _reloads(found: Found) -> str:
    codes = ", ".join(f"{count:,} {code}" for code, count in found["codes"].items())
    return (
        f"{found['reloads']} reloads under load: {codes}; memory between them"
        f" {found['slope_bytes_a_reload'] / 2**20:+.2f} MiB a reload."
    )


def _overhead(found: Found) -> str:
    told = " and ".join(
        f"{row['counting_us_per_call']:.0f} us with {row['texts_a_call']} in a call"
        f" ({row['counting_us_per_call'] / row['cpu_us_per_call']['counted']:.1%})"
        for row in found["found"]
    )
    rates = " and ".join(
        f"{row['rate_lost']:+.1%} with {row['texts_a_call']}"
        + (f" (two of a kind {row['rate_apart']:.1%} apart)" if "rate_apart" in row else "")
        for row in found["found"]
    )
    return (
        "Counting a call for the metrics takes, beside the processor time of the whole call with"
        f" eight words for texts: {told}. Rate lost of a server that counts, against one that does"
        f" not, in turns: {rates}."
    )


_SAID: Final[dict[str, Callable[[Found], str]]] = {
    "engine": _engine,
    "serving": _serving,
    "latency": _latency,
    "serving-peers": _peers,
    "cut-calls": _cut,
    "cut-calls-tiny": _cut,
    "reloads": _reloads,
    "metrics-overhead": _overhead,
}


def main() -> None:
    """Write it."""
    guide = _ROOT / "docs/operate.md"
    made = fill(guide.read_text(encoding="utf-8"), _ROOT / "benchmarks/results")
    guide.write_text(made, encoding="utf-8")


if __name__ == "__main__":
    main()
