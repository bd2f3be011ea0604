"""Behavioural tests: cases that each test one ability of a model.

The method and the first three types are those of Ribeiro et al. 2020, "Beyond Accuracy:
Behavioral Testing of NLP Models with CheckList", section 2:

- MFT, minimum functionality: the predicted label must be one of those expected.
- INV, invariance: every variant must keep the label of the first text, or its prob within 0.1.
- DIR, directional: no variant may move the answer by more than 0.1 in the wrong direction.
- PAIR, counterfactual pairs (Kaushik, Hovy and Lipton 2020): an original, and the smallest edit
  that gives it another label; the case fails unless both get their label.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, Literal

import msgspec
import numpy as np

from sentimill.classifier import Classifier, Prediction
from sentimill.errors import TableError
from sentimill_train.evaluation.labelled_set import classify_all
from sentimill_train.metrics.classification import Floats
from sentimill_train.metrics.intervals import Figure, share

OWN_SUITE: Final = Path(__file__).parents[1] / "resources" / "behaviour.jsonl"
"""The suite that comes with the package."""

TOLERANCE: Final = 0.1
"""How far a prob may move without failing: section 3 of the paper."""

_SHOWN: Final = 3  # failures kept of each test, for the report


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One case: a row of a suite file.

    texts: one for MFT, otherwise the original and its variants. expected: the allowed labels for
    MFT, one label for each text for PAIR, `same` for INV, a direction for DIR. test: the name of
    the test; its cases are counted together.
    """

    suite: str
    test: str
    type: Literal["MFT", "INV", "DIR", "PAIR"]
    capability: str
    row: str | int
    texts: tuple[str, ...]
    expected: str | tuple[str, ...]


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """A failed case. variant: the text that failed, maybe the original. got: the model's answer."""

    row: str | int
    text: str
    variant: str
    expected: str
    got: str


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One test. rate: of failures among the cases that apply, with Wilson's interval.

    skipped: cases that do not apply, whose labels the model lacks, or with an unreadable text.
    """

    suite: str
    test: str
    type: str
    capability: str
    failures: int
    rate: Figure
    skipped: int
    examples: tuple[Failure, ...] = ()


def read_cases(path: Path, *, most: int | None = None) -> list[Case]:
    """Return the cases of a suite: JSON lines, plain or gzip, with the fields of `Case`.

    most: cases kept of each test, by the smallest hash, so that every run has the same sample.

    Raises:
        TableError: the file cannot be read, is empty, or a line is not a case.
    """
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise TableError(
            f"{path} cannot be read ({error}): give a .jsonl or .jsonl.gz of cases",
            reason="UNREADABLE",
        ) from error
    decoder = msgspec.json.Decoder(Case)
    cases = []
    for number, line in enumerate(data.splitlines(), start=1):
        try:
            case = decoder.decode(line)
            _check(case)
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
            raise TableError(
                f"{path}, line {number}: not a behavioural case ({error}): correct or remove it",
                reason="BAD_CASE",
            ) from error
        cases.append(case)
    if not cases:
        raise TableError(f"{path} has no cases: give another file", reason="EMPTY_FILE")
    return cases if most is None else _sample(cases, most)


_DIRECTIONS: Final = (
    "not_less_confident",
    "not_more_confident",
    "not_less_positive",
    "not_more_positive",
)


def _check(case: Case) -> None:
    wants = {
        "MFT": len(case.texts) == 1 and isinstance(case.expected, tuple),
        "INV": len(case.texts) > 1 and case.expected == "same",
        "DIR": len(case.texts) > 1 and case.expected in _DIRECTIONS,
        "PAIR": len(case.texts) > 1
        and isinstance(case.expected, tuple)
        and len(case.expected) == len(case.texts),
    }
    if not wants[case.type]:
        raise ValueError(f"a {case.type} with {len(case.texts)} texts expecting {case.expected}")


def _sample(cases: Sequence[Case], most: int) -> list[Case]:
    kept: set[int] = set()
    for group in _by_test(cases):
        ranked = sorted(group, key=lambda c: hashlib.sha256("\n".join(c.texts).encode()).digest())
        kept |= {id(case) for case in ranked[:most]}
    return [case for case in cases if id(case) in kept]


def _by_test(cases: Sequence[Case]) -> Iterable[list[Case]]:
    """Return the cases of each test, in the order of the suite."""
    found: dict[tuple[str, str], list[Case]] = {}
    for case in cases:
        found.setdefault((case.suite, case.test), []).append(case)
    return found.values()


def judge_case(case: Case, probs: Floats, labels: Sequence[str]) -> list[int] | None:
    """Return the texts of *case* that fail, by index; None when the case does not apply.

    probs: (texts, labels) in the order of *labels*.
    """
    known = set(labels)
    predicted = probs.argmax(axis=1)
    first = int(predicted[0])
    own = probs[:, first] - probs[0, first]
    got = [labels[i] for i in predicted]
    match case.expected:
        case "same":
            failed = (predicted != first) & (np.abs(own) > TOLERANCE)
        case "not_less_confident" | "not_more_confident":
            if labels[first] == "neutral":
                return None  # neutral has no direction; the suite of the paper skips it too
            failed = (own if "less" in case.expected else -own) < -TOLERANCE
        case "not_less_positive" | "not_more_positive":
            if not {"negative", "positive"} <= known:
                return None
            score = probs[:, labels.index("positive")] - probs[:, labels.index("negative")]
            change = score - score[0]
            failed = (change if "less" in case.expected else -change) < -TOLERANCE
        # A model without the label that a case is about cannot be asked for it.
        case expected if case.type == "PAIR":
            if not set(expected) <= known:
                return None
            failed = np.array([a != b for a, b in zip(got, expected, strict=True)])
        case expected:
            if not set(expected) & known:
                return None
            failed = np.array([got[0] not in expected])
    return [int(i) for i in np.flatnonzero(failed)]


def run_cases(classifier: Classifier, cases: Sequence[Case]) -> list[Result]:
    """Classify every text once and return one result for each test, in the order of the suite."""
    texts = list(dict.fromkeys(text for case in cases for text in case.texts))
    results = zip(texts, classify_all(classifier, texts), strict=True)
    found = {t: np.array(one.probs) for t, one in results if isinstance(one, Prediction)}
    return [_count(group, found, classifier.labels) for group in _by_test(cases)]


def _count(cases: Sequence[Case], found: dict[str, Floats], labels: Sequence[str]) -> Result:
    failures: list[Failure] = []
    judged = 0
    for case in cases:
        probs = [found[text] for text in case.texts if text in found]
        if len(probs) < len(case.texts):
            continue
        failed = judge_case(case, np.stack(probs), labels)
        if failed is None:
            continue
        judged += 1
        if failed:
            failures.append(_failure(case, failed[0], probs, labels))
    return Result(
        suite=cases[0].suite,
        test=cases[0].test,
        type=cases[0].type,
        capability=cases[0].capability,
        failures=len(failures),
        rate=share(len(failures), judged),
        skipped=len(cases) - judged,
        examples=tuple(failures[:_SHOWN]),
    )


def _failure(case: Case, failed: int, probs: Sequence[Floats], labels: Sequence[str]) -> Failure:
    expected = case.expected
    if case.type == "PAIR":
        expected = expected[failed]
    elif isinstance(expected, tuple):
        expected = " or ".join(expected)
    got = " → ".join(
        f"{labels[int(row.argmax())]} {row.max():.2f}"
        for row in ((probs[0], probs[failed]) if failed else (probs[0],))
    )
    return Failure(
        row=case.row, text=case.texts[0], variant=case.texts[failed], expected=expected, got=got
    )
