"""The model card: README.md of a bundle, for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sentimill.bundle.manifest import Base, Source

__all__ = ["Card", "model_card"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What a card is written from. findings: from `sentimill_train.packaging.card_findings`.

    notes: Markdown of whoever trained it, such as where the reviews come from and on what terms.
    """

    name: str
    labels: tuple[str, ...]
    base: Base
    sources: tuple[Source, ...]
    training: Mapping[str, str | int | float | bool | None]
    max_tokens: int
    truncation: str
    temperature: float
    findings: str
    notes: str = ""


def model_card(card: Card) -> str:
    """Return the card in Markdown."""
    settings = _table(("setting", "value"), [(n, str(v)) for n, v in card.training.items()])
    return f"""# {card.name}

Tells of an English customer review whether it is {_either(card.labels)}. Made with Sentimill.

    sentimill classify "Works as promised." --bundle .

## Intended use

Single reviews and comments by customers, in English, one verdict a text, read in numbers: trends,
routing, search. Not for decisions about a person, nor for texts that are no reviews: nothing was
measured there. The probabilities are calibrated on text like the training data, and on other text
they tend to be too sure.

## How it was trained

{_student(card)}, the mean of its token states, and a linear head. The base is {_line(card.base)}.
A text longer than {card.max_tokens} tokens is cut ({card.truncation}). Where a row had a teacher's
shares the loss mixes their KL divergence with the cross-entropy of the label; elsewhere it is the
cross-entropy. The weights are those of the best epoch on the validation split{_moved_back(card)}.
Logits are divided by the temperature {card.temperature:.4f}, found on the same split.

{settings}

## Data

The texts are not in this folder, and `report.html` names its worst mistakes by row alone. A text in
the test split is in no other.

{_sources(card.sources)}

{_learnt_before(card.base.sources)}{_notes(card)}{card.findings}
## Limits

- Labels are only as good as who gave them. A model from stars learns what people rate, which is
  not always what they write.
- Sarcasm, mixed opinions and comparisons are where it errs most. Other languages were not trained.
- The {"end" if card.truncation == "head" else "middle"} of a long text is not read.
"""


def _student(card: Card) -> str:
    if card.training.get("preset") == "tiny":
        return "The student is two random layers behind the tokenizer of the base"
    if card.training.get("preset") == "minilm-l3":
        return "The student is the encoder of the base with three of its layers"
    return "The student is the encoder of the base"


def _moved_back(card: Card) -> str:
    share = card.training.get("interpolated_share")
    if not isinstance(share, float) or share == 1:
        return ""
    return f",\nmoved {1 - share:.0%} of the way back to those of the base"


def _line(base: Base) -> str:
    """Return what it is, what that was made from, and so on back."""
    revision = f" at revision {base.revision}" if base.revision else ""
    said = f"{_cell(base.name)}{revision},\n`model.safetensors` with sha256 `{base.sha256}`"
    return said if base.base is None else f"{said}, made from {_line(base.base)}"


def _sources(sources: Sequence[Source]) -> str:
    return _table(
        ("source", "rows", "sha256"),
        [(_cell(s.name), str(s.rows), f"`{s.sha256}`") for s in sources],
    )


def _learnt_before(sources: Sequence[Source]) -> str:
    return f"Its base had learnt before from\n\n{_sources(sources)}\n\n" if sources else ""


def _notes(card: Card) -> str:
    return f"{card.notes.strip()}\n\n" if card.notes.strip() else ""


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _either(labels: tuple[str, ...]) -> str:
    return f"{', '.join(labels[:-1])} or {labels[-1]}"
