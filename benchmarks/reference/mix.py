"""What is the reference student trained on? Writes that mix, from review sets and labels.

    python -m benchmarks.reference.mix --data DIR --pseudo FILE --out FOLDER

DIR holds one Parquet file a set with the columns id, text, stars, label and split. FILE is JSON
lines of `set`, `id` and `probs` about whole reviews; `reference/frontier-labels.tsv`, beside this
file, has such shares for sentences and short reviews, by position. Only rows of train splits are
taken, and of those none whose text, or whose sentence, is in a split that a figure is taken on.
The mix has two kinds of rows: those with a teacher's shares (`probs`), and reviews with the label
that their stars or their set give. It is learnt in two stages: broad.jsonl is all of it, read
short; fine.jsonl is every row with shares and some of the rest, read longer. held-out.jsonl has
rows of validation and of test splits, in their natural mix, for both.
"""

from __future__ import annotations

import argparse
import csv
import gzip
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

from sentimill_train.data.splits import normalise

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

FINE_CAPS: Final = {
    **dict.fromkeys(CAPS, 60),
    "amazon_blitzer30k": 1000,
    "sst5": 4000,
    "yelp_kaggle10k": 4000,
}
"""Rows a label with the label alone, of the second stage."""

HELD_OUT: Final = 250
"""Rows a set in validation, and in test."""

JUDGED_ON: Final = (*CAPS, "dynasent_r1", "rt_polarity", "twitter_airline", "yelp_augpe")
LABELS: Final = ("negative", "neutral", "positive")
TSV: Final = Path(__file__).with_name("frontier-labels.tsv")

_SENTENCE: Final = re.compile(r"[^.!?\n]+(?:[.!?]+[\"')]*|\n|$)")

Row = dict[str, Any]


def main() -> None:
    """Write the mix, and say on stderr what is in it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of Parquet files")
    parser.add_argument("--pseudo", type=Path, required=True, help="shares of whole reviews")
    parser.add_argument(
        "--suite", type=Path, help="behavioural suite (.jsonl.gz) whose originals are left out"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--seed", type=int, default=0, help="draws the rows")
    given = parser.parse_args()
    left_out = originals(given.suite) if given.suite else set()
    sets = {name: read(given.data, name) for name in JUDGED_ON}
    broad, fine = mix(sets, given.pseudo, left_out, random.Random(given.seed))
    given.out.mkdir(parents=True, exist_ok=True)
    write(given.out / "broad.jsonl", broad)
    write(given.out / "fine.jsonl", fine)
    write(given.out / "held-out.jsonl", held_out(sets, random.Random(given.seed)))


def write(file: Path, rows: list[Row]) -> None:
    """Write *rows*, and say on stderr what is in them."""
    with file.open("w", encoding="utf-8") as out:
        out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    sys.stderr.write(f"{file.name}: {len(rows)} rows\n")
    counts = Counter((row["domain"], "probs" in row, row["label"]) for row in rows)
    for (domain, soft, label), count in sorted(counts.items()):
        sys.stderr.write(f"{domain:24}{'shares' if soft else 'label':8}{label:10}{count:7}\n")


def mix(
    sets: dict[str, list[Row]], pseudo: Path, left_out: set[str], draw: random.Random
) -> tuple[list[Row], list[Row]]:
    """Return the rows of both stages, shuffled: text, label, domain, split and, of some, probs."""
    judged = {form for rows in sets.values() for row in rows for form in forms_if_judged(row)}
    reviews = {
        row["id"]: {**row, "domain": name}
        for name, rows in sets.items()
        if name in CAPS
        for row in rows
        if row["split"] == "train" and row["id"] not in left_out
    }
    taught = allowed([*of_sentences(reviews), *of_reviews(reviews, pseudo)], judged)
    known = {plain(row["text"]) for row in taught}
    starred = [row_of(review, None) for review in capped(list(reviews.values()), CAPS, draw)]
    starred = allowed([row for row in starred if plain(row["text"]) not in known], judged)
    broad, fine = [*taught, *starred], [*taught, *capped(starred, FINE_CAPS, draw)]
    draw.shuffle(broad)
    draw.shuffle(fine)
    return broad, fine


def allowed(rows: list[Row], judged: set[str]) -> list[Row]:
    """Return the rows none of whose forms is *judged*."""
    return [row for row in rows if judged.isdisjoint(forms(row["text"]))]


def held_out(sets: dict[str, list[Row]], draw: random.Random) -> list[Row]:
    """Return up to `HELD_OUT` rows of each split but train, of the sets that are learnt from.

    They stop the training and set the temperature, so the sets that are far from these reviews
    (tweets about airlines, sentences chosen to be hard) stay out of it.
    """
    rows = []
    for name in (*CAPS, "yelp_augpe"):
        for split in ("validation", "test"):
            found = [row for row in sets[name] if row["split"] == split]
            chosen = draw.sample(found, min(HELD_OUT, len(found)))
            rows += [{**row_of({**row, "domain": name}, None), "split": split} for row in chosen]
    return rows


def originals(suite: Path) -> set[str]:
    """Return the ids of the reviews that the pairs of a suite were made from."""
    with gzip.open(suite, "rt", encoding="utf-8") as lines:
        return {str(json.loads(line).get("imdb_id")) for line in lines}


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
            shares = [int(line[label]) / 100 for label in LABELS]
            yield row_of({**review, "text": text}, shares)


def of_reviews(reviews: dict[str, Row], pseudo: Path) -> Iterator[Row]:
    """Yield the labelled whole reviews."""
    for line in pseudo.read_text(encoding="utf-8").splitlines():
        shares = json.loads(line)
        if shares["id"] in reviews:
            yield row_of(reviews[shares["id"]], shares["probs"])


def capped(rows: list[Row], caps: dict[str, int], draw: random.Random) -> list[Row]:
    """Return up to the cap of each label of each set, drawn at random."""
    taken: Counter[tuple[str, str]] = Counter()
    kept = []
    for row in draw.sample(rows, len(rows)):
        key = (row["domain"], row["label"])
        if taken[key] < caps[row["domain"]]:
            taken[key] += 1
            kept.append(row)
    return kept


def row_of(review: Row, shares: list[float] | None) -> Row:
    """Return a row of the mix."""
    row = {key: review[key] for key in ("text", "label", "domain")} | {"split": "train"}
    if shares is None:
        return row
    return {**row, "label": LABELS[shares.index(max(shares))], "probs": shares}


if __name__ == "__main__":
    main()
