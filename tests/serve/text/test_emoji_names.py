"""Emoji and emoticons are named, and nothing else is touched."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentimill.text.emoji_names import _WITH_EYES, _may_have_eyes, _names_of, name_emoji


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("😍", ":smiling face with heart eyes:"),
        ("Love it😍!", "Love it :smiling face with heart eyes:!"),
        ("yes 😍) and (no 👎)", "yes :smiling face with heart eyes:) and (no :thumbs down:)"),
        ("so 🔥good", "so :fire: good"),
        ("👍🏽", ":thumbs up:"),
        ("👍🏽👍👍🏿", ":thumbs up: :thumbs up: :thumbs up:"),
        ("❤️ ❤ ♥ ♡", ":red heart: :red heart: :red heart: :red heart:"),
        ("🤷‍♀️", ":person shrugging:"),
        ("🤷🏼‍♂️", ":person shrugging:"),
        ("🤷", ":person shrugging:"),
        ("👩🏻‍🍳", ":woman cook:"),
        ("👨‍👩‍👧‍👦", ":family man woman girl boy:"),
        ("❤️‍🔥", ":heart on fire:"),
        ("🏴󠁧󠁢󠁥󠁮󠁧󠁿 🇫🇷", ":flag England: :flag France:"),
        ("5️⃣ out of 🔟", "5 out of 10"),
        ("😍😍😍😍", ":smiling face with heart eyes: :smiling face with heart eyes:"),
        ("😀 😀 😀", ":grinning face: :grinning face:"),
        ("🎉🥳", ":party popper: :partying face:"),
        ("⭐⭐⭐⭐⭐ great", ":5 stars: great"),
        ("★★☆☆☆ meh", ":2 of 5 stars: meh"),
        ("⭐️ avoid", ":star: avoid"),
        ("☆☆☆☆☆", ":0 of 5 stars:"),
        ("👩‍🔥", ":woman: :fire:"),  # no such sequence: its parts
    ],
)
def test_emoji_are_named(text: str, named: str) -> None:
    """Tones, sex and style are dropped, rows are shortened, stars and keycaps are counted."""
    assert named == name_emoji(text)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("nice :)", "nice :slightly smiling face:"),
        ("nice :o)", "nice :slightly smiling face:"),
        ("nice:-)))", "nice :slightly smiling face:"),
        (
            "O_o o_O xD",
            ":face with raised eyebrow: :face with raised eyebrow: :grinning squinting face:",
        ),
        ("yes \\o/", "yes :raising hands:"),
        ("(just kidding :)", "(just kidding :slightly smiling face:"),
        ("broke :( again", "broke :frowning face: again"),
        ("broke :'(", "broke :crying face:"),
        ("thanks ;)", "thanks :winking face:"),
        ("hmm :-/ no", "hmm :confused face: no"),
        ("hmm :/", "hmm :confused face:"),
        ("ha :D ha XD", "ha :grinning face: ha :grinning squinting face:"),
        ("love it <3", "love it :red heart:"),
        ("love it &lt;3", "love it &lt;3"),  # entities are `clean`'s, before
        ("</3", ":broken heart:"),
        (
            "^_^ -_- T_T",
            ":smiling face with smiling eyes: :expressionless face: :loudly crying face:",
        ),
        (">:( never", ":angry face: never"),
        (":P", ":face with tongue:"),
        ("¯\\_(ツ)_/¯", ":person shrugging:"),
    ],
)
def test_emoticons_take_the_name_of_the_emoji_that_they_mean(text: str, named: str) -> None:
    """An emoticon and its emoji are one to the model."""
    assert named == name_emoji(text)


@pytest.mark.parametrize(
    "text",
    [
        "Open 10:30 to 18:00, ratio 3:1, score 4:0.",
        "See https://example.com/a:b?x=(1)&y=;) and http://x.org/:/",
        "C:\\temp and D:/data and file:///tmp",
        "Comes in three sizes (small, medium, large:) as said (note:)",
        "Two things:(1) cheap, (2) quick; list: 8) last",
        "It took <3 hours, <3% failed, <3.5 lbs, rating<3, <30 minutes",
        "It costs $8 (was $10).",
        "An XD card, an xD-Picture Card, the XD-500",
        "f(x)=(y) and a=b; c=d",
        "Pros:** good **Cons:* bad",
        "|:-|:-:|",
        "Option D: none. Plan P: all. snake_case_name and __init__",
        "Crème brûlée — “très bon”, 20 °C, ½ price, © 2020 Acme™ ®",
        "日本語のレビュー、とても良い",
        "plain text",
        "",
        "🇦",
    ],
)
def test_other_text_stays_as_it_is(text: str) -> None:
    """Times, addresses, paths, prices, comparisons, lists and signs of print are no emoticons."""
    assert text == name_emoji(text)


def test_what_is_named_has_no_emoji_left() -> None:
    """Naming twice is naming once."""
    once = name_emoji("Wow 😂😂 1️⃣ ⭐⭐ :) <3 🏳️‍🌈 👩‍❤️‍💋‍👨 👯‍♀️")

    assert once.isascii()
    assert once == name_emoji(once)


def test_every_emoji_has_an_ascii_name() -> None:
    """The fast tokenizer reads the names, whatever the emoji."""
    from emoji import EMOJI_DATA

    left = [e for e in EMOJI_DATA if not name_emoji(e).isascii() and e[0] not in "©®™"]

    assert all(len(e) == 1 for e in left)  # halves of flags and lone tones


@given(st.text(st.sampled_from(":;=>'-()oODPp/\\|*_.<a 3"), max_size=12))
def test_the_quick_look_overlooks_no_emoticon(text: str) -> None:
    """The regular expression runs wherever it would find something."""
    assert _may_have_eyes(text) or _WITH_EYES.search(text) is None


@pytest.mark.parametrize("end", ["a", "%"])
def test_a_heart_of_very_many_digits_is_read_in_one_pass(end: str) -> None:
    """A quadratic pattern would hold the interpreter for an hour on a text of 1 MiB."""
    text = "<" + "3" * 500_000 + end

    assert name_emoji(text) == text


def test_names_of_endless_sequences_are_not_kept() -> None:
    """Callers can join emoji without end, and each text would stay in memory."""
    before = _names_of.cache_info().currsize
    joined = "\u200d".join(["👨", "👩"] * 50)

    assert name_emoji(joined).count(":man:") > 1
    assert _names_of.cache_info().currsize <= before + 2
    assert _names_of.cache_info().maxsize is not None
