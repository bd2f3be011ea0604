"""Compares two models on the same rows: how much better one is, and if that may be chance."""

from __future__ import annotations

import msgspec
import numpy as np

from sentimill_train.metrics.classification import Floats, Ints, f1_scores
from sentimill_train.metrics.intervals import CELLS, DRAWS, Figure, error_bound


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """The second model against the first, on one set. Differences are second minus first.

    only_first, only_second: rows that only this model has right; McNemar's test uses no others. If
    there are none, the interval of accuracy is that of the exact binomial bound. p_exact, p_mid:
    two-sided. p_worse, p_worse_macro_f1: one-sided, for the null hypothesis that the second is no
    worse.
    """

    rows: int
    only_first: int
    only_second: int
    accuracy: Figure
    macro_f1: Figure
    p_exact: float
    p_mid: float
    p_macro_f1: float
    p_worse: float
    p_worse_macro_f1: float

    @property
    def verdict(self) -> str:
        """`better`, `worse`, or `no clear difference` at 5 %, by accuracy (mid-p)."""
        if self.p_mid >= 0.05:
            return "no clear difference"
        return "better" if self.only_second > self.only_first else "worse"


def compare(
    gold: Ints, first: Ints, second: Ints, *, labels: int, draws: int = DRAWS, seed: int = 0
) -> Comparison:
    """Compare predictions of two models on the same rows. gold, first, second: (rows,) int64.

    Accuracy is compared by McNemar's test, macro-F1 by the paired bootstrap (Efron and Tibshirani
    1993, chapter 16; Berg-Kirkpatrick et al. 2012), which draws both answers to a row together.
    """
    rows = len(gold)
    right_first, right_second = first == gold, second == gold
    only_first = int((right_first & ~right_second).sum())
    only_second = int((right_second & ~right_first).sum())
    p_exact, p_mid, p_worse = mcnemar(only_first, only_second)
    seen = np.unique(gold)

    # A row is one of labels^3 kinds, and a draw of rows is a multinomial draw of the kinds that
    # occur. This is exact, and with few labels a million rows are as fast as a hundred.
    kinds, counts = np.unique((gold * labels + first) * labels + second, return_counts=True)
    right, one, other = kinds // labels**2, kinds // labels % labels, kinds % labels

    def gains(counts: Floats) -> Floats:
        """Return the gains of the second in accuracy and in macro-F1: (draws, 2)."""
        accuracy = counts @ ((other == right).astype(np.float64) - (one == right)) / rows
        scores = f1_scores(right, other, labels, counts) - f1_scores(right, one, labels, counts)
        return np.stack([accuracy, scores[:, seen].mean(axis=1)], axis=1)

    random, found = np.random.default_rng(seed), []
    step = max(1, CELLS // max(len(kinds), labels))
    for start in range(0, draws, step):
        drawn = random.multinomial(rows, counts / rows, min(step, draws - start))
        found.append(gains(drawn.astype(np.float64)))
    accuracy, macro_f1 = np.concatenate(found).T
    gained = _figure((only_second - only_first) / rows, accuracy, rows)
    if only_first + only_second == 0:
        # No draw differs, but new rows may: as many as the exact bound allows.
        most = most_lost(only_first, rows)
        gained = msgspec.structs.replace(gained, low=-most, high=most)
    return Comparison(
        rows=rows,
        only_first=only_first,
        only_second=only_second,
        accuracy=gained,
        macro_f1=_figure(float(gains(counts.astype(np.float64)[None])[0, 1]), macro_f1, rows),
        p_exact=p_exact,
        p_mid=p_mid,
        p_macro_f1=min(1.0, 2 * min(_tail(-macro_f1), _tail(macro_f1))),
        p_worse=p_worse,
        p_worse_macro_f1=_tail(macro_f1),
    )


def most_lost(only_first: int, rows: int) -> float:
    """Return the exact upper bound, at 97.5 %, of the share of rows that only the first has right.

    Rows that only the second has right are not subtracted.
    """
    return float(error_bound(only_first, rows, 0.025))


def mcnemar(only_first: int, only_second: int) -> tuple[float, float, float]:
    """Return the p values of McNemar's test (McNemar 1947): two-sided exact and mid-p, one-sided.

    If the models are equally good, either is right with probability 1/2 on a row that only one has
    right. The mid-p value counts half of the observed outcome; Fagerland, Lydersen and Laake 2013
    recommend it, since the exact test is too conservative. A small one-sided mid-p means that the
    second is worse.
    """
    from scipy.stats import binom

    tosses = only_first + only_second
    if tosses == 0:
        return 1.0, 1.0, 1.0
    at_most, exactly = (
        f([min(only_first, only_second), only_second], tosses, 0.5) for f in (binom.cdf, binom.pmf)
    )
    exact, mid, worse = 2 * at_most[0], 2 * at_most[0] - exactly[0], at_most[1] - exactly[1] / 2
    return min(1.0, float(exact)), min(1.0, float(mid)), float(worse)


def _tail(drawn: Floats) -> float:
    """Return the share of draws at 0 or above, never 0: Davison and Hinkley 1997, section 4.4.

    Draws at exactly 0 count half, as in the mid-p value, so two equal models get one half.
    """
    above = float((drawn > 0).sum()) + 0.5 * float((drawn == 0).sum())
    return (above + 1) / (len(drawn) + 2)


def _figure(value: float, drawn: Floats, rows: int) -> Figure:
    low, high = np.quantile(drawn, [0.025, 0.975]).tolist()
    return Figure(value=value, low=low, high=high, rows=rows)
