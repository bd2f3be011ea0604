"""A large model behind any OpenAI-compatible endpoint: asks for one token, reads its probabilities.

It uses HTTP from the standard library, so that a benchmark of a local server needs no SDK. The key,
if there is one, comes from OPENAI_API_KEY.
"""

from __future__ import annotations

import json
import math
import os
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.proof.prompts import LABELS, Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A chat endpoint. url: ends with /v1. callers: how many requests it gets at the same time."""

    url: str
    model: str
    prompt: Prompt
    callers: int = 32
    timeout_s: float = 60.0

    def classify(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Return probs (texts, labels); a uniform row where no label was among the likeliest."""
        with ThreadPoolExecutor(self.callers) as pool:
            return np.array(list(pool.map(self.ask, texts)))

    def ask(self, text: str) -> list[float]:
        """Return one review's probs. Raises OSError when the endpoint does not answer."""
        body = {
            "model": self.model,
            "max_tokens": 1,
            "temperature": 0,
            "logprobs": True,
            "top_logprobs": 20,
            "messages": [
                {"role": "system", "content": self.prompt.before.removesuffix("\nReview: ")},
                {"role": "user", "content": f"Review: {text}{self.prompt.after}"},
            ],
        }
        request = urllib.request.Request(
            f"{self.url}/chat/completions",
            data=json.dumps(body).encode(),
            headers={
                "Content-Type": "application/json",
                "Authorization": f"Bearer {os.environ.get('OPENAI_API_KEY', 'none')}",
            },
        )
        with urllib.request.urlopen(request, timeout=self.timeout_s) as response:
            choice = json.load(response)["choices"][0]
        return _shares(choice["logprobs"]["content"][0]["top_logprobs"])


def _shares(top: Sequence[dict[str, object]]) -> list[float]:
    """Sum the likeliest tokens' probabilities by the label that each begins."""
    mass = dict.fromkeys(LABELS, 0.0)
    for alternative in top:
        token = str(alternative["token"]).strip().lower()
        for label in LABELS:
            if len(token) >= 3 and label.startswith(token):
                mass[label] += math.exp(float(str(alternative["logprob"])))
    total = sum(mass.values())
    return [mass[label] / total if total else 1 / len(LABELS) for label in LABELS]
