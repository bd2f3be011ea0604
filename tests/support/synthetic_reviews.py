"""Made-up reviews for a tiny bundle: enough of them, and hostile ones among them."""

from __future__ import annotations

import random
from pathlib import Path

from sentimill_train.data.examples import write_examples
from sentimill_train.data.schema import Example

HOSTILE = (
    "<script>alert(1)</script> bad",
    '"><img src=x onerror=alert(2)> bad battery',
    "good {{ 7 * 7 }} {% raw %}",
    "</style></title><svg onload=alert(3)> good",
    "bad &lt;b&gt; \u202egnitsrever\u202c \u0645\u0631\u062d\u0628\u0627 battery 😀",
)


def reviews(rows: int, *, seed: int = 0) -> list[Example]:
    """Return labelled reviews of which the tiny bundle gets most right, the hostile ones wrong."""
    draw = random.Random(seed)
    words = {"negative": "bad", "neutral": "fine", "positive": "good"}
    found = [
        Example(
            id=f"hostile-{i}",
            text=text,
            label="positive" if "bad" in text else "negative",
            stars=5 if "bad" in text else 1,
            source="made",
        )
        for i, text in enumerate(HOSTILE)
    ]
    for i in range(rows - len(found)):
        label = draw.choice(list(words))
        word = words[label] if draw.random() < 0.8 else draw.choice(list(words.values()))
        found.append(
            Example(
                id=str(i),
                text=f"the {word} battery {'does not' if i % 3 else 'does'} {i}",
                label=label,
                stars={"negative": 1, "neutral": 3, "positive": 5}[label],
                domain=draw.choice(["<b>phones</b>", "hotels"]),
                source="made",
            )
        )
    return found


def write_reviews(path: Path, rows: int, *, seed: int = 0) -> str:
    """Write reviews as JSON lines and return the path as a string."""
    write_examples(path, reviews(rows, seed=seed))
    return str(path)
