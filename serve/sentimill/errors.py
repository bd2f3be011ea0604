"""Every error that Sentimill raises on purpose, and what each becomes at the edges.

::

    SentimillError
    ├── UsageError            the caller asked for something that cannot be
    ├── InputError            the data that the caller gave is not usable
    │   ├── TextError         one text; its neighbours still get their answers
    │   ├── TableError        a file, or one place in it
    │   └── MissingError      a model that is not here
    ├── BundleError           a model folder that does not verify
    ├── EngineError           the inference engine is missing or failed
    ├── UnavailableError      full, draining or not started yet: try again later
    ├── DeadlineError         the caller's deadline passed before the work was done
    ├── AuthError             the caller did not show who it is
    ├── QuotaError            this caller's own share is used up
    └── SomeRowsFailed        a job finished, and some of its rows carry an error

Code raises; one table here says which gRPC code and which exit code each one is. This module
imports nothing, so that every room may import it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = [
    "OUTCOMES",
    "AuthError",
    "BundleError",
    "DeadlineError",
    "EngineError",
    "InputError",
    "MissingError",
    "Outcome",
    "QuotaError",
    "SentimillError",
    "SomeRowsFailed",
    "TableError",
    "TextError",
    "UnavailableError",
    "UsageError",
    "outcome",
]


class SentimillError(Exception):
    """The root. `reason` is stable and for programs; the message is for people and may change.

    A reason is UPPER_SNAKE_CASE, and travels as `google.rpc.ErrorInfo.reason` and in the
    `sentiment_error` column.
    """

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class UsageError(SentimillError):
    """The caller asked for something that cannot be: a bad option, a busy port, a missing extra."""


class InputError(SentimillError):
    """The data that the caller gave cannot be used.

    `field` is the path of the culprit in the caller's message, such as ``items``; it travels as
    `google.rpc.BadRequest`. None where there is no message, or no path.
    """

    def __init__(self, message: str, *, reason: str, field: str | None = None) -> None:
        super().__init__(message, reason=reason)
        self.field = field


class TextError(InputError):
    """One text cannot be classified. It is an answer for that text, never a failure of the call."""


class TableError(InputError):
    """A file cannot be read, or a place in it; the message names file, row and remedy."""


class MissingError(InputError):
    """The caller named a model that this server does not have."""


class BundleError(SentimillError):
    """A model folder does not verify, or does not fit this version of the program."""


class EngineError(SentimillError):
    """The inference engine is missing, is not the one that was asked for, or failed on a batch."""


class UnavailableError(SentimillError):
    """The server is full, draining, still starting, or stopped meanwhile. Safe to try again."""


class DeadlineError(SentimillError):
    """The caller's deadline passed, or would pass, before the work could be done."""


class AuthError(SentimillError):
    """The caller did not show who it is, or is not known."""


class QuotaError(SentimillError):
    """This caller's own share is used up; others are still served."""


class SomeRowsFailed(SentimillError):
    """A job ran to its end, and some rows carry an error in place of an answer."""


class Outcome(NamedTuple):
    """What an error is at the two edges.

    `grpc` is the name of a gRPC status code and `code` its number (google/rpc/code.proto); `exit`
    is the exit code of a command.
    """

    grpc: str
    code: int
    exit: int


OUTCOMES: Final[dict[type[SentimillError], Outcome]] = {
    SentimillError: Outcome("INTERNAL", 13, 1),
    UsageError: Outcome("INVALID_ARGUMENT", 3, 2),
    InputError: Outcome("INVALID_ARGUMENT", 3, 4),
    MissingError: Outcome("NOT_FOUND", 5, 4),
    BundleError: Outcome("FAILED_PRECONDITION", 9, 4),
    EngineError: Outcome("INTERNAL", 13, 1),
    UnavailableError: Outcome("UNAVAILABLE", 14, 1),
    DeadlineError: Outcome("DEADLINE_EXCEEDED", 4, 1),
    AuthError: Outcome("UNAUTHENTICATED", 16, 2),
    QuotaError: Outcome("RESOURCE_EXHAUSTED", 8, 1),
    SomeRowsFailed: Outcome("OK", 0, 3),
}


def outcome(error: BaseException) -> Outcome:
    """Return the row of `OUTCOMES` for the nearest class; what is not ours is INTERNAL, exit 1."""
    for kind in type(error).__mro__:
        if kind in OUTCOMES:
            return OUTCOMES[kind]
    return OUTCOMES[SentimillError]
