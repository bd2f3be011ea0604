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
        "relative to one plain fp32 session of ONNX Runtime with the same threads and batches"
        f" ({told}). That session answers {slow} reviews of {mean} a second"
        if plain
        else f"in reviews of {mean} a second ({told}); the bundle had no fp32 graph to compare with"
    )
    exact = all(row["exact"] == row["checked"] for row in found["rows"])
    alike = " Batching changed no bit of an answer." if exact else ""
    share = found["tokenize_by_engine"]
    cost = f" Tokenising on one thread takes {share:.1%} of the time of the fastest engine."
    return f"Rate of each engine by the tokens of a batch, {unit}.{alike}{cost}"


def _at(budget: int, row: Found, plain: Mapping[int, Found]) -> str:
    """Return the speed relative to plain fp32 at the same budget, where that was measured."""
    if row["speedup"] is not None:
        return f"{row['speedup']:.2f} at {budget:,}"
    return f"{row['texts_per_second']:.0f} {'a second ' if plain else ''}at {budget:,}"


def _serving(found: Found) -> str:
    told = " and ".join(
        f"{load['served_by_offline']:.2f} of that rate with {load['callers']} callers and"
        f" {load['texts_a_request']} to a request ({load['useful_share']:.0%} of the computed"
        " tokens"
        " are no padding)"
        for load in found["loads"]
    )
    return (
        "The server, compared with the engine's best rate on the same texts without a server,"
        " answers"
        f" {told}. If texts were batched in order of arrival,"
        f" {found['arrival_order_useful_share']:.0%} of the computed tokens would be no padding."
    )


def _latency(found: Found, *, curve: str = "latency") -> str:
    rows = {row["load"]: row for row in found["curve"]}
    told = "; ".join(
        f"{1000 * rows[load]['p50_seconds']:.0f} and {1000 * rows[load]['p99_seconds']:,.0f} ms at"
        f" {load:.0%} load ({1 - rows[load]['codes'].get('OK', 0) / rows[load]['calls']:.1%} of the"
        " calls refused)"
        for load in (0.1, 0.3, 0.5, 0.7, 0.9)
        if rows.get(load, {}).get("p99_seconds")
    )
    over = found["overload"]
    batch = f"One full batch takes {1000 * found['full_batch_seconds']:.0f} ms"
    return (
        f"p50 and p99 of the latency of calls with {_texts(found['texts_a_request'])}: {told}"
        f" ([curve](../benchmarks/results/{curve}.svg)). {batch}{_batches(rows.get(0.7), found)}."
        f" Under {over['times_capacity']:g} times as many calls as it can answer, for"
        f" {over['seconds']:.0f} s, the server answered {over['goodput_by_capacity']:.2f} of its"
        f" capacity in time. The accepted calls had a p99 of {over['p99_seconds']:.2f} s with a"
        f" deadline of {found['deadline_seconds']:g} s, memory changed by"
        f" {over['resident_growth']:+.1%}, and the latency was normal again"
        f" {over['recovered_after_seconds']:.0f} s later."
    )


def _texts(count: int) -> str:
    return f"{count} text{'' if count == 1 else 's'}"


def _batches(row: Found | None, found: Found) -> str:
    """Return p99 at 70 % load in full batches, and that of the simplest queue at that load.

    One server, calls at random, each served in the same time (M/D/1): a million simulated calls
    have their p99 at 7.4 times that.
    """
    if row is None or not row["p99_seconds"]:
        return ""
    batches = row["p99_seconds"] / found["full_batch_seconds"]
    return (
        f", so p99 at 70% load is {batches:.1f} batches. In the simplest queue (M/D/1: calls at"
        " random, each served alone in the time of a batch) it would be 7.4"
    )


def _rolling(found: Found) -> str:
    codes = ", ".join(f"{count:,} {code}" for code, count in found["codes"].items())
    calm, restarting = (1000 * found[part]["p99"] for part in ("calm", "restarting"))
    return (
        f"Two replicas behind HAProxy were restarted one after the other, {found['restarts']} times"
        " in"
        f" all, under half of the load that one of them can answer: {codes}, without retries. p99"
        " was"
        f" {restarting:,.0f} ms, and {calm:,.0f} ms before."
        f" {found['calm_share_of_first_replica']:.0%} of the calls came to the first replica."
    )


def _peers(found: Found) -> str:
    same, own = (", ".join(_at_best(peers)) for peers in found["times_as_fast"].values())
    return (
        f"Rate compared with other servers, with the same {found['precision']} graph, threads and"
        f" texts, {found['callers']} callers of one text each, and the batch size at which the"
        " other"
        f" server is fastest: {same}. With our default ({found['default']}): {own}."
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
    left = "None" if after["open_files"] <= before["open_files"] else "Some"
    return (
        f"With the {found['bundle']} bundle, {found['cut']:,} calls were cut at random moments and"
        f" {found['malformed']} were random bytes. {left} left a file open, and"
        f" {found['healthy_calls']:,} good calls at the same time got the right bits. Memory"
        " changed"
        f" by {found['resident_growth']:+.1%}; in the second half by"
        f" {found['bytes_a_bad_call']:+.0f}"
        f" bytes for each bad call, where a bare grpc.aio server changes by"
        f" {found['bare_bytes_a_bad_call']:+.0f}."
    )


def _reloads(found: Found) -> str:
    codes = ", ".join(f"{count:,} {code}" for code, count in found["codes"].items())
    low, high = (end / 2**20 for end in found["slope_bytes_a_reload_between"])
    return (
        f"{found['reloads']} reloads under load: {codes}. Memory changed by"
        f" {found['slope_bytes_a_reload'] / 2**20:+.2f} MiB for each reload ({low:+.2f} to"
        f" {high:+.2f})."
    )


def _overhead(found: Found) -> str:
    told = " and ".join(
        f"{row['counting_us_per_call']:.0f} us with {_texts(row['texts_a_call'])} in a call"
        f" ({row['counting_us_per_call'] / row['cpu_us_per_call']['counted']:.1%})"
        for row in found["found"]
    )
    rates = " and ".join(
        f"{row['rate_lost']:+.1%} with {row['texts_a_call']}"
        + (f" (two equal servers differ by {row['rate_apart']:.1%})" if "rate_apart" in row else "")
        for row in found["found"]
    )
    return (
        f"Counting a call for the metrics takes {told}, in CPU time and as a share of the whole"
        " call"
        " (texts of eight words). The server that counts was slower than one that does not by"
        f" {rates}."
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
