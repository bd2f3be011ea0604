"""Emoji and emoticons as their English names: `😍` becomes `:smiling face with heart eyes:`.

An English word-piece vocabulary has no emoji, so the tokenizer reads each of them as the same
unknown token. It can spell their names, and a model that knows the word "smiling" also understands
emoji that it never saw in training. The names are those of Unicode's CLDR, from the `emoji`
package.

A name stands between colons, like the short codes in chats. Without the colons, "the 🔥 alarm" and
"the fire alarm" would be the same text, and "tears of joy" would read as the reviewer's own words.

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
from itertools import groupby
from typing import Final

_CACHED_CHARACTERS: Final = 32
"""The longest row of emoji whose names are kept: callers can join emoji without end."""

_MOST_ALIKE: Final = 2
"""Equal emoji kept in a row: a second one adds emphasis, a tenth one only adds tokens."""

_MOST_GAP: Final = 64
"""The widest gap, in code points, that a range above U+FFFF spans; see `_ranges`."""

_AS_TEXT: Final = frozenset("©®™")
"""Typographic signs that Unicode lists as emoji."""

_OTHER_SIGNS: Final = {"♥": "red heart", "♡": "red heart", "☻": "smiling face"}
"""Typographic signs that people use as emoji. `emoji` has no name for them, or an odd one."""

_FROM_FIRST: Final = re.compile("[\u203c-\U0010ffff]")
"""What may be an emoji: no sign before U+203C has a name. This pattern is ten times as fast."""

_KEYCAP: Final = re.compile("([0-9#*])\ufe0f?\u20e3")

_STARS: Final = "⭐🌟★"
_EMPTY_STAR: Final = "☆"
_RATING: Final = re.compile(f"(?=.)([{_STARS}]*)({_EMPTY_STAR}*)")

_DROPPED: Final = re.compile("[\ufe0e\ufe0f\U0001f3fb-\U0001f3ff]|\u200d[\u2640\u2642]")
"""Variation selectors, skin tones, and the gender of a person who does something."""

# An emoticon gets the name of the emoji with its meaning, so that the model learns both at once.
# The groups have these names. The lookarounds leave times, ratios, prices, paths, addresses, lists
# and brackets as they are. Each pattern starts with a plain set of characters, because `re`
# searches for a set at its fastest; so lookbehinds come after the first character.
_WITH_EYES: Final = re.compile(
    r"""[:;=>](?:
      (?P<angry_face>            (?<=>)(?<![\w:;=>].)     [:;=]-?\(+       (?!\w) )
    | (?P<crying_face>           (?<!>)(?<![\w:;=].)      '-?\(+           (?!\w) )
    | (?P<smiling_face_with_tear>(?<!>)(?<![\w:;=].)      '-?\)+                  )
    | (?P<winking_face>          (?<=;)(?<![\d:;=].)      -?\)+                   )
    | (?P<slightly_smiling_face> (?<=[:=])(?<![\d:;=].)   [o-]?\)+                )
    | (?P<frowning_face>         (?<=[:=])(?<![\d:;=].)   -?\(+            (?![\w()"'$]) )
    | (?P<grinning_face>         (?<!>)(?<![\w:;=/.].)    -?D+             (?!\w) )
    | (?P<face_with_tongue>      (?<=[:;])(?<![\w:;=/.].) -?[Pp]+          (?!\w) )
    | (?P<face_with_open_mouth>  (?<=:)(?<![\w:;=/.].)    -?[Oo]           (?![\w()]) )
    | (?P<confused_face>         (?<=[:=])(?<![\w:;=/\\|.].) -?[/\\]       (?![\w/\\|:.]) )
    | (?P<neutral_face>          (?<=:)(?<![\w:;=/\\|-].) -?\|             (?![\w/\\|:-]) )
    | (?P<face_blowing_a_kiss>   (?<=:)(?<![\w:;=*].)     -?\*             (?![\w*(]) )
    | (?P<persevering_face>      (?<=>)                   [_.]<                   )
    )""",
    re.VERBOSE,
)
_MOUTHS: Final = frozenset("'-()oODPp/\\|*")
_BEHIND: Final = {":": _MOUTHS, ";": _MOUTHS, "=": _MOUTHS, ">": frozenset(":;=_.")}
"""What `_WITH_EYES` allows directly after eyes and brows: mouths, noses and tears."""

_HEART: Final = re.compile(
    r"""<(?<!\w.)(?:
      (?P<broken_heart> /3   (?!\w) )
    | (?P<red_heart>    3+(?!3) (?![\w.,/-]*\w|\s*[%$"'°]|\s+(?:h(?:ou)?rs?|min(?:ute)?s?
                        |sec(?:ond)?s?|days?|weeks?|months?|y(?:ea)?rs?|stars?|times|inch(?:es)?|feet
                        |ft|miles|km|kg|g|lbs?|oz|mm|cm|dollars|people|of)\b) )
    )""",
    re.VERBOSE,
)
_RARE: Final = re.compile(
    r"""[Xx^T;oO\\¯-](?:
      (?P<grinning_squinting_face>       (?<=[Xx])(?<![\w-].)  D+
                                         (?![\w-]|\s+(?:card|picture|memory|slot)) )
    | (?P<smiling_face_with_smiling_eyes>(?<=\^)(?<!\w.)       [_.-]\^    (?!\w) )
    | (?P<expressionless_face>           (?<=-)(?<![\w-].)     _+-        (?![\w-]) )
    | (?P<loudly_crying_face>            (?<=T)(?<!\w.)        _+T        (?!\w)
                                       | (?<=;)(?<!\w.)        _+;        (?!\w) )
    | (?P<face_with_raised_eyebrow>      (?<=o)(?<!\w.)        _+O        (?!\w)
                                       | (?<=O)(?<!\w.)        _+o        (?!\w) )
    | (?P<raising_hands>                 (?<=\\)(?<!\S.)       o/         (?!\S) )
    | (?P<person_shrugging>              (?<=¯)                \\{1,3}_\(ツ\)_/¯ )
    )""",
    re.VERBOSE,
)


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
        if _FROM_FIRST.search(text):
            text = _patterns()[0].sub(_named, text)
    return text


def _may_have_eyes(text: str) -> bool:
    """Tell whether eyes stand before a mouth: without them, `_WITH_EYES` finds nothing.

    `str.find` is many times as fast as a regular expression, and most texts have no eyes or, like
    "note: this", no mouth after them.
    """
    for eyes, mouths in _BEHIND.items():
        place = text.find(eyes) if eyes in text else -1
        while place >= 0:
            if text[place + 1 : place + 2] in mouths:
                return True
            place = text.find(eyes, place + 1)
    return False


def _meant(match: re.Match[str]) -> str:
    """Return the name of the emoticon that *match* found, or the text itself if it is none."""
    text, start = match.string, match.start()
    kind = match.lastgroup or ""
    # The bracket in "(sizes:)" closes another bracket. After a blank, as in "(just kidding :)", it
    # is a smile.
    smiles = kind in ("slightly_smiling_face", "winking_face") and "-" not in match[0]
    if smiles and text[start - 1 : start].strip():
        before = text[max(0, start - 200) : start]
        if before.count("(") > before.count(")"):
            return match[0]
    return _set_off(match, f":{kind.replace('_', ' ')}:")


def _named(match: re.Match[str]) -> str:
    """Return the names of the emoji in a row that *match* found."""
    row = match[0]
    names = _names_of if len(row) <= _CACHED_CHARACTERS else _names_of.__wrapped__
    return _set_off(match, names(row))


@lru_cache(maxsize=4096)
def _names_of(row: str) -> str:
    """Return the names of the emoji in a *row*, each between colons."""
    kept: list[str] = []
    found = _patterns()[1].findall(row)
    for stars, signs in groupby(found, lambda sign: sign[0] in _STARS + _EMPTY_STAR):
        if stars:
            ratings = _RATING.findall("".join(sign[0] for sign in signs))
            kept += [_rating(len(full), len(empty)) for full, empty in ratings]
        else:
            for sign, alike in groupby(signs):
                kept += [_name(sign)] * min(len(list(alike)), _MOST_ALIKE)
    return " ".join(kept)


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
        if len(bare) == 1 and "\U0001f1e6" <= bare <= "\U0001f1ff":
            continue  # half of a flag, which has no meaning by itself
        names[bare] = _spelt(bare, str(entry["en"]))
    for sign, name in _OTHER_SIGNS.items():
        names[sign] = f":{name}:"
    return names


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
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Return the patterns of emoji in a row, with blanks between them or not, and of one of them.

    After UTS #51, section 1.4.9.
    """
    half_flag = "\U0001f1e6-\U0001f1ff"
    signs = {bare[0] for bare in _names()} | {*_STARS, _EMPTY_STAR}
    first = _ranges(sign for sign in signs if not sign.isascii())
    style = "[\ufe0e\ufe0f\U0001f3fb-\U0001f3ff]*"
    joined = f"{style}[\U000e0020-\U000e007f]*(?:\u200d[{first}\u2640\u2642]{style})*"
    # It starts with a plain set of characters, because `re` searches for a set at its fastest.
    one = f"[{first}{half_flag}](?:(?<=[{half_flag}])[{half_flag}]|(?<![{half_flag}]){joined})"
    return re.compile(f"{one}(?: *{one})*"), re.compile(one)


def _ranges(signs: Iterable[str]) -> str:
    """Return the inside of a regular expression's set with *signs*, in few ranges above U+FFFF.

    `re` finds a character up to U+FFFF in one step, and compares higher ones range by range. So a
    range above U+FFFF spans small gaps: the characters in them are not text and have no name.
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
