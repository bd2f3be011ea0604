"""The summary at the top of a report: how good, for whom, where it fails, what next."""

from __future__ import annotations

from collections.abc import Mapping

from sentimill.bundle.manifest import Manifest
from sentimill_train.evaluation.result import Judgement, SetResult
from sentimill_train.evaluation.slices import Slice

_MOST_WEAK = 2
_FEW_ROWS = 100


def headline(judgement: Judgement, manifest: Manifest) -> Mapping[str, str]:
    """Return an answer to each of four questions, on the first set: the test split of a bundle."""
    first = judgement.sets[0]
    found = {
        "How good": _how_good(judgement, first),
        "For whom": _for_whom(judgement, manifest),
        "Where it fails": _where_it_fails(judgement, first),
        "What next": _what_next(judgement, first),
    }
    return {question: answer for question, answer in found.items() if answer}


def _how_good(judgement: Judgement, first: SetResult) -> str:
    accuracy = first.figures["accuracy"]
    sentence = (
        f"It labels {accuracy.value:.1%} of {first.rows:,} reviews ({first.name}) correctly; of"
        f" other reviews like these, {accuracy.low:.1%} to {accuracy.high:.1%}."
    )
    two = first.figures.get("two_class_accuracy")
    if two is not None:
        sentence += f" Without the neutral ones, it labels {two.value:.1%} correctly."
    if first.abstained and first.answered_error is not None:
        wrong = first.answered_error.value
        sentence += (
            f" It abstains from {first.abstained:.1%}, and {wrong:.1%} of its answers are wrong."
        )
    for rival in judgement.rivals:
        if rival.kind == "base":
            before = rival.sets[0].figures["accuracy"].value
            sentence += f" Before training, the base {rival.name} labels {before:.1%} correctly."
    return sentence


def _for_whom(judgement: Judgement, manifest: Manifest) -> str:
    labels = ", ".join(judgement.bundle.labels)
    languages = f" Languages: {', '.join(manifest.languages)}." if manifest.languages else ""
    names = [source.name for source in manifest.sources]
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    learnt = f" It learnt from {shown}." if names else ""
    return (
        f"For texts like those that it learnt, labelled {labels}.{languages}{learnt} These figures"
        " may not hold for other texts."
    )


def _where_it_fails(judgement: Judgement, first: SetResult) -> str:
    sentences = []
    labels = [label for label in first.labels if label.rows]
    if labels:
        worst = min(labels, key=lambda label: label.f1.value)
        how = f"the model finds {worst.recall.value:.0%} of those reviews, and"
        how += f" {worst.precision.value:.0%} of its “{worst.label}” answers are right"
        if not worst.precision.rows:
            how = "the model answers it for no review"
        sentences.append(f"The weakest label is {worst.label}: {how}.")
    sentences += [
        f"Of reviews {_with(s)}, {s.accuracy.value:.0%} are right."
        for s in first.weak_slices()[:_MOST_WEAK]
    ]
    sentences += [
        f"Of the cases of “{test.test}”, {test.rate.value:.0%} fail."
        for test in judgement.failed_tests()[:1]
    ]
    return " ".join(sentences)


def _with(part: Slice) -> str:
    if part.value == "no":
        return f"without {part.kind}"
    return f"with {part.kind}" if part.value == "yes" else f"with {part.kind} {part.value}"


def _what_next(judgement: Judgement, first: SetResult) -> str:
    few = [label.label for label in first.labels if label.rows < _FEW_ROWS]
    sentences = []
    if few:
        sentences.append(
            f"Evaluate on more reviews: {', '.join(few)} {'has' if len(few) == 1 else 'have'} fewer"
            f" than {_FEW_ROWS} rows here, so their figures are rough."
        )
    if judgement.bundle.threshold is None:
        sentences.append(
            "If a wrong answer costs more than no answer, train with --target-error: then the model"
            " abstains where it is unsure."
        )
    sentences.append("Read the worst mistakes below: often the label is wrong, not the answer.")
    return " ".join(sentences)
