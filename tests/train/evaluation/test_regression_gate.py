"""The gate refuses what got worse, and not what is as good."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, normalizers

from sentimill.classifier import Classifier
from sentimill.errors import InputError
from sentimill_train.data.schema import Example
from sentimill_train.evaluation.evaluate import bundle_contender, judge_bundle
from sentimill_train.evaluation.labelled_set import Sample
from sentimill_train.evaluation.regression_gate import decide, holm
from sentimill_train.evaluation.result import Judgement
from sentimill_train.metrics.significance import Comparison, compare
from tiny_bundle import tokenizer_json, write_tiny_bundle


def versus(*, before: float, after: float, rows: int = 600, seed: int = 0) -> Comparison:
    """Return the comparison of two models of those accuracies, independent of one another."""
    random = np.random.default_rng(seed)
    gold = random.integers(0, 3, rows)

    def guess(accuracy: float) -> np.typing.NDArray[np.int64]:
        return np.where(random.random(rows) < accuracy, gold, (gold + 1) % 3)

    return compare(gold, guess(before), guess(after), labels=3, draws=300)


def test_a_worse_bundle_is_refused_and_the_set_is_named() -> None:
    """One set on which it lost is enough, whatever it won elsewhere."""
    verdict = decide({"yelp": versus(before=0.8, after=0.9), "imdb": versus(before=0.9, after=0.8)})
    assert not verdict.passed
    assert {check.name for check in verdict.checks if check.worse} == {"imdb"}
    assert "accuracy on imdb" in verdict.sentence()


def test_a_better_bundle_passes_and_the_unseen_loss_is_told() -> None:
    """Passing is no proof of equality, so the sentence says how much may have been lost."""
    verdict = decide({"yelp": versus(before=0.8, after=0.85)})
    assert verdict.passed
    assert "may have been lost" in verdict.sentence()


def test_a_bound_of_nothing_is_never_claimed() -> None:
    """Without a row that the previous alone has right, the rule of three says what may be lost."""
    gold = np.arange(40) % 2
    alike = decide({"small": compare(gold, gold, gold, labels=2)})
    better = decide({"small": compare(gold, np.zeros_like(gold), gold, labels=2)})
    many = np.arange(100_000) % 2
    large = decide({"large": compare(many, many, many, labels=2)})

    for verdict in (alike, better):
        assert "at most 8.9 points of accuracy may have been lost" in verdict.sentence()
    assert [check.lost for check in alike.checks][1] is None
    assert "at most 0.1 points" in large.sentence()


def test_equal_bundles_are_refused_about_one_time_in_twenty() -> None:
    """Five per cent over eight sets together, not on each."""
    refused = 0
    for seed in range(60):
        sets = {
            f"set {i}": versus(before=0.8, after=0.8, rows=300, seed=100 * seed + i)
            for i in range(8)
        }
        refused += not decide(sets).passed
    assert refused <= 8  # 3 expected; more than 8 has a chance of 0.4 %


def test_holm_by_hand() -> None:
    """Smallest times n, next times n - 1, never falling, at most 1."""
    assert holm([0.04, 0.01, 0.03]) == [
        pytest.approx(0.06),
        pytest.approx(0.03),
        pytest.approx(0.06),
    ]
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_two_bundles_are_classified_and_compared(bundle: Path) -> None:
    """A bundle against itself passes, with no difference anywhere."""
    classifier = Classifier.load(bundle)
    examples = tuple(
        Example(id=str(i), text=f"{word} battery", label=label, source="made")
        for i, (word, label) in enumerate([("good", "positive"), ("bad", "negative")] * 20)
    )
    sample = Sample(name="s", sha256="", part="all", examples=examples)
    previous = bundle_contender(classifier, classifier.labels)

    judgement, _ = judge_bundle(classifier, [sample], contenders=[previous], draws=100)
    verdict = decide({on.name: on.comparison for on in judgement.rivals[0].sets})

    assert verdict.passed
    assert [check.difference for check in verdict.checks] == [0.0, 0.0]


def test_rows_that_a_rival_cannot_read_count_for_neither(bundle: Path, tmp_path: Path) -> None:
    """The rows of both stay together, and the sentence says how many are left out."""
    reads_less = Tokenizer.from_str(tokenizer_json().decode())
    reads_less.normalizer = normalizers.Sequence(
        [normalizers.Lowercase(), normalizers.Replace("fine", "")]
    )
    more = {"tokenizer.json": reads_less.to_str().encode()}
    rival = Classifier.load(write_tiny_bundle(tmp_path / "rival", more=more).path)
    rows = [("fine", "neutral"), ("good battery", "positive"), ("bad battery", "negative")] * 10
    examples = tuple(
        Example(id=str(i), text=text, label=label, source="made")
        for i, (text, label) in enumerate(rows)
    )

    def judged(*examples: Example) -> Judgement:
        sample = Sample(name="s", sha256="", part="all", examples=examples)
        contenders = [bundle_contender(rival, rival.labels)]
        return judge_bundle(Classifier.load(bundle), [sample], contenders=contenders, draws=100)[0]

    judgement = judged(*examples)

    (found,) = judgement.rivals
    (on,) = found.sets
    assert judgement.sets[0].rows == 30
    assert (on.comparison.rows, on.refused) == (20, 10)
    assert on.figures["accuracy"].value == 1.0
    assert found.sentence().endswith("cannot read 10 rows of s, which are left out for both.")
    with pytest.raises(InputError, match="cannot read any text of s"):
        judged(examples[0])


def test_bundles_with_other_labels_are_not_compared(bundle: Path, tmp_path: Path) -> None:
    """There is no fair comparison, so there is an error."""
    import msgspec

    other = write_tiny_bundle(
        tmp_path / "other",
        change=lambda m: msgspec.structs.replace(m, labels=("bad", "fair", "good")),
    )
    with pytest.raises(InputError, match="same labels") as caught:
        bundle_contender(Classifier.load(other.path), Classifier.load(bundle).labels)
    assert caught.value.reason == "LABELS_DIFFER"
