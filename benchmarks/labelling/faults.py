"""Does labelling keep its promises under faults? Three runs, one question each.

1. faults: 20,000 rows, with each of eight faults in 5 % of the calls. Is every row either labelled
   once or listed as failed, and does the store's spending agree with what the server delivered?
2. kills: the same rows, with SIGKILL at 20 random moments. Is a stored answer ever asked for again,
   and is the final file the same as that of an uninterrupted run?
3. race: 200 workers and a budget for 1,000 answers. By the server's count, is the budget ever
   exceeded?

The bound: the server and the real SDK share two cores, at about 3 ms of CPU a call, so 20,000 rows
at 1.6 calls each take at least a minute and a half. Run it as
`python -m benchmarks.labelling.faults [faults|kills|race] [--rows N]`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "support"))

from benchmarks.record import RESULTS, surroundings, write_result
from labelling_runs import PRICE, bill, lines, whole_bill, write_reviews
from teacher_server import KINDS, Behaviour, TeacherServer, teacher_server

MAIN = Path(__file__).parents[2] / "tests" / "support" / "label_process.py"
EACH = 0.05
HOPELESS = 0.005


def start(folder: Path, url: str, *options: str) -> subprocess.Popen[bytes]:
    """Start `sentimill label` on the reviews of *folder*."""
    command = [sys.executable, str(MAIN), "label", str(folder / "in.jsonl")]
    command += [str(folder / "out.jsonl"), "--teacher", f"openai:m@{url}", "--yes"]
    command += ["--price-in", str(PRICE[0]), "--price-out", str(PRICE[1]), *options]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def accounted(folder: Path, rows: int) -> dict[str, Any]:
    """Return whether every row is in exactly one of the two files."""
    out = folder / "out.jsonl"
    failed = lines(folder / "out.jsonl.failed.jsonl")
    ids = Counter([row["id"] for row in lines(out)] + [row["id"] for row in failed])
    return {
        "rows": rows,
        "labelled": len(lines(out)),
        "listed": len(failed),
        "reasons": dict(Counter(row["reason"] for row in failed)),
        "each_row_once": ids == Counter(f"r{n}" for n in range(rows)),
    }


def server_says(server: TeacherServer) -> dict[str, Any]:
    """Return the server's own count."""
    return {
        "calls": server.count.calls,
        "delivered": server.count.delivered,
        "bill_usd": bill(server),
        "bill_with_lost_replies_usd": whole_bill(server),
        "faults": dict(server.count.faults),
    }


def faults(folder: Path, rows: int) -> dict[str, Any]:
    """Label with every kind of fault, and compare the store with the server's count."""
    write_reviews(folder / "in.jsonl", rows)
    behaviour = Behaviour(faults=dict.fromkeys(KINDS, EACH), hopeless=HOPELESS, hang_s=30.0)
    started = time.monotonic()
    with teacher_server(behaviour) as server:
        options = ("--budget", "1000", "--concurrency", "64", "--timeout-s", "6")
        code = start(folder, server.url, *options).wait()
        said = server_says(server)
    report = json.loads((folder / "out.jsonl.report.json").read_text())
    return accounted(folder, rows) | {
        "exit_code": code,
        "seconds": round(time.monotonic() - started, 1),
        "server": said,
        "spent_usd": report["spent_usd"],
        "at_risk_usd": report["at_risk_usd"],
        "spend_is_the_servers_count": abs(report["spent_usd"] - said["bill_usd"]) < 1e-9,
        "expected_usd": report["expected_usd"],
        "client_faults": report["faults"],
    }


def stored(store: Path) -> set[str]:
    """Return hashes of texts with a reply that a reader can use, by a reading of its own."""
    if not store.exists():
        return set()
    with sqlite3.connect(store) as connection:
        rows = connection.execute("SELECT text, raw FROM call WHERE raw LIKE '%\"stop\"%'")
        found = {text for text, raw in rows if _good(raw)}
    connection.close()
    return found


def _good(raw: str) -> bool:
    choice = json.loads(raw)["choices"][0]
    content = choice["message"]["content"] or ""
    return (
        choice["finish_reason"] == "stop"
        and content.endswith('"}')
        and choice["logprobs"] is not None
    )


