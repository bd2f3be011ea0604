"""Makes sentences whose form decides their sentiment: negation, hopes that failed, other people.

    python -m benchmarks.reference.sentence_forms --out forms.jsonl

Reviews have few of them, and a student that has read only reviews takes "the soup wasn't bad" for
a complaint: one bad word is what it goes by. Here the same words stand in every form, so that the
words alone tell nothing. Each sentence is filled from lists, about things that are not in any
suite that we are judged by (no airline), and has shares (`probs`) as `train` reads them.

Filled forms teach the form, and a suite that is filled from forms (CheckList) shows little more
than that it was learnt. Cases written one by one (the suite of the package, and the counterfactual
pairs) show what carries over.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from benchmarks.reference.mix import LABELS, plain

ROWS: Final = 9000

SHARES: Final = {
    "+": (0.02, 0.06, 0.92),
    "-": (0.92, 0.06, 0.02),
    "0": (0.05, 0.90, 0.05),
    "~+": (0.06, 0.40, 0.54),  # denied blame: praise to some, "all right" to others
    "~-": (0.62, 0.34, 0.04),
}

WORDS: Final[dict[str, list[str]]] = json.loads(
    Path(__file__).with_name("form-words.json").read_text(encoding="utf-8")
)
"""Things (one, many) of shops, kitchens, hotels and screens; what is said of them; and the rest."""

Draw = random.Random
Made = tuple[str, str]
"""A sentence, and the key of its shares."""


def pick(draw: Draw, kind: str) -> str:
    """Return one of the words of a kind."""
    return draw.choice(WORDS[kind])


class Words:
    """One draw of all words that a form may need. A form uses some of them."""

    def __init__(self, draw: Draw) -> None:
        self.draw = draw
        many = draw.random() < 0.25
        self.noun = pick(draw, "many" if many else "one")
        the = draw.choice(
            ["the", "the", "our", "my", "their", *(["these"] if many else ["this", "that"])]
        )
        self.thing = f"{the} {self.noun}"
        past = draw.random() < 0.5
        self.be = ("were" if many else "was") if past else ("are" if many else "is")
        self.was = "were" if many else "was"
        self.it, self.it_be = ("they", "are" if not past else "were") if many else ("it", self.be)
        self.them = "them" if many else "it"
        # with an apostrophe, spelt out, and as people type
        self.isnt = draw.choice(
            [f"{self.be}n't", f"{self.be}n't", f"{self.be} not", f"{self.be}nt"]
        )
        self.wasnt = draw.choice([f"{self.was}n't", f"{self.was} not"])
        self.aside = pick(draw, "aside")
        self.other = pick(draw, "others")
        self.love, self.hate = pick(draw, "love"), pick(draw, "hate")
        self.trouble, self.merit = pick(draw, "trouble"), pick(draw, "merit")
        self.very = draw.choice(["", "", "", "very ", "really ", "that ", "so "])

    def quality(self) -> tuple[str, str]:
        """Return a word, and its sign: + good, - bad, 0 neither."""
        sign = self.draw.choice("+-+-0")
        return pick(self.draw, {"+": "good", "-": "bad", "0": "plain"}[sign]), sign

    def pair(self) -> tuple[str, str, str]:
        """Return two words of opposite signs, and the sign of the second."""
        sign = self.draw.choice("+-")
        first, second = ("bad", "good") if sign == "+" else ("good", "bad")
        return pick(self.draw, first), pick(self.draw, second), sign


DENIED: Final = {"+": "-", "-": "~+", "0": "0"}
"""What the denial of a word amounts to."""
BELIED: Final = {"+": "-", "-": "+", "0": "0"}
"""What it amounts to that a word was expected, or said by others, and does not hold."""


def said(w: Words) -> Made:
    """Say a word of a thing, without a denial."""
    word, sign = w.quality()
    form = w.draw.choice(
        [
            f"{w.thing} {w.be} {word}",
            f"{w.thing} {w.be} {w.very.replace('that ', '')}{word}",
            f"I find {w.thing} {word}",
            f"{w.it} {w.it_be} {word}",
            f"{word} {w.noun}",
            f"in my view {w.thing} {w.be} {word}",
            f"I think {w.thing} {w.be} {word}, {w.aside}",
        ]
    )
    return form, sign


def denied(w: Words) -> Made:
    """Deny a word of a thing."""
    word, sign = w.quality()
    form = w.draw.choice(
        [
            f"{w.thing} {w.isnt} {w.very}{word}",
            f"{w.thing} {w.isnt} {word}",
            f"{w.thing} {w.isnt} {word} at all",
            f"{w.it} {w.isnt} {word}",
            f"I wouldn't call {w.thing} {word}",
            f"I do not find {w.thing} {word}",
            f"I don't think {w.thing} {w.be} {word}",
            f"nobody could say that {w.thing} {w.be} {word}",
            f"not {word}, {w.thing}",
            f"there is nothing {word} about {w.thing}",
            f"never once did I find {w.thing} {word}",
            f"{w.thing} never struck me as {word}",
            f"{w.thing} {w.be} by no means {word}",
        ]
    )
    return form, DENIED[sign]


def denied_late(w: Words) -> Made:
    """Deny a word that comes long after the denial."""
    word, sign = w.quality()
    form = w.draw.choice(
        [
            f"I don't think, {w.aside}, that {w.thing} {w.be} {word}",
            f"I can't say, {w.aside}, that {w.thing} {w.be} {word}",
            f"I would not claim, {w.aside}, that {w.thing} {w.be} {word}",
            f"we don't believe, {w.aside}, that {w.thing} {w.be} {word}",
            f"nobody, {w.aside}, would call {w.thing} {word}",
            f"{w.thing}, {w.aside}, {w.isnt} {word}",
            f"{w.thing} {w.isnt}, {w.aside}, {word}",
            f"it can't be said, {w.aside}, that {w.it} {w.it_be} {word}",
            f"never, {w.aside}, did I find {w.thing} {word}",
            f"I'd not go so far, {w.aside}, as to call {w.thing} {word}",
        ]
    )
    return form, DENIED[sign]


def believed(w: Words) -> Made:
    """Expect something of a thing, which then holds or does not."""
    word, sign = w.quality()
    hoped = w.draw.choice(
        [
            f"I thought {w.thing} would be {word}",
            f"I expected {w.thing} to be {word}",
            f"we were sure {w.thing} would be {word}",
            f"I was told {w.thing} would be {word}",
            f"I figured {w.thing} had to be {word}",
            f"{w.aside}, I thought {w.thing} would be {word}",
            f"from the pictures I took {w.thing} to be {word}",
        ]
    )
    if w.draw.random() < 0.3:
        return hoped + w.draw.choice(
            [f", and {w.it} {w.was}", f". {w.it} {w.was}", ", and I was right"]
        ), sign
    failed = [
        f", but {w.it} {w.wasnt}",
        f" but {w.it} {w.wasnt}",
        f". {w.it} {w.wasnt}",
        f"; {w.it} {w.wasnt} at all",
        ", but I was wrong",
        f", yet {w.it} {w.wasnt}",
    ]
    return hoped + w.draw.choice(failed), BELIED[sign]


_SINGULAR: Final = ("my s", "my h", "my w", "my m", "my f", "my b", "every", "the ", "a ")


def of_others(w: Words) -> Made:
    """Contrast the opinion of others with mine. Mine counts, whichever comes first."""
    theirs, mine, sign = w.pair()
    other = w.other
    says, say = ("thinks", "calls") if other.startswith(_SINGULAR) else ("think", "call")
    opens = w.draw.choice(
        [
            f"{other} {says} {w.thing} {w.be} {theirs}",
            f"{other} {say} {w.thing} {theirs}",
            f"I had heard {w.thing} {w.was} {theirs}",
            f"{w.thing} {w.be} said to be {theirs}",
        ]
    )
    closes = w.draw.choice(
        [
            f"I think {w.it} {w.it_be} {mine}",
            f"to me {w.it} {w.it_be} {mine}",
            f"I find {w.them} {mine}",
        ]
    )
    if w.draw.random() < 0.5:
        return f"{opens}{w.draw.choice([', but ', ', ', '. ', '; '])}{closes}", sign
    mine_first = f"I think {w.thing} {w.be} {mine}"
    after = w.draw.choice(
        [
            f"though {other} {say} {w.them} {theirs}",
            f"whatever {other} may say of how {theirs} {w.it} {w.it_be}",
            f"I had heard {w.it} {w.was} {theirs}",
            f"but {other} {says} {w.it} {w.it_be} {theirs}",
        ]
    )
    return f"{mine_first}{w.draw.choice([', ', '. ', ' - '])}{after}", sign


def answered(w: Words) -> Made:
    """Ask a question, and answer it with a word."""
    word, sign = w.quality()
    ask = w.draw.choice(
        [
            f"{w.be} {w.thing} {word}?",
            f"would I call {w.thing} {word}?",
            f"do I find {w.thing} {word}?",
            f"do we think {w.thing} {w.be} {word}?",
            f"did {w.thing} seem {word} to me?",
            f"can I say that {w.thing} {w.be} {word}?",
        ]
    )
    if w.draw.random() < 0.4:
        return ask + " " + w.draw.choice(
            ["yes", "Yes.", "Yes!", "Certainly.", "yes, I do", "Very much so."]
        ), sign
    no = [
        "no",
        "No.",
        "No!",
        "Not at all.",
        "Certainly not.",
        "no, sorry",
        "Hardly.",
        "Not really.",
    ]
    return ask + " " + w.draw.choice(no), DENIED[sign]


def over_time(w: Words) -> Made:
    """Contrast then and now. Now counts."""
    then, now, sign = w.pair()
    before, after = (w.hate, w.love) if sign == "+" else (w.love, w.hate)
    is_now = "are" if w.it == "they" else w.draw.choice(["is", "feels"])
    form = w.draw.choice(
        [
            f"{w.thing} used to be {then}, now {w.it} {is_now} {now}",
            f"I used to find {w.thing} {then}, but these days {now}",
            f"I used to {before} {w.thing}, but now I {after} {w.them}",
            f"{w.thing} {w.was} {then} a year ago. Today I'd say {now}",
            f"once {then}, {w.thing} {'have' if w.it == 'they' else 'has'} become {now}",
            f"I would have called {w.thing} {then} last summer, though now I think {now}",
            f"in the beginning I thought {w.thing} {w.was} {then}; by now I know how {now} {w.it}"
            " can be",
        ]
    )
    return form, sign


def felt(w: Words) -> Made:
    """Say what the writer does or does not do with a thing."""
    made: list[Made] = [
        (f"I {w.love} {w.thing}", "+"),
        (f"I {w.hate} {w.thing}", "-"),
        (f"I don't {w.love} {w.thing}", "-"),
        (f"I did not {w.love} {w.thing}, {w.aside}", "-"),
        (f"I can't say that I {w.love} {w.thing}", "-"),
        (f"nobody here will {w.love} {w.thing}", "-"),
        (f"I don't {w.hate} {w.thing}", "~+"),
        (f"I can't say, {w.aside}, that I {w.hate} {w.thing}", "~+"),
        (f"not for a moment did I {w.hate} {w.thing}", "+"),
        (f"I can't recommend {w.thing} enough", "+"),
        (f"I could not {w.love} {w.thing} more", "+"),
        (f"I can't find fault with {w.thing}", "+"),
        (f"{w.thing} {w.was} never a disappointment", "+"),
        (f"{w.thing} never let me down", "+"),
        (f"{w.thing} let me down", "-"),
        (f"{w.thing} failed to impress", "-"),
        (f"{w.thing} did not fail to impress", "+"),
        (f"I don't regret buying {w.thing}", "+"),
        (f"I regret buying {w.thing}", "-"),
        (f"{w.thing} couldn't be better", "+"),
        (f"{w.thing} couldn't be worse", "-"),
        (f"{w.thing} could be better", "~-"),
        (f"{w.thing} could be worse", "0"),
        (f"I have never had a better {w.noun}", "+"),
        (f"I have never had a worse {w.noun}", "-"),
        (f"I have had better {w.noun}", "~-"),
    ]
    return w.draw.choice(made)


def without(w: Words) -> Made:
    """Say what was absent: a trouble, which is good, or a merit, which is bad."""
    made: list[Made] = [
        (f"no {w.trouble} with {w.thing}", "+"),
        (f"{w.thing} came without any {w.trouble}", "+"),
        (f"we never had any {w.trouble} with {w.thing}", "+"),
        (f"nothing but {w.trouble} with {w.thing}", "-"),
        (f"plenty of {w.trouble}, {w.aside}", "-"),
        (f"{w.thing} had no {w.merit}", "-"),
        (f"there is no {w.merit} in {w.thing}", "-"),
        (f"{w.thing} lacked any {w.merit}", "-"),
        (f"no lack of {w.merit} here", "+"),
        (f"nothing wrong with {w.thing}", "~+"),
        (f"nothing right about {w.thing}", "-"),
    ]
    return w.draw.choice(made)


def unreal(w: Words) -> Made:
    """Say what would have been."""
    good, bad = pick(w.draw, "good"), pick(w.draw, "bad")
    made: list[Made] = [
        (f"{w.thing} would have been {good} if anybody had cared", "-"),
        (f"if only {w.thing} {w.was} {good}", "-"),
        (f"I wish I could call {w.thing} {good}", "-"),
        (f"{w.thing} should have been {good}", "-"),
        (f"{w.thing} could have been {bad}, but somebody took care", "+"),
        (f"I had to look hard for anything {bad} about {w.thing}", "+"),
        (f"{w.thing} {w.be} too {good} to be left out", "+"),
        (f"I'd be lying if I said {w.thing} {w.was} {good}", "-"),
        (f"I'd be lying if I said {w.thing} {w.was} {bad}", "~+"),
        (f"it would be wrong to call {w.thing} {bad}", "~+"),
        (f"it would be wrong to call {w.thing} {good}", "-"),
    ]
    return w.draw.choice(made)


FORMS: Final[tuple[Callable[[Words], Made], ...]] = (
    said,
    denied,
    denied_late,
    believed,
    of_others,
    answered,
    over_time,
    felt,
    without,
    unreal,
)


def typed(text: str, draw: Draw) -> str:
    """Return *text* as somebody might type it: with or without capital, full stop and context."""
    if draw.random() < 0.85:
        text = text[0].upper() + text[1:]
    if text[-1].isalpha() and draw.random() < 0.8:
        text += draw.choice("....!")
    if draw.random() < 0.12:
        context = pick(draw, "context")
        text = f"{context} {text}" if draw.random() < 0.5 else f"{text} {context}"
    return text


def rows(count: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Yield *count* rows, no two with the same words, each form equally often."""
    draw, known = random.Random(seed), set[str]()
    while len(known) < count:
        text, key = FORMS[len(known) % len(FORMS)](Words(draw))
        text = typed(text, draw)
        if plain(text) in known:
            continue
        known.add(plain(text))
        shares = list(SHARES[key])
        label = LABELS[shares.index(max(shares))]
        yield {"text": text, "label": label, "domain": "forms", "split": "train", "probs": shares}


def main() -> None:
    """Write the sentences."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="file to write (.jsonl)")
    parser.add_argument("--rows", type=int, default=ROWS)
    given = parser.parse_args()
    with given.out.open("w", encoding="utf-8") as out:
        out.writelines(json.dumps(row) + "\n" for row in rows(given.rows))


if __name__ == "__main__":
    main()
