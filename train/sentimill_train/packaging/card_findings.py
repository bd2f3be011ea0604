"""The evaluation in the model card: figures, errors and weak spots, as Markdown."""

from __future__ import annotations

from sentimill_train.calibration.abstention import Abstention
from sentimill_train.evaluation.result import Judgement, SetResult
from sentimill_train.metrics.intervals import Figure
from sentimill_train.reporting.markdown import markdown_table

_WORST_TESTS = 5
_WEAK_SLICES = 8
_NO_ROWS = "\u2013"  # a dash, as in the report: 0.0 would look like a measurement


def findings(judgement: Judgement, abstention: Abstention | None = None) -> str:
    """Return the sections of the evaluation; a section without content is left out.

    They are Figures, Label by label, Compared with other models, When it abstains, and Where it is
    weak.
    """
    parts = [_figures(judgement), *(_labels(result) for result in judgement.sets[:1])]
    if judgement.rivals:
        sentences = "\n".join(f"- {rival.sentence()}" for rival in judgement.rivals)
        parts.append(f"## Compared with other models\n\n{sentences}")
    if abstention is not None:
        answered = "" if abstention.threshold is None else _answered(judgement.sets[0])
        parts.append(f"## When it abstains\n\n{abstention.sentence()}{answered}")
    if weak := _weak(judgement):
        parts.append(f"## Where it is weak\n\n{weak}")
    return "\n\n".join(parts) + "\n"


def _figures(judgement: Judgement) -> str:
    columns = ("accuracy", "macro_f1", "two_class_accuracy", "ece")
    rows = [
        (
            _plain(f"{result.name} ({result.part})"),
            f"{result.rows:,}",
            *(_shown(result.figures.get(column), column) for column in columns),
        )
        for result in judgement.sets
    ]
    head = ("set", "rows", "accuracy, %", "macro-F1, %", "two-class, %", "ECE")
    return (
        "## Figures\n\nIntervals are 95 %: Wilson's for shares of rows, bootstrap for the others."
        " Two-class compares P(positive) with P(negative) on the rows that are not neutral. ECE has"
        " 15 bins of equal mass.\n\n" + markdown_table(head, rows)
    )


def _answered(result: SetResult) -> str:
    """Return a sentence on the effect of the threshold on rows that did not choose it."""
    error = result.answered_error
    if error is None:
        return f" It answers no row of {_plain(result.name)}."
    return (
        f" On {_plain(result.name)}, which was not used to choose it, the model abstains from"
        f" {result.abstained:.1%}"
        f" of {result.rows:,} rows, and {error.value:.1%} of its answers are wrong"
        f" ({error.low:.1%} to {error.high:.1%})."
    )


def _labels(result: SetResult) -> str:
    head = ("label", "rows", "precision, %", "recall, %", "F1, %")
    rows = [
        (
            _plain(label.label),
            f"{label.rows:,}",
            *(
                _shown(figure, "") if label.rows and figure.rows else _NO_ROWS
                for figure in (label.precision, label.recall, label.f1)
            ),
        )
        for label in result.labels
    ]
    return f"## Label by label, {_plain(result.name)}\n\n" + markdown_table(head, rows)


def _shown(figure: Figure | None, column: str) -> str:
    if figure is None:
        return ""
    if column == "ece":
        return f"{figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})"
    return f"{figure.value * 100:.1f} ({figure.low * 100:.1f} to {figure.high * 100:.1f})"


def _weak(judgement: Judgement) -> str:
    """Return the slices that are significantly worse, and the tests that fail most."""
    lines = [
        f"- {_plain(result.name)}, {s.kind} {_plain(s.value)}: {s.accuracy.value:.1%} right on"
        f" {s.accuracy.rows:,} rows, {result.figures['accuracy'].value:.1%} overall"
        for result in judgement.sets
        for s in result.weak_slices()
    ][:_WEAK_SLICES]
    lines += [
        f"- {_plain(test.suite)}, {_plain(test.test)}: {test.rate.value:.0%} of {test.rate.rows}"
        f" cases fail ({test.rate.low:.0%} to {test.rate.high:.0%})"
        for test in judgement.failed_tests()[:_WORST_TESTS]
    ]
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Return *text* with Markdown escaped, because names of files and domains may contain it."""
    line = " ".join(text.split())
    return "".join(c if c.isalnum() or c in " .,:;()'-+/&%" else f"\\{c}" for c in line)
