"""Which part of a review should the model read if it cannot read all of it?

    python -m benchmarks.training.long_reviews --bundle bundles/reference --data DIR

Three ways are compared on the same weights: the beginning (`head`), the beginning and the end
(`head-tail`, what a bundle does), or the whole review in equal parts whose probs are averaged
(`chunks`). The bound: chunks read every token, so their cost grows with the length of the review,
and they cannot gain on a review that fits. The rows are a sample of the IMDB test split, by a hash
of the text. Two classes are judged, P(positive) against P(negative). Writes
`results/long_reviews.json`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.record import RESULTS, surroundings, write_result
from sentimill.classifier import Classifier, plan_batches, probabilities
from sentimill.text.tokenizer import Encoded, TextEncoder
from sentimill_train.data.schema import Example
from sentimill_train.evaluation.labelled_set import read_sample
from sentimill_train.metrics.intervals import share
from sentimill_train.metrics.significance import compare
from sentimill_train.reporting.markdown import markdown_table

ALL: Final = 16_384  # more tokens than any of these reviews has
Way = Literal["head", "head-tail", "chunks"]
WAYS: Final[tuple[Way, ...]] = ("head", "head-tail", "chunks")
Ids = NDArray[np.int64]


def main() -> None:
    """Compare the three, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder with imdb.parquet")
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS / "long_reviews.json")
    given = parser.parse_args()
    classifier = Classifier.load(given.bundle, threads=given.threads)
    sample = read_sample(
        str(given.data / "imdb.parquet"), classifier.labels, part="test", most=given.rows
    )
    result = {
        **surroundings(),
        "bundle": classifier.bundle.manifest.version,
        "precision": classifier.precision,
        "max_tokens": classifier.bundle.manifest.max_tokens,
        "set": {"name": sample.name, "part": sample.part, "sha256": sample.sha256},
        **judge(classifier, sample.examples),
    }
    write_result(given.out, result)
    sys.stdout.write(table(result))


def judge(classifier: Classifier, examples: Sequence[Example]) -> dict[str, object]:
    """Return figures on the rows that fit, on those that do not, and on all."""
    read = {way: parts_of(classifier, [e.text for e in examples], way) for way in WAYS}
    gold = np.array([int(example.label == "positive") for example in examples])
    long = np.array([len(parts) > 1 for parts in read["chunks"]])
    said: dict[Way, Ids] = {}
    tokens: dict[Way, list[int]] = {}
    for way in WAYS:
        # All three ways read a review that fits alike, so once is enough.
        again = np.flatnonzero(long) if said else np.arange(len(examples))
        answers = said["head"].copy() if said else np.zeros(len(examples), dtype=np.int64)
        answers[again] = positive(classifier, [read[way][i] for i in again.tolist()])
        said[way] = answers
        tokens[way] = [sum(map(len, parts)) for parts in read[way]]
    groups = {"all": np.ones_like(long), "fit": ~long, "longer": long}
    return {
        "rows": {name: int(chosen.sum()) for name, chosen in groups.items()},
        "ways": {
            way: {
                "tokens": int(
                    np.mean([n for n, is_long in zip(tokens[way], long, strict=True) if is_long])
                ),
                "accuracy": {
                    name: msgspec.to_builtins(
                        share(int((said[way] == gold)[chosen].sum()), int(chosen.sum()))
                    )
                    for name, chosen in groups.items()
                },
            }
            for way in WAYS
        },
        "longer_against_head_tail": {
            way: msgspec.to_builtins(
                compare(gold[long], said["head-tail"][long], said[way][long], labels=2)
            )
            for way in WAYS
            if way != "head-tail"
        },
    }


def parts_of(classifier: Classifier, texts: Sequence[str], way: Way) -> list[list[Ids]]:
    """Return what is read of each text: one row of ids, or several whose probs are averaged."""
    most = classifier.bundle.manifest.max_tokens
    data = classifier.bundle.read("tokenizer.json")
    encoder = TextEncoder(
        data,
        max_tokens=ALL if way == "chunks" else most,
        truncation="head" if way == "chunks" else way,
    )
    found = [one.ids for one in encoder.encode(texts) if isinstance(one, Encoded)]
    if len(found) < len(texts):
        raise ValueError(f"{len(texts) - len(found)} of {len(texts)} texts cannot be read")
    return [chunks(ids, most) if way == "chunks" else [ids] for ids in found]


def chunks(ids: Ids, most: int) -> list[Ids]:
    """Return *ids*, a special token at either end, in as few equal parts of at most *most*."""
    first, body, last = ids[:1], ids[1:-1], ids[-1:]
    count = -(-len(body) // (most - 2)) or 1
    return [np.concatenate([first, part, last]) for part in np.array_split(body, count)]


def positive(classifier: Classifier, read: Sequence[Sequence[Ids]]) -> Ids:
    """Return 1 where the mean of the parts' probs is rather positive than negative: (rows,)."""
    parts = [part for row in read for part in row]
    probs = np.zeros((len(parts), len(classifier.labels)))
    temperature = classifier.bundle.manifest.precision(classifier.precision).temperature
    for chosen in plan_batches([len(part) for part in parts], 4096):
        probs[chosen] = probabilities(classifier.run([parts[i] for i in chosen]), temperature)
    starts = np.cumsum([0, *(len(row) for row in read)])[:-1]
    means = np.add.reduceat(probs, starts) / np.array([[len(row)] for row in read])
    labels = classifier.labels
    is_positive = means[:, labels.index("positive")] > means[:, labels.index("negative")]
    found: Ids = is_positive.astype(np.int64)
    return found


def table(result: dict[str, object]) -> str:
    """Return the figures as Markdown: a row a way of reading."""
    ways = msgspec.convert(result["ways"], dict[str, _Found])
    rows = msgspec.convert(result["rows"], dict[str, int])
    against = msgspec.convert(result["longer_against_head_tail"], dict[str, _Against])
    head = (
        "read",
        f"tokens of the {rows['longer']} longer ones",
        f"accuracy on all {rows['all']:,}, %",
        "on the longer ones, %",
        "p against head-tail",
    )
    lines = []
    for way, found in ways.items():
        p = f"{against[way].p_mid:.2f}" if way in against else ""
        cells = (
            way,
            f"{found.tokens}",
            *(percent(found.accuracy[g]) for g in ("all", "longer")),
            p,
        )
        lines.append(cells)
    return markdown_table(head, lines) + "\n"


class _Share(msgspec.Struct):
    value: float
    low: float
    high: float


class _Found(msgspec.Struct):
    tokens: int
    accuracy: dict[str, _Share]


class _Against(msgspec.Struct):
    p_mid: float


def percent(found: _Share) -> str:
    """Return a share with its 95 % interval."""
    return f"{100 * found.value:.1f} ({100 * found.low:.1f} to {100 * found.high:.1f})"


if __name__ == "__main__":
    main()
