"""The model card: the README.md of a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sentimill.bundle.manifest import Base, Manifest, Source
from sentimill_train.reporting.markdown import cell, markdown_table

_LANGUAGES: Final = {"en": "English"}
_STUDENTS: Final = {
    "tiny": "two random layers, with the tokenizer of the base",
    "minilm-l3": "the encoder of the base with three of its layers",
}


def model_card(model: Manifest, findings: str, notes: str = "") -> str:
    """Return the card in Markdown. It states only known facts about this model.

    findings: from `sentimill_train.packaging.card_findings`. notes: Markdown from the user, such as
    the source and the terms of the reviews.
    """
    rows = [(name, str(value)) for name, value in model.training.items()]
    languages = " and ".join(_LANGUAGES.get(code, code) for code in model.languages)
    texts = f"{languages} texts".strip()
    labels = f"{', '.join(model.labels[:-1])} or {model.labels[-1]}"
    student = _STUDENTS.get(str(model.training.get("preset")), "the encoder of the base")
    base = _line(model.base)
    share = model.training.get("interpolated_share")
    blended = ""
    if isinstance(share, float) and share != 1:
        blended = (
            f",\nblended with {1 - share:.0%} of those of the base, so that the model forgets less"
        )
    more = [notes.strip()] if notes.strip() else []
    if model.base.sources:
        more.insert(0, f"Its base was trained on\n\n{_sources(model.base.sources)}")
    rest = "\n\n".join([*more, findings])
    return f"""# {model.name}

This model labels {texts} as {labels}. It was made with Sentimill.

    sentimill classify "Works as promised." --bundle .

## Intended use

Use the model on texts like those that it was trained on, and read many answers together: trends,
routing, search. Do not use it for decisions about a person. Nothing was measured on other kinds of
text. The probabilities are calibrated on text like the training data. On other text the model tends
to be too confident.

## How it was trained

The student is {student}, the mean of its token states, and a linear head. The base is {base}.
A text longer than {model.max_tokens} tokens is cut ({model.truncation}). The weights are those of
the best epoch on the validation split{blended}. Logits are divided by the
temperature {model.precision("fp32").temperature:.4f}, which was fitted on the same split.

{markdown_table(("setting", "value"), rows)}

## Data

The texts are not in this folder. `report.html` names the worst mistakes only by their row. A text
in the test split is in no other split.

{_sources(model.sources)}

{rest}
## Limits

- The labels are only as good as their source. A model that learns from stars learns how people
  rate, which is not always what they write.
- Texts in languages other than those of the training data were not measured.
- The {"end" if model.truncation == "head" else "middle"} of a long text is not read.
"""


def _line(base: Base) -> str:
    """Return the name and hash of *base*, of its own base, and so on."""
    revision = f" at revision {base.revision}" if base.revision else ""
    said = f"{cell(base.name)}{revision},\n`model.safetensors` with sha256 `{base.sha256}`"
    return said if base.base is None else f"{said}, made from {_line(base.base)}"


def _sources(sources: Sequence[Source]) -> str:
    return markdown_table(
        ("source", "rows", "sha256"),
        [(cell(s.name), str(s.rows), f"`{s.sha256}`") for s in sources],
    )
