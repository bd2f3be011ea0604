"""The report: what is in it, what cannot get out of it, and that a browser opens it in silence."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest
from msgspec.structs import replace

from chromium import open_page
from sentimill.classifier import Classifier
from sentimill_train.evaluation.behaviour import OWN_SUITE, read_cases
from sentimill_train.evaluation.evaluate import bundle_contender, judge_bundle
from sentimill_train.evaluation.headline import headline
from sentimill_train.evaluation.labelled_set import Sample
from sentimill_train.evaluation.report import Epoch, render_report, worst_mistakes
from synthetic_reviews import HOSTILE, reviews

NAME = "<i>set</i> $x$ _1"


@pytest.fixture(scope="module")
def page(bundle: Path) -> str:
    """Return a report with every part in it."""
    classifier = Classifier.load(bundle)
    samples = [
        Sample(name=name, sha256="ab" * 32, part="test", examples=tuple(reviews(200, seed=i)))
        for i, name in enumerate((NAME, "_hidden"))
    ]
    judgement, answered = judge_bundle(
        classifier,
        samples,
        cases=read_cases(OWN_SUITE),
        contenders=[bundle_contender(classifier, classifier.labels)],
        draws=100,
    )
    history = [
        Epoch(rows=1000 * i, train_loss=1 / i, validation_loss=1.1 / i, validation_macro_f1=0.5)
        for i in range(1, 5)
    ]
    mistakes = [mistake for one in answered for mistake in worst_mistakes(one, 40)]
    return render_report(
        judgement,
        classifier.bundle.manifest,
        mistakes=mistakes,
        history=history,
        notes=["A <b>note</b>."],
    )


def test_the_page_has_every_part(page: str) -> None:
    """Headline, curves, reliability, confusion, slices, behaviour, mistakes, record."""
    for heading in ("headline", "behaviour", "sets", "mistakes", "record", "words"):
        assert f'id="{heading}"' in page
    for word in ("Reliability", "Confusion", "Slices", "Loss while training", "95 % intervals"):
        assert word in page
    assert re.search(r"% below the threshold, [\d.]+ % \([\d.]+ to [\d.]+\) of the answers", page)
    assert "The bundle does not beat tiny 1" in page
    assert page.count("<svg") == 6


def test_the_first_screen_answers_what_a_reader_asks(page: str) -> None:
    """How good, for whom, where it fails and what next, before any table."""
    start = page[page.index('id="headline"') : page.index('class="cards"')]

    assert re.findall(r"<dt>(.*?)</dt>", start) == [
        *("How good", "For whom", "Where it fails", "What next"),
    ]
    assert re.search(r"It labels [\d.]+% of 200 reviews", start)
    assert "The weakest label is" in start
    assert not re.search(r"Of reviews with [\w-]+ (yes|no)\b", start)


def test_a_label_that_is_never_answered_has_no_share_of_right_answers(bundle: Path) -> None:
    """Of no answers, none is right and none is wrong."""
    classifier = Classifier.load(bundle)
    sample = Sample(name="s", sha256="", part="test", examples=tuple(reviews(60)))
    judgement, _ = judge_bundle(classifier, [sample], draws=100)
    (first,) = judgement.sets
    label = first.labels[0]
    none = replace(label.precision, value=0.0, rows=0)
    never = replace(label, precision=none, f1=replace(label.f1, value=-1.0))
    changed = replace(judgement, sets=(replace(first, labels=(never, *first.labels[1:])),))

    said = headline(changed, classifier.bundle.manifest)["Where it fails"]

    assert said.startswith(
        f"The weakest label is {label.label}: the model answers it for no review."
    )


def test_a_curve_of_one_point_is_not_drawn(bundle: Path) -> None:
    """One epoch has one score: a dot says nothing that its number does not."""
    classifier = Classifier.load(bundle)
    sample = Sample(name="s", sha256="", part="test", examples=tuple(reviews(60)))
    judgement, _ = judge_bundle(classifier, [sample], draws=100)
    history = [Epoch(rows=9, train_loss=0.5, validation_loss=0.4, validation_macro_f1=0.5)]

    page = render_report(judgement, classifier.bundle.manifest, history=history)

    assert "while training" not in page


def test_review_texts_are_escaped(page: str) -> None:
    """No text of a review, a name of a set or a note becomes markup."""
    for text in HOSTILE:
        assert str(html.escape(text)).replace("&#x27;", "&#39;").replace("&quot;", "&#34;") in page
    for markup in ("<script", "<img", "<i>set", "<b>note", "<b>phones", "onload=alert(3)>"):
        assert markup not in page.replace("&lt;svg onload=alert(3)&gt;", "")


def test_nothing_is_loaded_and_nothing_runs(page: str) -> None:
    """The policy forbids it, and no address of another place is in a tag."""
    assert "default-src 'none'" in page
    tags = " ".join(re.findall(r"<[a-zA-Z][^>]*>", page))
    addresses = re.findall(r"(?:href|src|url)\s*[=(]\s*[\"']?([^\"')\s>]+)", tags)
    assert {a for a in addresses if not a.startswith(("#", "data:"))} == set()
    assert not re.search(r"\son\w+\s*=", tags)


def test_the_same_judgement_gives_the_same_page(bundle: Path) -> None:
    """No date, random id or order of a set gets in."""
    classifier = Classifier.load(bundle)
    sample = Sample(name="s", sha256="", part="test", examples=tuple(reviews(60)))
    judgement, _ = judge_bundle(classifier, [sample], draws=100)
    manifest = classifier.bundle.manifest
    assert render_report(judgement, manifest) == render_report(judgement, manifest)


@pytest.mark.slow
@pytest.mark.parametrize("width", [400, 1280])
def test_a_browser_opens_it_without_a_word(page: str, tmp_path: Path, width: int) -> None:
    """No console message: nothing was blocked, missing or broken, and the hostile texts slept."""
    file = tmp_path / "report.html"
    file.write_text(page, encoding="utf-8")
    document, console = open_page(file, tmp_path / "profile", f"--window-size={width},1000")
    assert console == []
    assert 'id="words"' in document
    assert document.count("<svg") == page.count("<svg")


@pytest.mark.slow
def test_the_browser_would_have_told(tmp_path: Path) -> None:
    """The same check on a page that breaks its policy: the message is seen."""
    file = tmp_path / "bad.html"
    file.write_text(
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'">'
        "<script>document.title = 1</script>",
        encoding="utf-8",
    )
    assert open_page(file, tmp_path / "profile")[1]
