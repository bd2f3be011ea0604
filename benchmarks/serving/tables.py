"""Writes the results of the serving benchmarks into docs/operate.md and docs/security.md.

python -m benchmarks.serving.tables
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks.record import between
from sentimill_train.reporting.markdown import markdown_table

__all__ = ["fill", "fill_security"]

_ROOT: Final = Path(__file__).parents[2]
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
    """Return a sentence on the engine's speed relative to plain fp32, at each budget."""
    of: dict[str, dict[int, Found]] = {}
    for row in found["rows"]:
        case = row["case"]
        of.setdefault(f"{case['engine']} {case['precision']}", {})[case["batch_tokens"]] = row
    plain = of.pop("plain fp32", {})
    told = "; ".join(
        f"{name} {' and '.join(_at(budget, each[budget], plain) for budget in sorted(each))}"
        for name, each in of.items()
    )
    mean = f"{found['mean_tokens']:.0f} tokens"
    slow = ", ".join(f"{row['texts_per_second']:.0f} at {b:,}" for b, row in sorted(plain.items()))
    unit = (
        "as times the rate of one plain fp32 session of ONNX Runtime on the same threads and"
        f" batches, round against round, by batch budget ({slow} reviews of {mean} a second)"
        if plain
        else f"in reviews of {mean} a second, by batch budget, as no fp32 graph was there"
    )
    exact = all(row["exact"] == row["checked"] for row in found["rows"])
    alike = "; a text gets the same bits in any batch" if exact else ""
    share = found["tokenize_by_engine"]
    cost = f"; tokenising on one thread takes {share:.1%} of the fastest one's time"
    return f"Engines, {unit}: {told}{alike}{cost}."


def _at(budget: int, row: Found, plain: Mapping[int, Found]) -> str:
    """Return the speed relative to plain fp32 at the same budget, where that was measured."""
    if row["speedup"] is not None:
        return f"{row['speedup']:.2f} at {budget:,}"
    return f"{row['texts_per_second']:.0f} {'a second ' if plain else ''}at {budget:,}"


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


def _latency(found: Found, *, curve: str = "latency") -> str:
    rows = {row["load"]: row for row in found["curve"]}
    told = ", ".join(
        f"{1000 * rows[load]['p50_seconds']:.0f} and {1000 * rows[load]['p99_seconds']:.0f} ms at"
        f" {load:.0%} ({1 - rows[load]['codes'].get('OK', 0) / rows[load]['calls']:.1%} refused)"
        for load in (0.1, 0.3, 0.5, 0.7, 0.9)
        if rows.get(load, {}).get("p99_seconds")
    )
    over = found["overload"]
    batch = f"one full batch takes {1000 * found['full_batch_seconds']:.0f} ms"
    return (
        f"Latency with {found['texts_a_request']} to a request, p50 and p99 by load: {told}"
        f" ([curve](../benchmarks/results/{curve}.svg)); {batch}{_batches(rows.get(0.7), found)}."
        f" At {over['times_capacity']:g} times the capacity for {over['seconds']:.0f} s the goodput"
        f" was {over['goodput_by_capacity']:.2f} of it, p99 of what was accepted"
        f" {over['p99_seconds']:.2f} s with a deadline of {found['deadline_seconds']:g} s, memory"
        f" {over['resident_growth']:+.1%}, and latency as before"
        f" {over['recovered_after_seconds']:.0f} s after it."
    )


def _batches(row: Found | None, found: Found) -> str:
    """Return p99 at 70 % load in full batches, and that of the simplest queue at that load.

    One server, calls at random, each served in the same time (M/D/1): a million simulated calls
    have their p99 at 7.4 times that.
    """
    if row is None or not row["p99_seconds"]:
        return ""
    batches = row["p99_seconds"] / found["full_batch_seconds"]
    return (
        f", so p99 at 70% is {batches:.1f} of them; calls at random to one server of which each"
        " takes as long as a batch would have 7.4"
    )


def _rolling(found: Found) -> str:
    codes = ", ".join(f"{count:,} {code}" for code, count in found["codes"].items())
    calm, restarting = (1000 * found[part]["p99"] for part in ("calm", "restarting"))
    return (
        f"{found['restarts']} restarts of two replicas behind HAProxy, one after the other, at half"
        f" of what one of them does: {codes}, and nobody tried again; p99 {restarting:.0f} ms, and"
        f" {calm:.0f} before; {found['calm_share_of_first_replica']:.0%} of the calls came to the"
        " first replica."
    )


def _peers(found: Found) -> str:
    same, own = (", ".join(_at_best(peers)) for peers in found["times_as_fast"].values())
    return (
        f"Served rate by that of other servers on the same {found['precision']} graph, threads and"
        f" texts, {found['callers']} callers of one text each, theirs at the size of batch that"
        f" suits them best: {same}; with our default, {found['default']}: {own}."
    )