def kills(folder: Path, rows: int) -> dict[str, Any]:
    """Kill the run at random moments, and compare its result with an uninterrupted run."""
    import hashlib

    calm, wild = folder / "calm", folder / "wild"
    for part in (calm, wild):
        part.mkdir()
        write_reviews(part / "in.jsonl", rows)
    each = {kind: EACH for kind in KINDS if kind != "timeout"}
    behaviour = Behaviour(faults=each, most_faults=3, hopeless=HOPELESS)
    options = ("--budget", "1000", "--concurrency", "64", "--timeout-s", "60")
    with teacher_server(behaviour) as server:
        start(calm, server.url, *options).wait()
        port, calls = server.port, server.count.calls
    rng = random.Random(7)
    moments = sorted(rng.sample(range(50, calls), 20))
    again: list[str] = []
    lost = 0
    with teacher_server(behaviour, port=port) as server:
        for moment in [*moments, None]:
            known = stored(wild / "out.jsonl.answers.sqlite")
            before = server.count.asked.copy()
            process = start(wild, server.url, *options)
            while process.poll() is None and (moment is None or server.count.calls < moment):
                time.sleep(0.002)
            if moment is not None and process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
            process.wait()
            asked = server.count.asked - before
            again += [text for text in asked if hashlib.sha256(text.encode()).hexdigest() in known]
        delivered_twice = sum(count - 1 for count in server.count.good.values() if count > 1)
        said = server_says(server)
    store = wild / "out.jsonl.answers.sqlite"
    with sqlite3.connect(store) as connection:
        (lost,) = connection.execute("SELECT count(*) FROM call WHERE outcome = 'LOST'").fetchone()
        (booked,) = connection.execute("SELECT sum(spent) + sum(at_risk) FROM call").fetchone()
    connection.close()
    return accounted(wild, rows) | {
        "kills_at_call": moments,
        "stored_answers_asked_again": len(again),
        "calls_under_way_at_the_kills": lost,
        "answers_lost_in_flight_and_paid_twice": delivered_twice,
        "same_bytes_as_uninterrupted": (wild / "out.jsonl").read_bytes()
        == (calm / "out.jsonl").read_bytes(),
        "booked_usd": booked / 1e12,
        "bill_within_booked": said["bill_with_lost_replies_usd"] <= booked / 1e12,
        "server": said,
    }


def race(folder: Path, rows: int) -> dict[str, Any]:
    """Race 200 workers for the budget, without and with faults."""
    found: dict[str, Any] = {}
    one = (300 * PRICE[0] + 4 * PRICE[1]) / 1e6
    for name, each in (("calm", 0.0), ("faulty", EACH)):
        part = folder / name
        part.mkdir()
        write_reviews(part / "in.jsonl", 5000)
        behaviour = Behaviour(faults=dict.fromkeys(KINDS, each), hang_s=30.0, latency_s=0.05)
        budget = 1000 * one
        with teacher_server(behaviour) as server:
            options = ("--budget", f"{budget:.6f}", "--concurrency", "200", "--timeout-s", "6")
            code = start(part, server.url, *options).wait()
            said = server_says(server)
        found[name] = accounted(part, 5000) | {
            "budget_usd": round(budget, 6),
            "exit_code": code,
            "most_calls_at_once": server.count.most_at_once,
            "passed_the_budget": said["bill_with_lost_replies_usd"] > budget,
            "server": said,
        }
    return found


def main() -> None:
    """Run the questions that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("which", choices=["faults", "kills", "race"])
    parser.add_argument("--rows", type=int, default=20_000)
    options = parser.parse_args()
    os.environ["OPENAI_API_KEY"] = "test"
    runs = {"faults": faults, "kills": kills, "race": race}
    before = surroundings()
    with tempfile.TemporaryDirectory() as folder:
        found = runs[options.which](Path(folder), options.rows)
    settings = {"fault_share_each": EACH, "hopeless_share": HOPELESS, "kinds": list(KINDS)}
    result = {"machine": before, "settings": settings, "result": found}
    line = write_result(RESULTS / f"labelling_{options.which}.json", result)
    print(line)  # noqa: T201 # the result of a program


if __name__ == "__main__":
    main()
