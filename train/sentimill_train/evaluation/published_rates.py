"""The failure rates of other models on CheckList, from its paper."""

from __future__ import annotations

from typing import Final

PUBLISHED: Final = {
    "neutral words in context": (94.6, 81.8),
    "Sentiment-laden words in context": (0.0, 0.2),
    "change neutral words with BERT": (10.2, 10.2),
    "add positive phrases": (0.2, 10.2),
    "add negative phrases": (0.0, 13.2),
    "add random urls and handles": (11.4, 7.4),
    "typos": (5.2, 3.8),
    "change locations": (7.6, 6.4),
    "change names": (6.6, 2.4),
    "used to, but now": (18.8, 11.0),
    "simple negations: not negative": (13.2, 2.6),
    "simple negations: not neutral is still neutral": (98.4, 95.4),
    "simple negations: I thought x was negative, but it was not (should be neutral or positive)": (
        84.8,
        7.2,
    ),
    "Hard: Negation of positive with neutral stuff in the middle (should be negative)": (
        74.0,
        30.2,
    ),
    "my opinion is what matters": (38.8, 30.0),
    "Q & A: yes": (3.6, 3.0),
    "Q & A: no": (55.4, 54.8),
}
"""Failures in %, by test, of BERT-base and RoBERTa-base on SST-2: Ribeiro et al. 2020, table 1."""
