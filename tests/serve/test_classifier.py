"""The library face: texts in, predictions out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from sentimill import Classifier, Prediction, TextError
from sentimill.bundle.manifest import Manifest
from sentimill.classifier import plan_batches, probabilities
from sentimill.errors import BundleError, EngineError, InputError, UsageError
from tiny_bundle import graph, write_tiny_bundle


@pytest.fixture(scope="module")
def classifier(bundle: Path) -> Classifier:
    """Return the tiny bundle, loaded."""
    return Classifier.load(bundle, threads=1)


def predict(classifier: Classifier, text: str) -> Prediction:
    """Return the prediction for a text that has one."""
    (found,) = classifier.classify([text])
    assert isinstance(found, Prediction)
    return found


@pytest.mark.parametrize(
    ("text", "label"),
    [("good battery", "positive"), ("bad battery", "negative"), ("the battery", "neutral")],
)
def test_a_text_gets_its_label(classifier: Classifier, text: str, label: str) -> None:
    """The label is the most probable one."""
    assert label == predict(classifier, text).label


def test_a_prediction_is_consistent(classifier: Classifier) -> None:
    """Score and confidence follow from probs, which sum to one."""
    found = predict(classifier, "good")
    negative, _, positive = found.probs

    assert pytest.approx(1.0, abs=1e-6) == sum(found.probs)
    assert found.confidence == max(found.probs)
    assert found.score == pytest.approx(positive - negative, abs=1e-7)
    assert (found.tokens, found.truncated, found.abstained) == (3, False, False)


def test_a_guess_is_abstained(classifier: Classifier) -> None:
    """Below the bundle's threshold the label is marked as a guess."""
    found = predict(classifier, "good bad")

    assert found.confidence < 0.6
    assert found.abstained


def test_a_probe_checks_the_engine_with_a_golden_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is silent where all is well, and says what is wrong: no answer, or another one."""
    made = Classifier.load(write_tiny_bundle(tmp_path / "tiny").path, threads=1)
    made.probe()

    def wrong(*_: object, **__: object) -> NDArray[np.float32]:
        return np.zeros((1, 3), dtype=np.float32)

    monkeypatch.setattr(made.engine, "run", wrong)
    with pytest.raises(BundleError, match="a golden text changed its label"):
        made.probe()

    def broken(*_: object, **__: object) -> NDArray[np.float32]:
        raise EngineError("broken", reason="ENGINE_FAILED")

    monkeypatch.setattr(made.engine, "run", broken)
    with pytest.raises(EngineError, match="broken"):
        made.probe()


def test_a_precision_may_have_a_threshold_of_its_own(tmp_path: Path) -> None:
    """It takes the place of the manifest's."""

    def higher(manifest: Manifest) -> Manifest:
        fp32 = msgspec.structs.replace(manifest.precisions["fp32"], threshold=0.99)
        return msgspec.structs.replace(manifest, precisions={"fp32": fp32})

    changed = write_tiny_bundle(tmp_path / "tiny", threshold=0.1, change=higher)
    plain = write_tiny_bundle(tmp_path / "plain", threshold=0.1)
    loaded = [Classifier.load(made.path, threads=1) for made in (changed, plain)]

    assert [made.threshold for made in loaded] == [0.99, 0.1]
    assert [predict(made, "good").abstained for made in loaded] == [True, False]


def test_without_a_threshold_nothing_is_abstained(tmp_path: Path) -> None:
    """A bundle may say that its model never abstains."""
    made = write_tiny_bundle(tmp_path / "tiny", threshold=None)

    assert not predict(Classifier.load(made.path), "good bad").abstained


def test_other_labels_have_no_score(tmp_path: Path) -> None:
    """A score means something only between negative and positive."""
    made = write_tiny_bundle(
        tmp_path / "tiny", change=lambda m: msgspec.structs.replace(m, labels=("a", "b", "c"))
    )

    found = predict(Classifier.load(made.path), "good")

    assert (found.label, found.score) == ("c", None)


def test_a_truncated_text_says_so(classifier: Classifier) -> None:
    """The caller learns that part of the text was left out."""
    found = predict(classifier, "good " * 50)

    assert (found.tokens, found.truncated) == (16, True)


@pytest.mark.parametrize(("unpadded", "computed"), [(False, 10), (True, 6)])
def test_what_is_computed_is_known_before(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, unpadded: bool, computed: int
) -> None:
    """Two texts of five tokens and of one go in one call."""
    made = Classifier.load(bundle, threads=1)
    info = replace(made.engine.info, unpadded=unpadded)
    monkeypatch.setattr(made.engine, "info", info)

    assert made.computed_tokens([5, 1]) == computed


def test_results_keep_the_order_of_the_texts(classifier: Classifier) -> None:
    """Sorting by length inside is not seen outside."""
    texts = ["good", "bad " * 9, "the", "good " * 5, "bad"]

    found = [predict(classifier, text) for text in texts]

    assert found == classifier.classify(texts, batch_tokens=20)


def test_bad_texts_get_errors_among_good_neighbours(classifier: Classifier) -> None:
    """One bad text never fails the others."""
    found = classifier.classify(["good", "", "\ud800", "bad", "x" * (2 << 20)])

    assert [one.reason if isinstance(one, TextError) else one.label for one in found] == [
        "positive",
        "EMPTY_TEXT",
        "INVALID_UNICODE",
        "negative",
        "TEXT_TOO_LARGE",
    ]


