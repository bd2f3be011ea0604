"""A labelling job as data, and the first pass over its input, which counts the texts to ask."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, TypeVar

from sentimill.errors import TextError
from sentimill.text.cleaning import tidy
from sentimill_train.data.examples import stream_examples
from sentimill_train.data.schema import SENTIMENTS, Columns, Example
from sentimill_train.labelling.pii_redaction import redact
from sentimill_train.labelling.prompt import SENTIMENT, Shot, shorten
from sentimill_train.labelling.requests.messages import Mode
from sentimill_train.labelling.requests.rate_limit import CallRates
from sentimill_train.labelling.requests.request_loop import RetryLimits

_Entry = TypeVar("_Entry", bound=tuple[int | str, ...])

_SAMPLE_ROWS: Final = 200
_SHOT_WORDS: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelJob:
    """What to label and how. The same job with the same store continues where it stopped.

    meanings: what the labels mean, for the prompt; None takes those of the prompt file.
    """

    source: str
    out: Path
    store: Path
    labels: tuple[str, ...] = SENTIMENTS
    columns: Columns = field(default_factory=Columns)
    budget: int | None = None
    soft: Mode | Literal["auto"] = "auto"
    votes: int = 1
    shots: int = 0
    gold_rows: int = 200
    relabel: bool = False
    redact: bool = False
    max_words: int = 400
    prompt: Path = SENTIMENT
    meanings: Mapping[str, str] | None = None
    rates: CallRates = field(default_factory=CallRates)
    retries: RetryLimits = field(default_factory=RetryLimits)


@dataclass(frozen=True, slots=True)
class Item:
    """A row and the text to send. reason: why the text cannot be sent; None if it can."""

    row: Example
    sent: str
    reason: str | None


@dataclass(slots=True)
class InputScan:
    """The results of the first pass.

    texts: how many different texts to ask about, including gold. gold: (text, index of the label).
    sample: some of the texts, as sent.
    """

    rows: int = 0
    asked_rows: int = 0
    texts: int = 0
    gold: list[tuple[str, int]] = field(default_factory=list)
    shots: tuple[Shot, ...] = ()
    sample: list[str] = field(default_factory=list)


def report_path(out: Path) -> Path:
    """Return where the report of a run is written."""
    return out.with_name(out.name + ".report.json")


def failed_path(out: Path) -> Path:
    """Return where the rows without a label are listed."""
    return out.with_name(out.name + ".failed.jsonl")


def items(job: LabelJob) -> Iterator[Item]:
    """Yield the rows in order, with the text that a teacher would see."""
    for row in stream_examples(job.source, columns=job.columns, labels=job.labels, keep=True):
        try:
            text = tidy(row.text)  # emoji stay, because a large model can read them
        except TextError as error:
            yield Item(row, "", error.reason)
            continue
        if job.redact:
            text = redact(text)
        yield Item(row, shorten(text, job.max_words), None)


def person_label(row: Example) -> str | None:
    """Return the label that a person gave; None if the row has only that of a teacher.

    `label` names the teacher in its rows. A label in a row without `teacher` is a person's.
    """
    return row.given if row.given is not None or row.teacher is not None else row.label


def scan_input(job: LabelJob) -> InputScan:
    """Read the input once: count rows, choose gold rows, examples for the prompt and a sample.

    Only a person's label makes a row gold, or an example for the prompt.
    """
    found = InputScan()
    seen: set[bytes] = set()
    gold: list[tuple[int, str, int]] = []
    shots: dict[str, list[tuple[int, str]]] = {label: [] for label in job.labels}
    sample: list[tuple[int, str]] = []
    for item in items(job):
        found.rows += 1
        if item.reason is not None:
            continue
        digest = hashlib.sha256(item.sent.encode("utf-8", "replace")).digest()
        rank = -int.from_bytes(digest[:8])  # heaps of the largest -hash keep the smallest hashes
        new = digest[:12] not in seen
        label = person_label(item.row)
        if label is not None and item.row.label is not None and new:
            _keep(gold, (rank, item.sent, job.labels.index(label)), job.gold_rows)
            if len(item.sent.split()) <= _SHOT_WORDS:
                _keep(shots[label], (rank, item.sent), job.shots)
        if item.row.label is None or job.relabel:
            found.asked_rows += 1
            found.texts += new
            if new:
                _keep(sample, (rank, item.sent), _SAMPLE_ROWS)
        seen.add(digest[:12])
    found.shots = tuple(
        Shot(text, label) for label in job.labels for _, text in sorted(shots[label], reverse=True)
    )
    shown = {shot.text for shot in found.shots}
    found.gold = [(text, k) for _, text, k in sorted(gold, reverse=True) if text not in shown]
    if not job.relabel:  # with `relabel` the loop has counted them
        found.texts += len(found.gold)
    found.sample = [text for _, text in sorted(sample, reverse=True)]
    return found


def _keep(heap: list[_Entry], entry: _Entry, most: int) -> None:
    if len(heap) < most:
        heapq.heappush(heap, entry)
    elif most:
        heapq.heappushpop(heap, entry)