def _at_best(peers: Mapping[str, float]) -> list[str]:
    """Return how many times as fast ours is as each peer, by the peer's fastest run."""
    least: dict[str, float] = {}
    for run, times in peers.items():
        name = run.partition(",")[0]
        least[name] = min(times, least.get(name, times))
    return [f"{times:.1f} x {name}" for name, times in least.items()]


def _cut(found: Found) -> str:
    after, before = found["after"], found["before"]
    left = "none" if after["open_files"] <= before["open_files"] else "some"
    return (
        f"With the {found['bundle']} bundle {found['cut']:,} calls cut at random moments and"
        f" {found['malformed']} of made-up bytes: {left} left a file open,"
        f" {found['healthy_calls']:,} calls beside them were answered to the bit, memory"
        f" {found['resident_growth']:+.1%}, in the second half {found['bytes_a_bad_call']:+.0f}"
        f" bytes a bad call; on a server of nothing but grpc.aio"
        f" {found['bare_bytes_a_bad_call']:+.0f}."
    )


def _reloads(found: Found) -> str:
    codes = ", ".join(f"{count:,} {code}" for code, count in found["codes"].items())
    low, high = (end / 2**20 for end in found["slope_bytes_a_reload_between"])
    return (
        f"{found['reloads']} reloads under load: {codes}; memory between them"
        f" {found['slope_bytes_a_reload'] / 2**20:+.2f} MiB a reload ({low:+.2f} to {high:+.2f})."
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
    "latency-of-4": partial(_latency, curve="latency-of-4"),
    "serving-peers": _peers,
    "cut-calls": _cut,
    "cut-calls-tiny": _cut,
    "reloads": _reloads,
    "rolling": _rolling,
    "metrics-overhead": _overhead,
}


_HEALTH_MS: Final = 100
"""The bound of the 99th percentile of a health call under attack."""

_FAULTS: Final = {
    "model": "the engine raises always; a new model is sound",
    "shape": "the engine raises on long texts alone",
    "hang": "the engine hangs (`--engine-timeout-seconds {engine_timeout_seconds}`)",
    "process": "one worker's engine raises always; a new process is sound",
    "SIGSTOP": "a worker is stopped (SIGSTOP)",
    "SIGKILL": "a worker is killed (SIGKILL)",
}


def fill_security(page: str, results: Path) -> str:
    """Return docs/security.md with the figures of its attacks and faults between the markers."""
    before, after = (
        json.loads((results / f"attacks{name}.json").read_text(encoding="utf-8"))
        for name in ("-before", "")
    )
    rows = []
    for old, new in zip(before["attacks"], after["attacks"], strict=True):
        cells = [new["attack"].replace("none", "no attack")]
        for key in ("health_p99_ms", "answers_a_second", "failed_calls"):
            cells.append(f"{old[key]:,.0f} → {new[key]:,.0f}")
        cells.append(f"{old['memory_mib']['peak']:,} → {new['memory_mib']['peak']:,}")
        rows.append(cells)
    slow = [row["attack"] for row in after["attacks"] if row["health_p99_ms"] > _HEALTH_MS]
    kept = f"{' and '.join(slow)} made it slower" if slow else "no attack made it slower"
    ran = (f"{one['seconds']:.0f} s (load {one['load_average']:.0f})" for one in (before, after))
    told = (
        f"Each cell is before → after the limits above were made: {' → '.join(ran)} of each attack."
        f" Health must answer within {_HEALTH_MS} ms at the 99th percentile; {kept}."
    )
    head = (
        "attack", "health p99, ms", "honest answers a second", "honest calls that failed",
        "peak memory, MiB",
    )  # fmt: skip
    page = between(page, "attacks", f"{told}\n\n{markdown_table(head, rows)}\n")
    rows = []
    for fault in after["faults"]:
        unready, ready = fault["unready_seconds"], fault["recovered_seconds"]
        times = ["never", "not needed"] if unready is None else [f"{unready:.1f} s", "never"]
        if ready is not None:
            times[1] = f"{ready:.1f} s"
        answered, failed = fault["answered_calls"], fault["failed_calls"]
        name = _FAULTS[fault["fault"]].format_map(after)
        rows.append([name, str(fault["workers"]), *times, f"{answered:,} of {answered + failed:,}"])
    head = ("fault", "workers", "unready after", "ready again after", "honest calls answered")
    return between(page, "faults", f"{markdown_table(head, rows)}\n")


def main() -> None:
    """Write them."""
    for name, change in (("operate", fill), ("security", fill_security)):
        page = _ROOT / f"docs/{name}.md"
        made = change(page.read_text(encoding="utf-8"), _ROOT / "benchmarks/results")
        page.write_text(made, encoding="utf-8")


if __name__ == "__main__":
    main()
