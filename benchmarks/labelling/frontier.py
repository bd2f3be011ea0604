"""How far do the frontier labels agree with the stars, by class and by set?

    python -m benchmarks.labelling.frontier --pseudo DIR --data DIR [--write labelled.jsonl]

The bound: stars are the verdict of the writer, but the teacher judged the words. The two cannot
agree where a three-star text leans to one side, so three-class agreement measures the stars as much
as the teacher. The two-class figure leaves out every row that either side calls neutral. No text
leaves this machine. `--write` joins labels and texts for `sentimill curate` and `sentimill train`.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks.record import RESULTS, surroundings, write_result

LABELS = ("negative", "neutral", "positive")


def joined(pseudo: Path, data: Path) -> list[dict[str, Any]]:
    """Return the frontier rows with text, stars and the label that the stars give as `given`."""
    found = [json.loads(line) for line in (pseudo / "frontier-labels.jsonl").open(encoding="utf-8")]
    texts: dict[str, dict[str, Any]] = {}
    for name in sorted({row["set"] for row in found}):
        wanted = {row["id"] for row in found if row["set"] == name}
        columns = ["id", "text", "stars", "label", "split"]
        for row in pq.read_table(data / f"{name}.parquet", columns=columns).to_pylist():
            if row["id"] in wanted:
                texts[row["id"]] = row
    return [
        {
            "id": row["id"],
            "text": texts[row["id"]]["text"],
            "label": row["label"],
            "probs": row["probs"],
            "stars": texts[row["id"]]["stars"],
            "domain": row["set"],
            "given": texts[row["id"]]["label"],
        }
        for row in found
    ]


def agreement(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return how often `label` is `given`, on all rows and on those where neither is neutral."""
    polar = [row for row in rows if "neutral" not in (row["label"], row["given"])]
    confusion = Counter((row["given"], row["label"]) for row in rows)
    return {
        "rows": len(rows),
        "three_class": round(_share(rows), 4),
        "polar_rows": len(polar),
        "two_class": round(_share(polar), 4) if polar else None,
        "recall_of_stars": {
            label: round(confusion[label, label] / given, 4)
            for label in LABELS
            if (given := sum(confusion[label, other] for other in LABELS))
        },
        "given_then_teacher": {f"{a}>{b}": count for (a, b), count in sorted(confusion.items())},
    }


def _share(rows: list[dict[str, Any]]) -> float:
    return sum(1 for row in rows if row["label"] == row["given"]) / len(rows)


def main() -> None:
    """Write the figures, and with --write the joined rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pseudo", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--write", type=Path, help="JSON lines for curate; do not commit them")
    options = parser.parse_args()
    rows = joined(options.pseudo, options.data)
    if options.write is not None:
        with options.write.open("w", encoding="utf-8") as file:
            for row in rows:
                kept = {name: value for name, value in row.items() if value is not None}
                file.write(json.dumps(kept, ensure_ascii=False) + "\n")
    by_set: dict[str, list[dict[str, Any]]] = defaultdict(list)
    by_stars: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        by_set[row["domain"]].append(row)
        by_stars[str(row["stars"])].append(row)
    result = {
        "all": agreement(rows),
        "by_set": {name: agreement(found) for name, found in sorted(by_set.items())},
        "by_stars": {name: agreement(found) for name, found in sorted(by_stars.items())},
    }
    line = write_result(RESULTS / "frontier.json", {"machine": surroundings(), "result": result})
    print(line)  # noqa: T201 # the result of a program


if __name__ == "__main__":
    main()