@given(
    st.lists(st.lists(st.sampled_from(["good", "bad", "the", ""]), max_size=9), max_size=9),
    st.integers(1, 200),
)
def test_probs_do_not_depend_on_batch_mates(
    classifier: Classifier, words: list[list[str]], batch_tokens: int
) -> None:
    """The same text gets the same bits whatever stands in its batch."""
    texts = [" ".join(each) for each in words]

    together = classifier.classify(texts, batch_tokens=batch_tokens)

    for text, found in zip(texts, together, strict=True):
        (alone,) = classifier.classify([text])
        assert isinstance(found, TextError) == isinstance(alone, TextError)
        assert isinstance(found, TextError) or alone == found


def test_no_texts_give_no_results(classifier: Classifier) -> None:
    """An empty list is fine."""
    assert classifier.classify([]) == []


def test_a_single_string_is_refused(classifier: Classifier) -> None:
    """A string is a sequence of strings, and classifying its letters is never meant."""
    with pytest.raises(InputError, match=r"write classify\(\[text\]\)"):
        classifier.classify("good")


def test_a_failing_engine_is_an_error_of_the_call(tmp_path: Path) -> None:
    """Without a server around it, an engine's failure reaches the caller."""
    made = write_tiny_bundle(tmp_path / "tiny", model=graph(fail_on="poison"))

    with pytest.raises(EngineError):
        Classifier.load(made.path).classify(["poison"])


def test_what_is_no_finite_number_is_an_error_and_no_answer(tmp_path: Path) -> None:
    """Softmax would make a label of it, and one that no threshold keeps back."""
    made = write_tiny_bundle(tmp_path / "tiny", model=graph(infinite="poison"))
    classifier = Classifier.load(made.path, threads=1)

    with pytest.raises(EngineError, match="for 2 of 3 texts") as caught:
        classifier.classify(["poison", "good", "bad poison"])

    assert caught.value.reason == "ENGINE_FAILED"
    assert len(classifier.classify(["good"])) == 1


@pytest.mark.parametrize(
    ("probs", "message"),
    [([0.1, 0.15, 0.75], "a golden text moved by 0"), ([0.5, 0.25, 0.25], "changed its label")],
)
def test_a_bundle_that_answers_differently_here_is_refused(
    tmp_path: Path, probs: list[float], message: str
) -> None:
    """The golden texts are replayed before anything is answered."""
    made = write_tiny_bundle(tmp_path / "tiny")
    manifest = json.loads((made.path / "manifest.json").read_bytes())
    manifest["golden"][0]["probs"] = probs
    (made.path / "manifest.json").write_text(json.dumps(manifest))

    with pytest.raises(BundleError, match=message) as caught:
        Classifier.load(made.path)

    assert caught.value.reason == "BUNDLE_GOLDEN_MISMATCH"


def test_a_precision_that_the_bundle_lacks_is_refused(bundle: Path) -> None:
    """The message names those it has."""
    with pytest.raises(UsageError, match="no precision 'int8', it has fp32"):
        Classifier.load(bundle, precision="int8")


def test_auto_takes_only_a_precision_that_the_bundle_lists(classifier: Classifier) -> None:
    """What was not gated is not served unasked, however fast it is here."""
    assert classifier.precision == "fp32"


def test_temperature_softens_and_keeps_the_order() -> None:
    """Dividing logits by more than one moves probs together and changes no label."""
    logits = np.array([[0.0, 1.0, 3.0]], dtype=np.float32)
    hard, soft = probabilities(logits, 1.0)[0], probabilities(logits, 4.0)[0]

    assert hard.argmax() == soft.argmax()
    assert soft.max() < hard.max()
    assert np.float32 == hard.dtype


def test_large_logits_do_not_overflow() -> None:
    """Softmax subtracts the largest logit first."""
    logits = np.array([[3e38, 0.0, -3e38]], dtype=np.float32)

    assert probabilities(logits, 0.01)[0].tolist() == [1.0, 0.0, 0.0]


@given(st.lists(st.integers(1, 60), max_size=60), st.integers(1, 100))
def test_batches_hold_each_text_once_and_keep_the_budget(lengths: list[int], budget: int) -> None:
    """Nothing is lost or taken twice, and only a single text may pass the budget."""
    batches = list(plan_batches(lengths, budget))

    assert list(range(len(lengths))) == sorted(i for batch in batches for i in batch)
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget


@given(st.lists(st.integers(1, 60), min_size=1, max_size=60), st.integers(1, 100))
def test_batches_come_longest_first(lengths: list[int], budget: int) -> None:
    """A job that does not fit in memory fails at its first batch."""
    order = [lengths[i] for batch in plan_batches(lengths, budget) for i in batch]

    assert sorted(lengths, reverse=True) == order


def test_without_a_name_the_reference_student_is_loaded() -> None:
    """A first answer needs no folder."""
    assert predict(Classifier.load(), "Works as promised.").label == "positive"


def test_a_bundle_on_the_hub_is_loaded_by_its_name(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Hub gives a folder, at a revision where one is named."""
    asked = []

    def download(repository: str, *, revision: str | None) -> str:
        asked.append((repository, revision))
        return str(bundle)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)

    assert predict(Classifier.load("hub:me/mine"), "good").label == "positive"
    assert predict(Classifier.load("hub:me/mine@v2"), "good").label == "positive"
    assert asked == [("me/mine", None), ("me/mine", "v2")]


def test_a_hub_that_does_not_answer_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the repository."""

    def download(repository: str, *, revision: str | None) -> str:
        raise ConnectionError("offline")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)

    with pytest.raises(UsageError, match=r"me/mine cannot be downloaded .* offline") as caught:
        Classifier.load("hub:me/mine")
    assert caught.value.reason == "HUB_UNREACHABLE"
