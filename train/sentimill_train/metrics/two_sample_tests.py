"""Three two-sample tests of whether a distribution has shifted, each with a simple distance.

On many rows any two months differ significantly, so a test alone would give false alarms. A shift
must be both unlikely by chance and large.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from sentimill_train.metrics.classification import Floats

PSI_LIMIT: Final = 0.25
"""A label mix above it has shifted; below 0.1 is usual (Siddiqi 2006, Credit Risk Scorecards,
chapter 9). The alert LabelMixDrift has the same limit."""
KS_LIMIT: Final = 0.1
"""Our choice: the two distribution functions differ by ten points somewhere."""
AUC_LIMIT: Final = 0.6
"""Our choice: of an old and a new text, a linear model finds the new one six times in ten."""

_LEAST_SHARE: Final = 0.001  # as in rules.yml and history.py; keeps the index finite
_PERMUTATIONS: Final = 2000
_RIDGE: Final = 0.01  # strong, because there are hundreds of dimensions and only hundreds of rows


@dataclass(frozen=True, slots=True)
class Found:
    """A distance between two samples, and the p value: how likely one as large is by chance."""

    value: float
    p: float


def mix_shift(
    reference: Mapping[str, float], counts: Mapping[str, int], *, reference_rows: int | None
) -> Found:
    """Return the population stability index of label *counts* against *reference* shares.

    p: without a shift, PSI * n * m / (n + m) is about chi-squared with labels - 1 degrees of
    freedom (Yurdakul 2018, Statistical Properties of Population Stability Index, section 3).
    reference_rows: m, from how many rows the shares were computed; None takes them as exact.
    """
    from scipy.stats import chi2

    rows = sum(counts.values())
    index = 0.0
    for label, share in reference.items():
        p, q = max(counts.get(label, 0) / rows, _LEAST_SHARE), max(share, _LEAST_SHARE)
        index += (p - q) * math.log(p / q)
    scale = rows if reference_rows is None else rows * reference_rows / (rows + reference_rows)
    return Found(index, float(chi2.sf(index * scale, len(reference) - 1)))


def spread(old: Floats, new: Floats) -> Found:
    """Return the two-sample Kolmogorov-Smirnov test of *old* (m,) and *new* (n,), two-sided.

    The value is the largest difference of the two distribution functions, 0 to 1. Ties, which
    lengths have, make p too large and never too small.
    """
    from scipy.stats import ks_2samp

    found = ks_2samp(old, new, method="asymp")
    return Found(float(found.statistic), float(found.pvalue))


def embedding_shift(old: Floats, new: Floats, *, seed: int = 0) -> Found:
    """Return the classifier two-sample test of *old* (m, hidden) and *new* (n, hidden).

    Lopez-Paz and Oquab 2017, "Revisiting Classifier Two-Sample Tests": a logistic regression learns
    on half of the rows to tell old from new, and the value is its AUC on the other half; 0.5 is
    chance. p: how often the AUC is as large when the labels of that half are permuted (one is added
    as in Phipson and Smyth 2010). Needs at least four rows of each.
    """
    from scipy.stats import permutation_test, rankdata
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    random = np.random.default_rng(seed)
    learn, judge = zip(_halves(old, random), _halves(new, random), strict=True)
    model = make_pipeline(
        StandardScaler(), LogisticRegression(C=_RIDGE, class_weight="balanced", max_iter=1000)
    )
    model.fit(np.concatenate(learn), np.repeat([0, 1], [len(learn[0]), len(learn[1])]))
    ranks = rankdata(model.decision_function(np.concatenate(judge)))
    of_old, of_new = np.split(ranks, [len(judge[0])])
    found = permutation_test(
        (of_new, of_old),
        lambda new, old, axis: new.mean(axis=axis) - old.mean(axis=axis),
        alternative="greater",
        n_resamples=_PERMUTATIONS,
        batch=100,
        vectorized=True,
        rng=random,
    )
    auc = 0.5 + found.statistic / len(ranks)  # Mann and Whitney 1947
    return Found(float(auc), float(found.pvalue))


def _halves(rows: Floats, random: np.random.Generator) -> tuple[Floats, Floats]:
    order = random.permutation(len(rows))
    return rows[order[: len(rows) // 2]], rows[order[len(rows) // 2 :]]
