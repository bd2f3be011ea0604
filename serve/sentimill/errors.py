"""Every error that Sentimill raises on purpose, with its gRPC code and its exit code.

::

    SentimillError
    ├── UsageError            the caller asked for something impossible
    ├── InputError            the data that the caller gave is not usable
    │   ├── TextError         one text is not usable; the other texts get their answers
    │   ├── TableError        a file, or one place in it, is not usable
    │   └── MissingError      the server does not have the model that was named
    ├── BundleError           a model folder does not verify
    ├── EngineError           the inference engine is missing or failed
    ├── UnavailableError      the server is full, stopping or not started yet: try again later
    ├── DeadlineError         the caller's deadline passed before the work was done
    ├── AuthError             the caller sent no valid credentials
    ├── QuotaError            this caller's own quota is used up
    └── SomeRowsFailed        a job finished, and some of its rows have an error

Code raises these errors, and the table `OUTCOMES` says which gRPC code and which exit code each of
them becomes. This module imports no other one of Sentimill, so that each of them may import it.
Every error survives pickle and copy, so it can be passed between processes.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class SentimillError(Exception):
    """The root. `reason` is stable and for programs; the message is for people and may change.

    A reason is UPPER_SNAKE_CASE. gRPC calls return it as `google.rpc.ErrorInfo.reason`, and scored
    files have it in the column `sentiment_error`.
    """

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[object, ...]:
        # `BaseException.__reduce__` calls the class with the message alone, which fails. In the
        # result of a worker process, that failure would hang the process that waits for it.
        return _restore, (type(self), self.args, self.__dict__)


def _restore(
    kind: type[SentimillError], args: tuple[object, ...], attributes: dict[str, object]
) -> SentimillError:
    """Return an error as it was pickled, without calling its constructor."""
    error = kind.__new__(kind, *args)
    error.__dict__.update(attributes)
    return error


class UsageError(SentimillError):
    """The caller asked for something impossible: a bad option, a busy port, a missing package."""


class InputError(SentimillError):
    """The data that the caller gave cannot be used.

    `field` is the path of the bad value in the caller's message, such as ``items``. A gRPC call
    returns it as `google.rpc.BadRequest`. It is None where there is no message or no path.
    """

    def __init__(self, message: str, *, reason: str, field: str | None = None) -> None:
        super().__init__(message, reason=reason)
        self.field = field


class TextError(InputError):
    """One text cannot be classified. It is the answer for that text; the call does not fail.

    `position` is the place of the text in the list that the caller gave, counted from 0. It is None
    where there is no list.
    """

    def __init__(
        self, message: str, *, reason: str, field: str | None = None, position: int | None = None
    ) -> None:
        super().__init__(message, reason=reason, field=field)
        self.position = position


class TableError(InputError):
    """A file or a part of it cannot be read; the message names file, row and remedy."""


class MissingError(InputError):
    """The caller named a model that this server does not have."""


class BundleError(SentimillError):
    """A model folder does not verify, or does not fit this version of the program."""


class EngineError(SentimillError):
    """The inference engine is missing, is another one than was asked for, or failed on a batch."""


class UnavailableError(SentimillError):
    """The server is full, stopping, or still starting. It is safe to try again."""


class DeadlineError(SentimillError):
    """The caller's deadline passed, or would pass, before the work could be done."""


class AuthError(SentimillError):
    """The caller sent no credentials, or credentials that the server does not know."""


class QuotaError(SentimillError):
    """This caller's own quota is used up. Other callers are still served."""


class SomeRowsFailed(SentimillError):
    """A job ran to its end, and some rows have an error in place of an answer."""


class Outcome(NamedTuple):
    """What an error becomes for a gRPC caller and for a command.

    `grpc` is the name of a gRPC status code and `code` its number (google/rpc/code.proto). `exit`
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
    """Return the row of `OUTCOMES` for the nearest class.

    An error of another library gets the row of the root: INTERNAL, exit code 1.
    """
    for kind in type(error).__mro__:
        if kind in OUTCOMES:
            return OUTCOMES[kind]
    return OUTCOMES[SentimillError]
