"""`sentimill classify`: texts from the command line or from stdin, one answer per line."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Final

import typer

from sentimill.classifier import Classifier
from sentimill.cli import options as opt
from sentimill.cli.server_access import ServerAccess
from sentimill.cli.terminal import one_line, say
from sentimill.errors import SentimillError, SomeRowsFailed, UsageError
from sentimill.types import Prediction

_CHUNK: Final = 1024
"""How many texts are classified before their answers are written."""

_COLOURS: Final = {"negative": "red", "neutral": "yellow", "positive": "green"}

_Answers = Sequence[Prediction | SentimillError]


@opt.with_groups
def classify(
    context: typer.Context,
    texts: Annotated[
        list[str] | None,
        opt.InputArgument(
            metavar="[TEXT]...",
            help="Texts to classify; none, or -, reads the lines of stdin.",
        ),
    ] = None,
    *,
    as_json: Annotated[bool, opt.Output("--json", help="Write one JSON object per line.")] = False,
    explain: Annotated[
        bool, opt.Output(help="Classify each sentence too; coloured, or JSON.")
    ] = False,
    bundle: opt.BundleOption = None,
    server: opt.ServerOption = None,
    engine: opt.EngineOption = "auto",
    model: opt.ModelOptions,
    evidence: opt.NeighbourOptions,
    access: ServerAccess,
) -> None:
    """Classify texts: label, score, confidence and text, one line each.

    The score is P(positive) - P(negative), from -1 to 1.
    """
    bundle, server = opt.one_model(context, bundle, server)
    for name in filter(_is_file, texts or ()):
        say(
            f"{name} is a file, and `classify` answers for its name alone: a table is read by"
            f" `sentimill score {shlex.quote(name)} OUTPUT`"
        )
    if texts == ["-"]:
        texts = None
    if not texts and sys.stdin.isatty():
        why = "no text given: write it after the command, or pipe lines into it"
        raise UsageError(why, reason="NO_TEXT")
    neighbours = evidence.count(server)
    security = access.security(server)
    answer: Callable[[list[str]], _Answers]
    with ExitStack() as stack:
        if server is not None:
            from sentimill.client.client import Client

            client = stack.enter_context(Client(server, security=security))
            answer = partial(client.classify, explain=explain, neighbours=neighbours)
        else:
            classifier = Classifier.load(
                bundle,
                precision=model.precision,
                engine=engine,
                provider=model.provider,
                threads=model.threads,
                detect_language=not model.no_detect_language,
                index=evidence.index,
            )
            answer = partial(classifier.classify, explain=explain, neighbours=neighbours)
        on_terminal = sys.stdout.isatty() and not as_json
        show = (
            Table() if on_terminal else _as_json if as_json or explain or neighbours else _as_tabs
        )
        failed = asked = 0
        for chunk in _chunks(texts or _stdin_lines()):
            # A lone surrogate cannot be written; its answer is an error that says so.
            shown = [text.encode("utf-8", "replace").decode("utf-8") for text in chunk]
            answers = answer(chunk)
            show(shown, answers)
            asked += len(answers)
            failed += sum(isinstance(each, SentimillError) for each in answers)
    if failed:
        why = f"no answer for {failed} of {asked} texts"
        raise SomeRowsFailed(why, reason="SOME_ROWS_FAILED")


def _as_json(texts: Sequence[str], answers: _Answers) -> None:
    for text, answer in zip(texts, answers, strict=True):
        if isinstance(answer, Prediction):
            found = asdict(answer)
            # Both are the same for every line: only a program can have a fallback.
            del found["answered_by"], found["model_digest"]
            if answer.probs.labels:
                found["probs"] = dict(answer.probs)
            for made, one in zip(found["sentences"], answer.sentences, strict=True):
                made["probs"] = dict(one.probs)
            # Leave out evidence that nobody asked for.
            found = {name: value for name, value in found.items() if value != ()}
        else:
            found = {"error": answer.reason, "message": str(answer)}
        typer.echo(json.dumps({"text": text, **found}, ensure_ascii=False))


def _as_tabs(texts: Sequence[str], answers: _Answers) -> None:
    for text, answer in zip(texts, answers, strict=True):
        typer.echo("\t".join([*_fields(answer), one_line(text)]))


class Table:
    """Aligned columns under a header, for a person; `?` marks an answer below the threshold."""

    def __init__(self) -> None:
        self._width = 0

    def __call__(self, texts: Sequence[str], answers: _Answers) -> None:
        """Write the lines of some answers, and explain the `?` if one occurs."""
        for line in self.lines(texts, answers):
            typer.echo(line)
        if any(isinstance(each, Prediction) and each.abstained for each in answers):
            say("? marks a guess: low confidence, or a text that is not in the model's language")

    def lines(self, texts: Sequence[str], answers: _Answers) -> Iterator[str]:
        """Yield a line for each answer; the first call sets the widths, and yields a header."""
        if not self._width:
            labels = [each.label for each in answers if isinstance(each, Prediction)]
            self._width = max(map(len, ["label", *labels])) + 1
            yield f"{'label':<{self._width}}  score  confidence  text"
        for text, answer in zip(texts, answers, strict=True):
            label, *figures = _fields(answer)
            if isinstance(answer, Prediction):
                label += "?" * answer.abstained
                shown = f"{figures[0]:>5}  {figures[1]:>10}"
            else:
                shown = f"{answer.reason:<17}"
            yield f"{label:<{self._width}}  {shown}  {one_line(text)}"
            if isinstance(answer, Prediction):
                yield from _evidence(text, answer)


def _evidence(text: str, answer: Prediction) -> Iterator[str]:
    """Yield a line for each sentence and neighbour, in the colour of its label, with its weight."""
    rows = [
        ("" if one.change is None else f"{one.change:+.2f}", one.label, text[one.start : one.end])
        for one in answer.sentences
    ]
    rows += [(f"={n.similarity:.2f}", n.label, f"{n.id} {n.text}") for n in answer.neighbours]
    for figure, label, said in rows:
        colour = _COLOURS.get(label, "cyan")
        yield typer.style(f"    {figure:>5}  {label:<10}  {one_line(said)}", fg=colour)


def _fields(answer: Prediction | SentimillError) -> list[str]:
    if isinstance(answer, SentimillError):
        return ["error", answer.reason, ""]
    score = "" if answer.score is None else f"{answer.score:+.2f}"
    return [answer.label, score, f"{answer.confidence:.2f}"]


def _is_file(text: str) -> bool:
    """Say whether *text* is the path of a file; a long text or one with a NUL is none."""
    try:
        return Path(text).is_file()
    except (OSError, ValueError):
        return False


def _stdin_lines() -> Iterator[str]:
    """Yield the lines of stdin; bytes that are not UTF-8 become lone surrogates and so an error."""
    for line in sys.stdin.buffer:
        yield line.rstrip(b"\r\n").decode("utf-8", "surrogateescape")


def _chunks(lines: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(lines)
    while chunk := list(islice(rest, _CHUNK)):
        yield chunk
