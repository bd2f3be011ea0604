"""Frontier shares, frontier labels or stars: what should a student learn from, on the same texts?

    python -m benchmarks.training.teachers --labelled frontier.jsonl --data DIR

Four arms on the rows of `frontier.py --write`, which have both a frontier model's shares and the
label that their stars give: `shares` alone (soft_weight 1), `labels` (the largest share, hard),
`stars` (hard), and `mixed` (shares and stars, half each, as `train` does by default). Same
encoder, settings and order of rows. Validation, which picks epoch and temperature, has the arm's
own kind of label. Judged on rows of test splits, once by stars and once where people judged the
words (dynasent_r1, sst5): who learns from stars should win the first, who learns from words the
second, and the difference is what a figure "against stars" hides.

The bound: 12 runs of 3,400 rows of at most 64 tokens, once, are 2 million tokens; at the 1,400 a
second of two slow cores half an hour. Runs that the result file already has are not repeated.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.proof.host import RESULTS
from benchmarks.runs import cell, resumed, spread_of
from benchmarks.training.curation import MAX_TOKENS, SEEDS, Bench, parted, test_rows
from sentimill_train.data.schema import Example
from sentimill_train.reporting.markdown import markdown_table
from sentimill_train.training.loop import FitConfig

ARMS: Final = ("shares", "labels", "stars", "mixed")
TESTS: Final = {
    "stars": ("yelp_kaggle10k", "amazon_finefood5k", "hotels_tripadvisor5k", "womens_clothing"),
    "people": ("dynasent_r1", "sst5"),
}
ROWS_A_SET: Final = {"stars": 200, "people": 400}
FIGURES: Final = ("accuracy", "macro_f1", "two_class", "ece")


def taught(arm: str, rows: Sequence[Example], given: dict[str, str]) -> list[Example]:
    """Return *rows* as *arm* sees them. given: the label that the stars give, by id."""
    if arm in ("stars", "mixed"):
        rows = [dataclasses.replace(row, label=given[row.id]) for row in rows]
    if arm in ("stars", "labels"):
        rows = [dataclasses.replace(row, probs=None) for row in rows]
    return list(rows)


def summary(runs: dict[str, Any]) -> list[dict[str, Any]]:
    """Return mean and standard deviation over seeds, a row for each test and arm."""
    table = []
    for test in TESTS:
        for arm in ARMS:
            found = [run[test] for run in runs.values() if run["arm"] == arm]
            if not found:
                continue
            line: dict[str, Any] = {"judged_by": test, "arm": arm, "runs": len(found)}
            line |= spread_of(found, FIGURES)
            table.append(line)
    return table


def write_table(markdown: Path, state: dict[str, Any]) -> None:
    """Write the table, with the machine and the settings under it."""
    settings, found = state["settings"], state["machine"]
    lines = [
        "# Frontier shares, frontier labels, or stars?",
        "",
        f"Students on {settings['pool_rows']:,} texts, judged by stars"
        f" ({', '.join(TESTS['stars'])}) and by what people said of the words"
        f" ({', '.join(TESTS['people'])}). Mean and standard deviation over seeds.",
        "",
        markdown_table(
            ("judged by", "learns from", "runs", "accuracy", "macro-F1", "two-class", "ECE"),
            [
                [
                    line["judged_by"],
                    line["arm"],
                    str(line["runs"]),
                    *(cell(line, name) for name in FIGURES),
                ]
                for line in state["table"]
            ],
        ),
    ]
    trial = ", **a trial with random layers: no result**" if settings["tiny"] else ""
    lines += [
        "",
        f"{found['cpu']}, {found['cores']} cores, commit {found['commit']}, {found['utc']}{trial}."
        f" About {settings['budget_rows']:,} rows shown a run, at most {settings['max_tokens']}"
        " tokens each. Made by `python -m benchmarks.training.teachers`.",
        "",
    ]
    markdown.write_text("\n".join(lines), encoding="utf-8")


def main() -> None:
    """Fill the table, run by run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--labelled", type=Path, required=True, help="from frontier.py --write")
    parser.add_argument("--data", type=Path, required=True, help="folder of Parquet files")
    parser.add_argument("--budget-rows", type=int, default=3400, help="rows shown in a run")
    parser.add_argument("--tiny", action="store_true", help="random two layers: a trial only")
    parser.add_argument("--out", type=Path, default=RESULTS / "teachers.json")
    options = parser.parse_args()
    with options.labelled.open(encoding="utf-8") as lines:
        given = {row["id"]: row["given"] for row in map(json.loads, lines)}
    pool, validation = parted(str(options.labelled))
    test = [
        row
        for name, sets in TESTS.items()
        for row in test_rows(options.data, sets, ROWS_A_SET[name])
    ]
    settings = {
        "budget_rows": options.budget_rows,
        "max_tokens": MAX_TOKENS,
        "pool_rows": len(pool),
        "validation_rows": len(validation),
        "test_rows": len(test),
        "tiny": options.tiny,
        "config": dataclasses.asdict(FitConfig()),
    }
    state = resumed(options.out, settings)
    benches = {arm: Bench(test, taught(arm, validation, given), tiny=options.tiny) for arm in ARMS}
    for seed in SEEDS:  # seeds outside: a table that is cut short is still a whole table
        for arm in ARMS:
            name = f"{arm} seed {seed}"
            if name in state["runs"]:
                continue
            began, bench = time.monotonic(), benches[arm]
            weight = 1.0 if arm == "shares" else 0.5
            student, run = bench.run(taught(arm, pool, given), seed, options.budget_rows, weight)
            run |= {"arm": arm, "seed": seed}
            probs = bench.probs(student, run["temperature"])
            run |= {of: bench.judged(probs, TESTS[of]) for of in TESTS}
            run["seconds"] = round(time.monotonic() - began, 1)
            state["runs"][name] = run
            state["table"] = summary(state["runs"])
            options.out.write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
            print(name, {of: run[of]["accuracy"] for of in TESTS}, flush=True)  # noqa: T201 # progress of a program
    write_table(options.out.with_suffix(".md"), state)


if __name__ == "__main__":
    main()
