"""The findings in the model card."""

from __future__ import annotations

from pathlib import Path

from sentimill.classifier import Classifier
from sentimill_train.calibration.abstention import choose_threshold
from sentimill_train.evaluation.behaviour import OWN_SUITE, read_cases
from sentimill_train.evaluation.evaluate import bundle_contender, judge_bundle
from sentimill_train.evaluation.labelled_set import Sample
from sentimill_train.packaging.card_findings import findings
from synthetic_reviews import reviews


def test_the_findings_are_a_card_s_sections_and_names_stay_text(bundle: Path) -> None:
    """Figures with intervals, rivals, abstention and weak spots; a hostile name is no markup."""
    classifier = Classifier.load(bundle)
    sample = Sample(
        name="a|b <i> [x](y)\n# z", sha256="", part="test", examples=tuple(reviews(150))
    )
    judgement, answered = judge_bundle(
        classifier,
        [sample],
        cases=read_cases(OWN_SUITE, most=5),
        contenders=[bundle_contender(classifier, classifier.labels)],
        draws=100,
    )
    answers = answered[0].answers
    chosen = choose_threshold(answers.confidence, answers.correct, target_error=0.4)
    text = findings(judgement, chosen)
    for part in (
        "## Figures",
        "## Label by label",
        "## Compared with other models",
        "## When it abstains",
        "## Where it is",
    ):
        assert part in text
    assert chosen.sentence() in text
    assert r"a\|b \<i\> \[x\](y) \# z (test)" in text
    assert "cases fail" in text
