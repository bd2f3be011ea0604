"""Emoji and emoticons as their English names: `😍` becomes `:smiling face with heart eyes:`.

An English word-piece vocabulary has no emoji, so the tokenizer reads each of them as the same
unknown token. It can spell their names, and a model that knows the word "smiling" also understands
emoji that it never saw in training. The names are those of Unicode's CLDR, from the `emoji`
package.

A name stands between colons, like the short codes in chats. Without the colons, "the 🔥 alarm" and
"the fire alarm" would be the same text, and "tears of joy" would read as the reviewer's own words.
Brackets would do as well, but a text with a bracket needs the slow tokenizer.

Details that do not change the meaning are dropped, so that the model learns each meaning once: skin
tones, the gender of a shrug, variation selectors, and the third and later of equal emoji in a row.
A row of stars is a rating, so the stars are counted. A text without emoji and emoticons is returned
as it is, the same object.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import cache, lru_cache
from typing import Final

_CACHED_CHARACTERS: Final = 32
"""The longest sequence whose name is kept: callers can join emoji without end."""

_MOST_ALIKE: Final = 2
"""Equal emoji kept in a row: a second one adds emphasis, a tenth one only adds tokens."""

_MOST_GAP: Final = 64
"""The widest gap, in code points, that a range above U+FFFF spans; see `_ranges`."""

_AS_TEXT: Final = frozenset("©®™")
"""Typographic signs that Unicode lists as emoji."""

_OTHER_SIGNS: Final = {"♥": "red heart", "♡": "red heart", "☻": "smiling face"}
"""Typographic signs that people use as emoji. `emoji` has no name for them, or an odd one."""

_KEYCAP: Final = re.compile("([0-9#*])\ufe0f?\u20e3")

_STARS: Final = "⭐🌟★"
_EMPTY_STAR: Final = "☆"

_DROPPED: Final = re.compile("[\ufe0e\ufe0f\U0001f3fb-\U0001f3ff]|\u200d[\u2640\u2642]")
"""Variation selectors, skin tones, and the gender of a person who does something."""

# An emoticon gets the name of the emoji with its meaning: the model learns both at once. The
# lookarounds leave times, ratios, prices, paths, addresses, lists and brackets as they are. Each
# pattern starts with a plain set of characters, because `re` searches for a set at its fastest; so
# a lookbehind stands after the first character and not before it.
_WITH_EYES: Final = re.compile(
    r"""[:;=>](?:
      (?P<angry> (?<=>)(?<![\w:;=>].)     [:;=]-?\(+       (?!\w) )
    | (?P<cry>   (?<!>)(?<![\w:;=].)      '-?\(+           (?!\w) )
    | (?P<moved> (?<!>)(?<![\w:;=].)      '-?\)+                  )
    | (?P<wink>  (?<=;)(?<![\d:;=].)      -?\)+                   )
    | (?P<smile> (?<=[:=])(?<![\d:;=].)   [o-]?\)+                )
    | (?P<frown> (?<=[:=])(?<![\d:;=].)   -?\(+            (?![\w()"'$]) )
    | (?P<grin>  (?<!>)(?<![\w:;=/.].)    -?D+             (?!\w) )
    | (?P<tongue>(?<=[:;])(?<![\w:;=/.].) -?[Pp]+          (?!\w) )
    | (?P<awe>   (?<=:)(?<![\w:;=/.].)    -?[Oo]           (?![\w()]) )
    | (?P<unsure>(?<=[:=])(?<![\w:;=/\\|.].) -?[/\\]       (?![\w/\\|:.]) )
    | (?P<blank> (?<=:)(?<![\w:;=/\\|-].) -?\|             (?![\w/\\|:-]) )
    | (?P<kiss>  (?<=:)(?<![\w:;=*].)     -?\*             (?![\w*(]) )
    | (?P<strain>(?<=>)                   [_.]<                   )
    )""",
    re.VERBOSE,
)
_MOUTHS: Final = frozenset("'-()oODPp/\\|*")
"""What `_WITH_EYES` allows directly behind the eyes `:`, `;` and `=`: mouths, noses and tears."""

_BEHIND_BROWS: Final = frozenset(":;=_.")
"""What it allows directly behind `>`."""

_HEART: Final = re.compile(
    r"""<(?<!\w.)(?:
      (?P<broken> /3   (?!\w) )
    | (?P<heart>  3+(?!3) (?![\w.,/-]*\w|\s*[%$"'°]|\s+(?:h(?:ou)?rs?|min(?:ute)?s?|sec(?:ond)?s?
                  |days?|weeks?|months?|y(?:ea)?rs?|stars?|times|inch(?:es)?|feet|ft|miles|km|kg|g|lbs?
                  |oz|mm|cm|dollars|people|of)\b) )
    )""",
    re.VERBOSE,
)
_RARE: Final = re.compile(
    r"""[Xx^T;oO\\¯-](?:
      (?P<laugh> (?<=[Xx])(?<![\w-].)  D+         (?![\w-]|\s+(?:card|picture|memory|slot)) )
    | (?P<glad>  (?<=\^)(?<!\w.)       [_.-]\^    (?!\w) )
    | (?P<flat>  (?<=-)(?<![\w-].)     _+-        (?![\w-]) )
    | (?P<sob>   (?<=T)(?<!\w.)        _+T        (?!\w) )
    | (?P<weep>  (?<=;)(?<!\w.)        _+;        (?!\w) )
    | (?P<doubt> (?<=o)(?<!\w.)        _+O        (?!\w) )
    | (?P<what>  (?<=O)(?<!\w.)        _+o        (?!\w) )
    | (?P<cheer> (?<=\\)(?<!\S.)       o/         (?!\S) )
    | (?P<shrug> (?<=¯)                \\{1,3}_\(ツ\)_/¯ )
    )""",
    re.VERBOSE,
)

_MEANT: Final = {
    "cry": "crying face",
    "moved": "smiling face with tear",
    "angry": "angry face",
    "smile": "slightly smiling face",
    "wink": "winking face",
    "frown": "frowning face",
    "grin": "grinning face",
    "tongue": "face with tongue",
    "awe": "face with open mouth",
    "unsure": "confused face",
    "blank": "neutral face",
    "kiss": "face blowing a kiss",
    "broken": "broken heart",
    "heart": "red heart",
    "laugh": "grinning squinting face",
    "glad": "smiling face with smiling eyes",
    "flat": "expressionless face",
    "sob": "loudly crying face",
    "strain": "persevering face",
    "weep": "loudly crying face",
    "doubt": "face with raised eyebrow",
    "what": "face with raised eyebrow",
    "cheer": "raising hands",
    "shrug": "person shrugging",
}


def name_emoji(text: str) -> str:
    """Return *text* with emoji and emoticons as their names between colons, separated by blanks.

    A keycap becomes its digit. A row of stars becomes `:5 stars:`, or `:2 of 5 stars:` where empty
    stars follow. An emoji that the `emoji` package does not know stays as it is.
    """
    # Eyes come first, since the colon of a name before a bracket would be taken for eyes.
    if _may_have_eyes(text):
        text = _WITH_EYES.sub(_meant, text)
    if "<" in text:
        text = _HEART.sub(_meant, text)
    if "_" in text or "^" in text or "XD" in text or "xD" in text or "\\" in text:
        text = _RARE.sub(_meant, text)
    if not text.isascii():
        if "\u20e3" in text:
            text = _KEYCAP.sub(r"\1", text)
        text = _emoji().sub(_named, text)
    return text


def _may_have_eyes(text: str) -> bool:
    """Tell whether eyes stand before a mouth: without them, `_WITH_EYES` finds nothing.

    `str.find` is many times as fast as a regular expression, and most texts have no eyes or, like
    "note: this", no mouth behind them.
    """
    return (
        (":" in text and _stands_before(text, ":", _MOUTHS))
        or (";" in text and _stands_before(text, ";", _MOUTHS))
        or ("=" in text and _stands_before(text, "=", _MOUTHS))
        or (">" in text and _stands_before(text, ">", _BEHIND_BROWS))
    )


def _stands_before(text: str, eyes: str, behind: frozenset[str]) -> bool:
    """Tell whether *eyes* stand directly before one of *behind* anywhere in *text*."""
    place = text.find(eyes)
    while place >= 0:
        if text[place + 1 : place + 2] in behind:
            return True
        place = text.find(eyes, place + 1)
    return False


def _meant(match: re.Match[str]) -> str:
    """Return the name of the emoticon that *match* found, or the text itself if it is none."""
    text, start = match.string, match.start()
    kind = match.lastgroup or ""
    # The bracket in "(sizes:)" closes another bracket. After a blank, as in "(just kidding :)", it
    # is a smile.
    if kind in ("smile", "wink") and "-" not in match[0] and text[start - 1 : start].strip():
        before = text[max(0, start - 200) : start]
        if before.count("(") > before.count(")"):
            return match[0]
    return _set_off(match, f":{_MEANT[kind]}:")


def _named(match: re.Match[str]) -> str:
    """Return the names of the emoji in a row that *match* found."""
    row = _one_emoji().findall(match[0])
    kept: list[str] = []
    i = 0
    while i < len(row):
        if row[i][0] in _STARS or row[i][0] == _EMPTY_STAR:
            full = _count(row, i, _STARS)
            empty = _count(row, i + full, _EMPTY_STAR)
            kept.append(_rating(full, empty))
            i += full + empty
            continue
        alike = 1
        while i + alike < len(row) and row[i + alike] == row[i]:
            alike += 1
        kept += [_name(row[i])] * min(alike, _MOST_ALIKE)
        i += alike
    return _set_off(match, " ".join(kept))


def _count(row: list[str], start: int, signs: str) -> int:
    """Return how many of *row* from *start* on are one of *signs*."""
    end = start
    while end < len(row) and row[end][0] in signs:
        end += 1
    return end - start


def _rating(full: int, empty: int) -> str:
    if empty:
        return f":{full} of {full + empty} stars:"
    return ":star:" if full == 1 else f":{full} stars:"


def _set_off(match: re.Match[str], name: str) -> str:
    """Return *name* with a blank on each side where *match* touches a word."""
    text = match.string
    before = text[match.start() - 1 : match.start()] if match.start() else ""
    after = text[match.end() : match.end() + 1]
    left = "" if not before or before.isspace() else " "
    right = " " if after.isalnum() else ""
    return f"{left}{name}{right}"


def _name(sequence: str) -> str:
    """Return the name of one emoji, between colons."""
    if len(sequence) > _CACHED_CHARACTERS:
        return _find_name(sequence)
    return _kept_name(sequence)


@lru_cache(maxsize=4096)
def _kept_name(sequence: str) -> str:
    return _find_name(sequence)


def _find_name(sequence: str) -> str:
    bare = _DROPPED.sub("", sequence)
    names = _names()
    if bare in names:
        return names[bare]
    # This version of the package does not know the sequence, so its parts are named.
    parts = [names[part] for part in bare.split("\u200d") if part in names]
    return " ".join(parts) if parts else sequence


@cache
def _names() -> dict[str, str]:
    """Return the name of each emoji; the keys are emoji without the details that are dropped."""
    from emoji import EMOJI_DATA  # its table takes 60 ms to load, and most programs never need it

    names: dict[str, str] = {}
    # The plain form comes first: without the gender, a woman shrugging is a person shrugging.
    for sequence, entry in sorted(EMOJI_DATA.items(), key=lambda item: len(item[0])):
        bare = _DROPPED.sub("", sequence)
        if not bare or bare in names or bare in _AS_TEXT or bare.isascii():
            continue
        names[bare] = _spelt(bare, str(entry["en"]))
    for sign, name in _OTHER_SIGNS.items():
        names[sign] = f":{name}:"
    # A lone half of a flag has no meaning.
    for sign in [bare for bare in names if _is_half_flag(bare)]:
        del names[sign]
    return names


def _is_half_flag(bare: str) -> bool:
    return len(bare) == 1 and "\U0001f1e6" <= bare <= "\U0001f1ff"


def _spelt(bare: str, shortcode: str) -> str:
    """Return the *shortcode* of the emoji *bare* in ASCII words: `:piñata:` is `:pinata:`."""
    name = re.sub(r"[_-]+|_?\(.*\)", " ", shortcode.strip(":")).replace("\u2019", "'")
    name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    name = " ".join(name.split())
    if name.startswith("keycap "):
        return name.removeprefix("keycap ")
    flag = "\U0001f1e6" <= bare[0] <= "\U0001f1ff" or bare[1:2] == "\U000e0067"
    return f":flag {name}:" if flag else f":{name}:"


@cache
def _pattern() -> str:
    """Return the regular expression of one emoji, after UTS #51, section 1.4.9."""
    half_flag = "\U0001f1e6-\U0001f1ff"
    signs = {bare[0] for bare in _names()} | {*_STARS, _EMPTY_STAR}
    first = _ranges(sign for sign in signs if not sign.isascii())
    style = "[\ufe0e\ufe0f\U0001f3fb-\U0001f3ff]*"
    joined = f"{style}[\U000e0020-\U000e007f]*(?:\u200d[{first}\u2640\u2642]{style})*"
    # It starts with a plain set of characters, because `re` searches for a set at its fastest.
    return f"[{first}{half_flag}](?:(?<=[{half_flag}])[{half_flag}]|(?<![{half_flag}]){joined})"


def _ranges(signs: Iterable[str]) -> str:
    """Return the inside of a regular expression's set with *signs*, in few ranges above U+FFFF.

    `re` finds a character up to U+FFFF in one step, and compares higher ones range by range. So a
    range above U+FFFF spans small gaps: the characters in them are no text and have no name.
    """
    codes = sorted(map(ord, signs))
    ranges: list[tuple[int, int]] = []
    for code in codes:
        gap = 0 if code <= 0xFFFF else _MOST_GAP
        if ranges and code - ranges[-1][1] <= gap + 1:
            ranges[-1] = (ranges[-1][0], code)
        else:
            ranges.append((code, code))
    return "".join(f"{chr(low)}-{chr(high)}" for low, high in ranges)


@cache
def _one_emoji() -> re.Pattern[str]:
    return re.compile(_pattern())


@cache
def _emoji() -> re.Pattern[str]:
    """Return the pattern of emoji in a row, with blanks between them or not."""
    return re.compile(f"{_pattern()}(?: *{_pattern()})*")
