"""The prompt: a versioned file, with letters for the classes, and fences around the review.

A review is data, not an instruction. It is enclosed in fences whose mark its writer cannot know.
The classes are letters whose meaning changes from text to text, and the answer must fit a schema.
So the writer of a review cannot know what "answer B" means.
"""

from __future__ import annotations

import functools
import hashlib
import json
import string
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from sentimill.errors import UsageError
from sentimill_train.data.schema import SENTIMENTS
from sentimill_train.labelling.requests.messages import Key, Mode, Question

_PROMPTS: Final = Path(__file__).parents[1] / "resources" / "prompts"
SENTIMENT: Final = _PROMPTS / "v1.toml"
"""The question about what the writer felt."""
CLASSES: Final = _PROMPTS / "classes-v1.toml"
"""The question for any other set of labels."""

_ANSWER_TOKENS: Final = 24
_TOKENS_A_CLASS: Final = 12  # `"A": 97, ` takes fewer


class _Ask(msgspec.Struct, forbid_unknown_fields=True):
    label: str
    shares: str


class _File(msgspec.Struct, forbid_unknown_fields=True, rename={"classes": "class"}):
    version: str
    system: str
    classes: str
    user: str
    shot: str
    ask: _Ask
    meanings: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class Shot:
    """A labelled row that the prompt shows as an example."""

    text: str
    label: str


@dataclass(frozen=True)  # no slots, because `version` is cached
class Prompt:
    """A prompt file with its label set, the mode in which shares are read, and the examples."""

    file: _File
    digest: str
    labels: tuple[str, ...]
    mode: Mode
    shots: tuple[Shot, ...] = ()
    meanings: tuple[tuple[str, str], ...] = ()

    @functools.cached_property
    def version(self) -> str:
        """The version of the file, and a digest of everything that changes a question."""
        shaped = [
            self.digest,
            list(self.labels),
            self.mode,
            [[shot.text, shot.label] for shot in self.shots],
            *([list(self.meanings)] if self.meanings else []),
        ]
        return f"{self.file.version}-{self.mode}-{_sha256(json.dumps(shaped))[:12]}"

    def key(self, teacher: str, text: str, vote: int = 0) -> Key:
        """Return the key under which answers about *text* are stored."""
        return Key(teacher, self.version, text_key(text), vote)

    def question(self, teacher: str, text: str, vote: int = 0, widen: int = 1) -> Question:
        """Return the question about *text*, which is already shortened and redacted.

        The same arguments give the same question. *widen* multiplies the token limit of the answer,
        after an answer was cut off.
        """
        key = self.key(teacher, text, vote)
        aliases = self._aliases(key)
        by_alias = sorted(zip(aliases, self.labels, strict=True))
        classes = "\n".join(
            self.file.classes.format(alias=alias, label=label, meaning=self._meaning(label))
            for alias, label in by_alias
        )
        user = self.file.user.format(
            classes=classes,
            shots="".join(self._shot(shot, aliases) for shot in self.shots).strip(),
            fence=_sha256(f"fence {self.version} {key.text} {vote}")[:16],
            text=text,
            ask=self._ask(sorted(aliases)).strip(),
        )
        return Question(
            key=key,
            system=self.file.system.strip(),
            user=user.strip(),
            aliases=aliases,
            schema=_schema(sorted(aliases), self.mode),
            usual_tokens=_ANSWER_TOKENS + _TOKENS_A_CLASS * len(self.labels),
            widen=widen,
            mode=self.mode,
        )

    def _aliases(self, key: Key) -> tuple[str, ...]:
        """Return a letter for each label; a hash of the text and the prompt decides which."""
        order = sorted(
            self.labels, key=lambda label: _sha256(f"{key.prompt} {key.text} {key.vote} {label}")
        )
        letters = dict(zip(order, string.ascii_uppercase, strict=False))
        return tuple(letters[label] for label in self.labels)

    def _meaning(self, label: str) -> str:
        meaning = dict(self.meanings).get(label) or self.file.meanings.get(label)
        return f": {meaning}" if meaning else ""

    def _ask(self, letters: Sequence[str]) -> str:
        if self.mode != "stated":
            return self.file.ask.label.format()
        example = ", ".join(f'"{letter}": <number>' for letter in letters)
        return self.file.ask.shares.format(example="{" + example + "}")

    def _shot(self, shot: Shot, aliases: tuple[str, ...]) -> str:
        right = aliases[self.labels.index(shot.label)]
        if self.mode != "stated":
            answer = json.dumps({"label": right})
        else:
            rest = 6 // max(1, len(aliases) - 1)
            shares = {letter: rest for letter in sorted(aliases)}
            shares[right] = 100 - rest * (len(aliases) - 1)
            answer = json.dumps(shares)
        return self.file.shot.format(text=shot.text, answer=answer)


def prompt_for(labels: Sequence[str]) -> Path:
    """Return the prompt file that comes with the package for a label set."""
    return SENTIMENT if set(labels) <= set(SENTIMENTS) else CLASSES


def load_meanings(path: Path, labels: Sequence[str]) -> dict[str, str]:
    """Read what the *labels* mean from a TOML file with a line `label = "meaning"` for each.

    Raises UsageError BAD_LABEL_HELP if it is not such a file, or names another label.
    """
    try:
        found = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), dict[str, str])
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{path} does not say what the labels mean ({error}): write one line"
            ' label = "meaning" for each label, with quotes around a label of several words',
            reason="BAD_LABEL_HELP",
        ) from error
    if unknown := sorted(found.keys() - set(labels)):
        raise UsageError(
            f"{path} explains {unknown[0]!r}, which is not one of {', '.join(labels)}: correct it,"
            " or give the set with --labels",
            reason="BAD_LABEL_HELP",
        )
    return found


def load_prompt(
    path: Path,
    labels: Sequence[str],
    mode: Mode,
    shots: Sequence[Shot] = (),
    meanings: Mapping[str, str] | None = None,
) -> Prompt:
    """Read a prompt file. Raises UsageError BAD_PROMPT, or BAD_LABELS for too few or many labels.

    meanings: what labels mean; they override those of the file.
    """
    if not 2 <= len(labels) <= len(string.ascii_uppercase):
        raise UsageError(
            f"{len(labels)} labels were given: use 2 to {len(string.ascii_uppercase)}",
            reason="BAD_LABELS",
        )
    try:
        data = path.read_bytes()
        file = msgspec.convert(tomllib.loads(data.decode()), _File)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{path} is not a prompt file ({error}): copy {SENTIMENT} and change the copy",
            reason="BAD_PROMPT",
        ) from error
    digest = hashlib.sha256(data).hexdigest()
    given = tuple(sorted((meanings or {}).items()))
    return Prompt(file, digest, tuple(labels), mode, tuple(shots), given)


def shorten(text: str, words: int) -> str:
    """Return at most *words* words of *text*: a quarter from its start, the others from its end."""
    parts = text.split(" ")
    if len(parts) <= words:
        return text
    head = max(1, words // 4)
    return " ".join([*parts[:head], "[…]", *parts[len(parts) - (words - head) :]])


def text_key(text: str) -> str:
    """Return the hash under which answers about *text* are stored; it does not reveal the text."""
    return _sha256(text)


def _schema(letters: Sequence[str], mode: Mode) -> dict[str, object]:
    properties: dict[str, object] = {"label": {"type": "string", "enum": list(letters)}}
    if mode == "stated":
        properties = {letter: {"type": "integer"} for letter in letters}
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
