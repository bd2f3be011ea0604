"""Writes the results of the gate into a bundle's model card and report."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from typing import Final

from sentimill_train.export.acceptance import Outcome

_HEADING: Final = "## Other precisions"
_LEAD: Final = "<nav>"  # the first lines of every report end here
_SMALL: Final = (
    '<p class="lead">This bundle is the compact form of an fp32 bundle, and the figures on this'
    ' page are of that one. This one answers in int8 alone: <a href="#precisions">Other'
    " precisions</a> says what that changes.</p>\n"
)
COMPACT: Final = (
    "This bundle is the compact form of the one that the figures above and `report.html` describe."
    " It answers in int8 alone, its word vectors are in int8 too, and `model.safetensors` holds the"
    " weights in fp16, to train on. Those weights were judged as well, run in float32."
)
_REBUILT: Final = (
    "fp32 was made again from weights that had been rounded to fp16. The figures above and"
    " `report.html` describe the fp32 before that."
)
_BEFORE: Final = '<h2 id="record">'  # this section of a report follows the new one
_SECTION: Final = re.compile(rf'<h2 id="precisions">.*?(?={_BEFORE})', re.DOTALL)
_ITEM: Final = re.compile(r"<li><p>(.*?)</p></li>", re.DOTALL)


def of_rebuilt(card: str, report: str) -> tuple[str, str]:
    """Return card and report of a compact bundle whose fp32 was rebuilt from its weights."""
    lead = f'<p class="lead">{escape(_REBUILT.replace("`report.html`", "this page"))}</p>\n'
    return card.replace(COMPACT, _REBUILT), report.replace(_SMALL, lead)


def card_with(card: str, outcomes: Sequence[Outcome], small: str | None = None) -> str:
    """Return the model *card* with *outcomes* instead of earlier ones of the same precisions.

    small: a paragraph on compact bundles. With it, the section has only this and *outcomes*.
    """
    before, _, section = card.partition(_HEADING)
    lines = _merged([] if small else section.strip().split("\n\n"), outcomes)
    text = "\n\n".join([*([small] if small else []), *lines])
    return f"{before.rstrip()}\n\n{_HEADING}\n\n{text}\n"


def report_with(report: str, outcomes: Sequence[Outcome], *, small: bool = False) -> str:
    """Return the page *report* with the same section; a page without our marks is not changed.

    small: the bundle is compact, and the page first says that its figures are those of fp32.
    """
    if small:
        report = report.replace(_LEAD, _SMALL + _LEAD, 1)
    earlier = _SECTION.search(report)
    items = _ITEM.findall(earlier[0]) if earlier else []
    kept = _merged(items, outcomes, escaped=True)
    listed = "\n".join(f"<li><p>{line}</p></li>" for line in kept)
    section = f'<h2 id="precisions">Other precisions</h2>\n<ul class="plain">\n{listed}\n</ul>\n\n'
    return _SECTION.sub("", report).replace(_BEFORE, section + _BEFORE, 1)


def _merged(
    earlier: Sequence[str], outcomes: Sequence[Outcome], *, escaped: bool = False
) -> list[str]:
    """Return the earlier sentences on precisions that are not in *outcomes*, then the new ones."""
    again = {outcome.precision for outcome in outcomes}
    kept = [line for line in earlier if line and line.partition(" ")[0] not in again]
    new = [outcome.sentence() for outcome in outcomes]
    return [*kept, *(map(escape, new) if escaped else new)]
