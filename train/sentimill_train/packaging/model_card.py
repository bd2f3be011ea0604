"""The model card: the README.md of a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sentimill.bundle.manifest import Base, Manifest, Source
from sentimill_train.reporting.markdown import cell, markdown_table

_LANGUAGES: Final = {"en": "English"}


def model_card(model: Manifest, findings: str, notes: str = "") -> str:
    """Return the card in Markdown. It says only what is known of this model.

    findings: from `sentimill_train.packaging.card_findings`. notes: Markdown by whoever trained the
    model, such as the source and the terms of the reviews.
    """
    rows = [(name, str(value)) for name, value in model.training.items()]
    settings = markdown_table(("setting", "value"), rows)
    return f"""# {model.name}

This model labels {_texts(model)} as {_either(model.labels)}. It was made with Sentimill.

    sentimill classify "Works as promised." --bundle .

## Intended use

Use the model on texts like those that it was trained on, and read many answers together: trends,
routing, search. Do not use it for decisions about a person. Nothing was measured on other kinds of
text. The probabilities are calibrated on text like the training data. On other text the model tends
to be too confident.

## How it was trained

{_student(model)}, the mean of its token states, and a linear head. The base is {_line(model.base)}.
A text longer than {model.max_tokens} tokens is cut ({model.truncation}). The weights are those of
the best epoch on the validation split{_interpolated(model)}. Logits are divided by the
temperature {model.precision("fp32").temperature:.4f}, which was fitted on the same split.

{settings}

## Data

The texts are not in this folder. `report.html` names the worst mistakes by their row alone. A text
in the test split is in no other split.

{_sources(model.sources)}

{_earlier_sources(model.base.sources)}{_notes(notes)}{findings}
## Limits

- The labels are only as good as their source. A model that learns from stars learns how people
  rate, which is not always what they write.
- Texts in languages other than those of the training data were not measured.
- The {"end" if model.truncation == "head" else "middle"} of a long text is not read.
"""


def _texts(model: Manifest) -> str:
    known = [_LANGUAGES.get(code, code) for code in model.languages]
    return f"{' and '.join(known)} texts" if known else "texts"


def _student(model: Manifest) -> str:
    if model.training.get("preset") == "tiny":
        return "The student is two random layers, with the tokenizer of the base"
    if model.training.get("preset") == "minilm-l3":
        return "The student is the encoder of the base with three of its layers"
    return "The student is the encoder of the base"


def _interpolated(model: Manifest) -> str:
    share = model.training.get("interpolated_share")
    if not isinstance(share, float) or share == 1:
        return ""
    return f",\nblended with {1 - share:.0%} of those of the base, so that the model forgets less"


def _line(base: Base) -> str:
    """Return the name and hash of *base*, of what that was made from, and so on."""
    revision = f" at revision {base.revision}" if base.revision else ""
    said = f"{cell(base.name)}{revision},\n`model.safetensors` with sha256 `{base.sha256}`"
    return said if base.base is None else f"{said}, made from {_line(base.base)}"


def _sources(sources: Sequence[Source]) -> str:
    return markdown_table(
        ("source", "rows", "sha256"),
        [(cell(s.name), str(s.rows), f"`{s.sha256}`") for s in sources],
    )


def _earlier_sources(sources: Sequence[Source]) -> str:
    return f"Its base was trained on\n\n{_sources(sources)}\n\n" if sources else ""


def _notes(notes: str) -> str:
    return f"{notes.strip()}\n\n" if notes.strip() else ""


def _either(labels: tuple[str, ...]) -> str:
    return f"{', '.join(labels[:-1])} or {labels[-1]}"
