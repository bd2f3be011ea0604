"""How much of the reference does a continued student keep, by the share of new weights?

    sentimill train --reviews starter --no-interpolate --no-baselines --out bundles/far
    python -m benchmarks.training.interpolation --far bundles/far --data DIR

Each blend of old and new weights is judged on validation rows only: those of the starter reviews,
and 300 rows of each of six public sets, which are unlike the starter reviews. It takes about ten
minutes.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.record import RESULTS, surroundings, write_result
from sentimill.bundle.reader import open_bundle
from sentimill.bundle.reference import reference_bundle
from sentimill.classifier import encoder_of
from sentimill_train.data.examples import read_examples
from sentimill_train.data.schema import SENTIMENTS, Example
from sentimill_train.data.splits import part
from sentimill_train.data.tokenized import tokenise
from sentimill_train.metrics.classification import macro_f1_of
from sentimill_train.model.student import load_student, predict
from sentimill_train.training.state import weights_of
from sentimill_train.training.weight_interpolation import SHARES, mix

SETS: Final = (
    "yelp_kaggle10k",
    "amazon_finefood5k",
    "hotels_tripadvisor5k",
    "womens_clothing",
    "sst5",
    "twitter_airline",
)
ROWS: Final = 300


def main() -> None:
    """Judge every mix on every set."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--far", type=Path, required=True, help="from `train --no-interpolate`")
    parser.add_argument("--base", type=Path, help="what it went on from; the reference student")
    parser.add_argument("--data", type=Path, required=True, help="folder of Parquet files")
    parser.add_argument("--out", type=Path, default=RESULTS / "interpolation.json")
    given = parser.parse_args()
    opened = open_bundle(given.far)
    encoder = encoder_of(opened.manifest, opened.read("tokenizer.json"))
    chosen = {"starter": list(part(read_examples("starter"), SENTIMENTS).validation)}
    chosen |= {name: drawn(given.data / f"{name}.parquet") for name in SETS}
    rows = {name: tokenise(each, encoder, SENTIMENTS)[0] for name, each in chosen.items()}
    student = load_student(given.base or reference_bundle())
    start, found = weights_of(student), weights_of(load_student(given.far))
    steps: list[dict[str, Any]] = []
    for share in (0.0, *SHARES):
        mix(student, start, found, share)
        answers = {name: predict(student, each).argmax(1) for name, each in rows.items()}
        accuracy = {n: float((answers[n] == each.gold).mean()) for n, each in rows.items()}
        macro_f1 = {n: macro_f1_of(answers[n], each.gold) for n, each in rows.items()}
        steps.append({"share": share, "accuracy": accuracy, "macro_f1": macro_f1})
    result = {
        "question": "what a student keeps of the reference at each share of what training found",
        "rows": {name: len(each) for name, each in rows.items()},
        "steps": steps,
        "mean_accuracy_elsewhere": {
            f"{step['share']}": float(np.mean([step["accuracy"][n] for n in rows if n in SETS]))
            for step in steps
        },
        **surroundings(),
    }
    print(write_result(given.out, result))  # noqa: T201


def drawn(path: Path) -> list[Example]:
    """Return up to `ROWS` labelled validation rows, at random."""
    found = [row for row in read_examples(str(path)) if row.split == "validation" and row.label]
    order = np.random.default_rng(0).permutation(len(found))[:ROWS]
    return [found[i] for i in order]


if __name__ == "__main__":
    main()
