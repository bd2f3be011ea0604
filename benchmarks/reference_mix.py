"""What is the reference student trained on? Writes that mix, from review sets and labels.

    python benchmarks/reference_mix.py --data DIR --pseudo FILE --out mix.jsonl

DIR holds one Parquet file a set with the columns id, text, stars, label and split. FILE is JSON
lines of `set`, `id` and `probs` about whole reviews; `reference/frontier-labels.tsv`, beside this
file, has such shares for sentences and short reviews, by position. Only rows of train splits are
taken, and of those none whose text, or whose sentence, is in a split that a figure is taken on.
The mix has two kinds of rows: those with a teacher's shares (`probs`), and reviews with the label
that their stars or their set give.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import random
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq

from sentimill_train.records import normalise

CAPS: Final = {
    # rows a label; the whole set where it is smaller
    "amazon_blitzer30k": 9000,
    "amazon_devices": 2500,
    "amazon_finefood5k": 1500,
    "amazon_memcard": 400,
    "amazon_musical": 1500,
    "customer_reviews_cr": 2000,
    "druglib": 700,
    "flipkart": 2500,
    "hotels_datafiniti": 1500,
    "hotels_tripadvisor5k": 1200,
    "imdb": 5000,
    "mcdonalds": 2500,
    "sst5": 4000,
    "tweets_general": 2500,
    "uci_sentences": 1500,
    "womens_clothing": 2500,
    "yelp_kaggle10k": 4000,
}
"""Not in it: rt_polarity, whose sentences are those of sst5's test split; twitter_airline, whose
tweets are the seeds of CheckList; dynasent_r1 and yelp_augpe, which have no train split."""

JUDGED_ON: Final = (*CAPS, "dynasent_r1", "rt_polarity", "twitter_airline", "yelp_augpe")
LABELS: Final = ("negative", "neutral", "positive")
TSV: Final = Path(__file__).parent / "reference" / "frontier-labels.tsv"

_SENTENCE: Final = re.compile(r"[^.!?\n]+(?:[.!?]+[\"')]*|\n|$)")

Row = dict[str, Any]


def main() -> None:
    """Write the mix, and say on stderr what is in it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of Parquet files")
    parser.add_argument("--pseudo", type=Path, required=True, help="shares of whole reviews")
    parser.add_argument("--leave-out", type=Path, help="ids of reviews that a suite is made of")
    parser.add_argument("--out", type=Path, required=True, help="JSON lines to write")
    parser.add_argument("--seed", type=int, default=0, help="draws the rows")
    given = parser.parse_args()
    left_out = set(given.leave_out.read_text().split()) if given.leave_out else set()
    rows = mix(given.data, given.pseudo, left_out, given.seed)
    with given.out.open("w", encoding="utf-8") as out:
        for row in rows:
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
    counts = Counter((row["domain"], "probs" in row, row["label"]) for row in rows)
    for (domain, soft, label), count in sorted(counts.items()):
        sys.stderr.write(f"{domain:24}{'shares' if soft else 'label':8}{label:10}{count:7}\n")


def mix(data: Path, pseudo: Path, left_out: set[str], seed: int) -> list[Row]:
    """Return the rows of train, shuffled: text, label, domain, split and, of some, probs."""
    sets = {name: read(data, name) for name in JUDGED_ON if (data / f"{name}.parquet").is_file()}
    judged = {form for rows in sets.values() for row in rows for form in forms_if_judged(row)}
    reviews = {
        row["id"]: {**row, "domain": name}
        for name, rows in sets.items()
        if name in CAPS
        for row in rows
        if row["split"] == "train" and row["id"] not in left_out
    }
    taught = [*of_sentences(reviews), *of_reviews(reviews, pseudo)]
    known = {plain(row["text"]) for row in taught}
    draw = random.Random(seed)
    starred = [row for row in capped(reviews, draw) if plain(row["text"]) not in known]
    rows = [row for row in (*taught, *starred) if judged.isdisjoint(forms(row["text"]))]
    draw.shuffle(rows)
    return rows


def read(data: Path, name: str) -> list[Row]:
    """Return the rows of a set."""
    columns = ["id", "text", "label", "split"]
    found: list[Row] = pq.read_table(data / f"{name}.parquet", columns=columns).to_pylist()
    return found


def plain(text: str) -> str:
    """Return the form in which two texts count as the same here: letters and digits alone."""
    return re.sub(r"[^a-z0-9]+", " ", normalise(text)).strip()


def forms(text: str) -> set[str]:
    """Return a text and each of its sentences of eight words or more, in their plain form.

    Shorter sentences ("Great service!") are in too many reviews to tell of a leak.
    """
    sentences = {plain(match.group()) for match in _SENTENCE.finditer(text)}
    return {plain(text), *(s for s in sentences if len(s.split()) >= 8)}


def forms_if_judged(row: Row) -> set[str]:
    """Return the forms of a row that a figure may be taken on, none of others."""
    return forms(row["text"]) if row["split"] in ("validation", "test") else set()


def of_sentences(reviews: dict[str, Row]) -> Iterator[Row]:
    """Yield the labelled pieces of reviews."""
    with TSV.open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file, delimiter="\t"):
            review = reviews.get(line["id"])
            if review is None:
                continue
            text = review["text"][int(line["start"]) : int(line["end"])]
            if hashlib.sha256(text.encode()).hexdigest()[:8] != line["sha256"]:
                raise SystemExit(f"{line['id']} has another text than the one that was labelled")
            yield row_of(text, review, [int(line[label]) / 100 for label in LABELS])


def of_reviews(reviews: dict[str, Row], pseudo: Path) -> Iterator[Row]:
    """Yield the labelled whole reviews."""
    for line in pseudo.read_text(encoding="utf-8").splitlines():
        shares = json.loads(line)
        if shares["id"] in reviews:
            review = reviews[shares["id"]]
            yield row_of(review["text"], review, shares["probs"])


def capped(reviews: dict[str, Row], draw: random.Random) -> Iterator[Row]:
    """Yield up to the cap of each label of each set."""
    drawn = sorted(reviews.values(), key=lambda review: str(review["id"]))
    draw.shuffle(drawn)
    taken: Counter[tuple[str, str]] = Counter()
    for review in drawn:
        key = (review["domain"], review["label"])
        if taken[key] < CAPS[review["domain"]]:
            taken[key] += 1
            yield row_of(review["text"], review, None)


def row_of(text: str, review: Row, shares: list[float] | None) -> Row:
    """Return a row of the mix."""
    row = {"text": text, "label": review["label"], "domain": review["domain"], "split": "train"}
    if shares is None:
        return row
    return {**row, "label": LABELS[shares.index(max(shares))], "probs": shares}


if __name__ == "__main__":
    main()
