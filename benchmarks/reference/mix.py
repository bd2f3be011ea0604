"""What is the reference student trained on? Writes its files, from review sets and labels.

    python -m benchmarks.reference.mix --data DIR --pseudo FILE --out FOLDER

DIR holds one Parquet file a set with the columns id, text, stars, label and split. FILE is JSON
lines of `set`, `id` and `probs` about whole reviews; `frontier-labels.tsv`, beside this file, has
such shares for sentences and short reviews, by position, and --hard-labels names more of that form.
Only rows of train splits and of unlabelled sets are taken, and none whose text, or a sentence of
it, is in a split that a figure is taken on. Four files are written:

- assistant.jsonl: rows with a teacher's shares, which weigh twice, and reviews with the label of
  their stars or their set. A set without neutral names its labels in `labels_allowed`.
- texts.jsonl: every review and single sentences, without labels. The assistant answers them, and
  the student learns its answers.
- fine.jsonl: rows with shares, the starter reviews, the hard kinds and --own texts; and anchors,
  texts without shares on which the student keeps the answers of the assistant.
- held-out.jsonl: rows of validation and test splits, in their natural mix, for all three trainings.
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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq

from sentimill_train.data.examples import read_examples
from sentimill_train.data.splits import normalise, split_of

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

TWO_CLASS: Final = ("imdb", "amazon_blitzer30k", "customer_reviews_cr", "uci_sentences")
"""Sets that know no neutral: their labels say nothing about how neutral a review is."""

UNLABELLED: Final = ("imdb_unsup",)
PACKAGED: Final = ("starter", "hard-kinds")
SHARES_WEIGHT: Final = 2.0
"""How much a row with a teacher's shares counts for the assistant."""

SENTENCE_WORDS: Final = range(4, 46)

HELD_OUT: Final = 250
"""Rows a set in validation, and in test."""

JUDGED_ON: Final = (*CAPS, "dynasent_r1", "rt_polarity", "twitter_airline", "yelp_augpe")
LABELS: Final = ("negative", "neutral", "positive")
TSV: Final = Path(__file__).with_name("frontier-labels.tsv")
HARD_KINDS_HELD_OUT: Final = Path(__file__).with_name("hard-kinds-held-out.tsv")
"""The sha256 of the texts of the hard kinds that are kept for validation and test, by blocks of ten
neighbouring lines, so that the sides of a contrast pair stay together."""

_SENTENCE: Final = re.compile(r"[^.!?\n]+(?:[.!?]+[\"')]*|\n|$)")

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Mix:
    """The rows of three trainings: of the assistant, and of the student's two."""

    assistant: list[Row]
    texts: list[Row]
    fine: list[Row]


