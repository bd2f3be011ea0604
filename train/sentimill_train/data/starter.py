"""Writes the test split of the starter reviews as CSV, as an example for `score`.

python -m sentimill_train.data.starter reviews.csv
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from sentimill_train.data.examples import read_examples
from sentimill_train.data.splits import split_of


def write_test_csv(path: Path) -> int:
    """Write the test split with columns id, text, label, domain, and return how many rows."""
    examples = [e for e in read_examples("starter") if split_of(e.text) == "test"]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text", "label", "domain"])
        writer.writerows([e.id, e.text, e.label, e.domain] for e in examples)
    return len(examples)


if __name__ == "__main__":
    write_test_csv(Path(sys.argv[1]))