def main() -> None:
    """Write the files, and print on stderr what is in them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of Parquet files")
    parser.add_argument("--pseudo", type=Path, required=True, help="shares of whole reviews")
    parser.add_argument("--hard-labels", type=Path, help="more shares by position (.tsv)")
    parser.add_argument("--own", type=Path, nargs="*", default=[], help="JSON lines: text, probs")
    parser.add_argument("--packaged", nargs="*", default=PACKAGED, help="reviews of the package")
    parser.add_argument(
        "--suite", type=Path, help="behavioural suite (.jsonl.gz) whose originals are left out"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--anchors", type=int, default=30_000, help="texts in fine.jsonl")
    parser.add_argument("--seed", type=int, default=0, help="draws the rows")
    given = parser.parse_args()
    left_out = originals(given.suite) if given.suite else set()
    sets = {
        name: read(given.data, name)
        for name in (*JUDGED_ON, *UNLABELLED)
        if (given.data / f"{name}.parquet").exists()
    }
    tables = [TSV, *([given.hard_labels] if given.hard_labels else [])]
    draw = random.Random(given.seed)
    made = mix(sets, given.pseudo, left_out, draw, tables=tables, anchors=given.anchors)
    packaged = packaged_rows(given.packaged)
    own = [json.loads(line) for file in given.own for line in file.open(encoding="utf-8")]
    taught = [*packaged["train"], *(row for row in own if row.get("split", "train") == "train")]
    given.out.mkdir(parents=True, exist_ok=True)
    heavy = [{**row, "weight": SHARES_WEIGHT} for row in taught]
    write(given.out / "assistant.jsonl", [*made.assistant, *heavy])
    write(given.out / "texts.jsonl", [*made.texts, *({"text": row["text"]} for row in taught)])
    write(given.out / "fine.jsonl", [*made.fine, *taught])
    held = [*held_out(sets, random.Random(given.seed)), *packaged["validation"], *packaged["test"]]
    # A named column of weights must be in every file of a training.
    write(given.out / "held-out.jsonl", [{**row, "weight": 1.0} for row in held])


def write(file: Path, rows: list[Row]) -> None:
    """Write *rows*, and print on stderr what is in them."""
    with file.open("w", encoding="utf-8") as out:
        out.writelines(
            json.dumps({"split": "train", **row}, ensure_ascii=False) + "\n" for row in rows
        )
    sys.stderr.write(f"{file.name}: {len(rows)} rows\n")
    counts = Counter((row.get("domain"), "probs" in row, row.get("label")) for row in rows)
    for (domain, soft, label), count in sorted(counts.items(), key=str):
        sys.stderr.write(f"{domain!s:24}{'shares' if soft else 'label':8}{label!s:10}{count:7}\n")


def mix(
    sets: dict[str, list[Row]],
    pseudo: Path,
    left_out: set[str],
    draw: random.Random,
    *,
    tables: Sequence[Path],
    anchors: int = 0,
) -> Mix:
    """Return the rows of the three trainings, shuffled; some have a label, some probs."""
    judged = {form for rows in sets.values() for row in rows for form in forms_if_judged(row)}
    reviews = {
        row["id"]: {**row, "domain": name}
        for name, rows in sets.items()
        if name in (*CAPS, *UNLABELLED)
        for row in rows
        if (row["split"] == "train" or name in UNLABELLED) and row["id"] not in left_out
    }
    pieces = [row for table in tables for row in of_sentences(reviews, table)]
    taught = allowed([*pieces, *of_reviews(reviews, pseudo)], judged)
    known = {plain(row["text"]) for row in taught}
    labelled = [review for review in reviews.values() if review["domain"] in CAPS]
    starred = [row_of(review, None) for review in capped(labelled, CAPS, draw)]
    starred = allowed([row for row in starred if plain(row["text"]) not in known], judged)
    texts = allowed(list(all_texts(reviews)), judged)
    assistant = [*({**row, "weight": SHARES_WEIGHT} for row in taught), *starred]
    fine = [*taught, *draw.sample(texts, min(anchors, len(texts)))]
    for rows in (assistant, texts, fine):
        draw.shuffle(rows)
    return Mix(assistant=assistant, texts=texts, fine=fine)


def all_texts(reviews: dict[str, Row]) -> Iterator[Row]:
    """Yield every review, and its single sentences of a usual length, once each."""
    seen: set[str] = set()
    for review in reviews.values():
        sentences = _SENTENCE.finditer(line_broken(review["text"]))
        for text in (review["text"], *(match.group().strip() for match in sentences)):
            usual = text is review["text"] or len(text.split()) in SENTENCE_WORDS
            if usual and text not in seen:
                seen.add(text)
                yield {"text": text, "domain": review["domain"]}


def packaged_rows(names: Sequence[str] = PACKAGED) -> dict[str, list[Row]]:
    """Return the reviews *names* that come with the package, by split."""
    held: dict[str, str] = {}
    for line in HARD_KINDS_HELD_OUT.read_text(encoding="utf-8").splitlines():
        digest, split, *_ = line.split("\t")
        held[digest] = split
    found: dict[str, list[Row]] = {"train": [], "validation": [], "test": []}
    for name in names:
        for example in read_examples(name):
            digest = hashlib.sha256(example.text.encode()).hexdigest()
            split = split_of(example.text) if name == "starter" else held.get(digest, "train")
            row = {"text": example.text, "label": example.label, "probs": example.probs}
            found[split].append({**row, "domain": name, "split": split})
    return found


def allowed(rows: list[Row], judged: set[str]) -> list[Row]:
    """Return the rows without any form that is in *judged*."""
    return [row for row in rows if judged.isdisjoint(forms(row["text"]))]


def held_out(sets: dict[str, list[Row]], draw: random.Random) -> list[Row]:
    """Return up to `HELD_OUT` rows of each split but train, of the sets that are learnt from.

    They stop the training and set the temperature, so the sets that are far from these reviews
    (tweets about airlines, sentences chosen to be hard) stay out of it.
    """
    rows = []
    for name in (*CAPS, "yelp_augpe"):
        for split in ("validation", "test"):
            found = [row for row in sets.get(name, ()) if row["split"] == split]
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
    """Return the letters and digits of a text. Texts with the same ones count as equal here."""
    return re.sub(r"[^a-z0-9]+", " ", normalise(text)).strip()


def forms(text: str) -> set[str]:
    """Return a text and each of its sentences of eight words or more, in their plain form.

    Shorter sentences ("Great service!") are in too many reviews to tell of a leak.
    """
    sentences = {plain(match.group()) for match in _SENTENCE.finditer(text)}
    return {plain(text), *(s for s in sentences if len(s.split()) >= 8)}


def forms_if_judged(row: Row) -> set[str]:
    """Return the forms of a row that may be judged on; no forms of other rows."""
    return forms(row["text"]) if row["split"] in ("validation", "test") else set()


def line_broken(text: str) -> str:
    """Return *text* with the line breaks of HTML replaced by newlines."""
    return text.replace("<br />", "\n")


def of_sentences(reviews: dict[str, Row], table: Path) -> Iterator[Row]:
    """Yield the labelled pieces of reviews.

    The positions in a table count characters of the text as it is, or with its line breaks of HTML
    replaced: the hash tells which.
    """
    with table.open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file, delimiter="\t"):
            review = reviews.get(line["id"])
            if review is None:
                continue
            start, end = int(line["start"]), int(line["end"])
            forms_of_text = (review["text"], line_broken(review["text"]))
            pieces = [text[start:end] for text in forms_of_text]
            digests = [hashlib.sha256(piece.encode()).hexdigest()[:8] for piece in pieces]
            if line["sha256"] not in digests:
                raise SystemExit(f"{line['id']} has another text than the one that was labelled")
            shares = [int(line[label]) / 100 for label in LABELS]
            piece = pieces[digests.index(line["sha256"])]
            yield row_of({**review, "text": piece}, shares)


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
    if shares is not None:
        return {**row, "label": LABELS[shares.index(max(shares))], "probs": shares}
    if review["domain"] in TWO_CLASS:
        row["labels_allowed"] = ["negative", "positive"]
    return row


if __name__ == "__main__":
    main()
