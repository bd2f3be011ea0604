"""The error tree and its one table."""

from __future__ import annotations

import ast
import copy
import inspect
import multiprocessing
import pickle
import re
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import grpc
import pytest

from repository import ROOT
from sentimill import errors
from sentimill.errors import OUTCOMES, EngineError, InputError, SentimillError, TextError, outcome
from sentimill_train.labelling.requests.messages import Failure

CLASSES = [
    found
    for _, found in inspect.getmembers(errors, inspect.isclass)
    if issubclass(found, SentimillError)
]
EXIT_CODES = {0, 1, 2, 3, 4}


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_has_an_outcome_of_its_own_or_of_its_parent(kind: type[SentimillError]) -> None:
    """No error but the root falls through to the root's outcome."""
    nearest = next(parent for parent in kind.__mro__ if parent in OUTCOMES)

    assert kind is SentimillError or nearest is not SentimillError
    assert OUTCOMES[nearest] == outcome(kind("why", reason="REASON"))


@pytest.mark.parametrize(("kind", "row"), OUTCOMES.items())
def test_an_outcome_names_a_grpc_code_by_its_number(
    kind: type[SentimillError], row: errors.Outcome
) -> None:
    """Name and number are those of gRPC, and the exit code is one of the documented five."""
    assert (row.code, row.grpc) == (grpc.StatusCode[row.grpc].value[0], row.grpc)
    assert row.exit in EXIT_CODES


@pytest.mark.parametrize("kind", CLASSES)
def test_the_drawing_shows_every_error(kind: type[SentimillError]) -> None:
    """The tree in the module's docstring is complete."""
    assert errors.__doc__ is not None
    assert f" {kind.__name__} " in errors.__doc__.replace("\n", " ")


def test_what_is_not_ours_is_an_internal_failure() -> None:
    """A stranger's exception is INTERNAL and exit code 1."""
    assert OUTCOMES[SentimillError] == outcome(KeyError("x"))


def test_a_text_error_is_an_input_error() -> None:
    """A caller who catches bad input catches a bad text too."""
    error = TextError("empty", reason="EMPTY_TEXT")

    assert isinstance(error, InputError)
    assert (str(error), error.reason) == ("empty", "EMPTY_TEXT")


def test_the_module_imports_only_typing() -> None:
    """Every room may import errors, so errors imports no room."""
    tree = ast.parse(inspect.getsource(errors))
    found = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}

    assert {"__future__", "typing"} == found
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Import)]


def made(kind: type[SentimillError]) -> SentimillError:
    """Return an error of *kind* with everything that it can carry."""
    error = kind("why", reason="REASON")
    for name in vars(error):
        setattr(error, name, f"some {name}")
    error.add_note("a note")
    return error


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_survives_pickle_and_copy(kind: type[SentimillError]) -> None:
    """Class, message, reason and all else come back."""
    error = made(kind)

    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert (type(again), again.args, vars(again)) == (kind, error.args, vars(error))
        assert str(again) == "why"


def test_every_public_error_of_ours_is_in_the_tree() -> None:
    """So the tests of this file see every class; labelling has one that never leaves it."""
    raised = re.compile(r"^class [A-Za-z]\w*\(\w*(?:Error|Exception|Warning)\)", re.MULTILINE)
    files = [*(ROOT / "serve/sentimill").rglob("*.py"), *(ROOT / "train").rglob("*.py")]

    found = [path.name for path in files if raised.search(path.read_text())]
    assert found == ["errors.py", "messages.py"]


@pytest.mark.parametrize(
    "send", [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))]
)
def test_a_failed_call_survives_pickle_and_copy(send: Callable[[Failure], Failure]) -> None:
    """What labelling raises inside keeps all that decides whether the call is tried again."""
    failure = Failure(reason="RATE_LIMITED", retry=True, retry_after_s=2.5)

    assert vars(send(failure)) == vars(failure)


@pytest.mark.parametrize("kind", [TextError, EngineError])
def test_a_worker_process_may_return_and_raise_an_error(kind: type[SentimillError]) -> None:
    """The process that waits gets the error, and does not hang."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as executor:
        returned = executor.submit(kind, "why", reason="REASON").result(60)
        with pytest.raises(kind, match="why") as caught:
            executor.submit(fail, kind).result(60)
    with spawn.Pool(1) as pool:
        (mapped,) = pool.starmap_async(partial(kind, reason="REASON"), [("why",)]).get(60)

    for error in (returned, caught.value, mapped):
        assert (type(error), str(error), error.reason) == (kind, "why", "REASON")


def fail(kind: type[SentimillError]) -> None:
    """Raise an error of *kind*, in a worker."""
    raise kind("why", reason="REASON")


def test_a_reason_is_spelt_in_one_way() -> None:
    """No two reasons are the same words in another order: a program would test for one alone."""
    files = [*(ROOT / "serve/sentimill").rglob("*.py"), *(ROOT / "train").rglob("*.py")]
    found = {
        reason
        for path in files
        for reason in re.findall(r'reason="([A-Z_]+)"', path.read_text(encoding="utf-8"))
    }
    by_words: dict[frozenset[str], set[str]] = {}
    for reason in found:
        by_words.setdefault(frozenset(reason.split("_")), set()).add(reason)

    assert len(found) > 50
    assert [same for same in by_words.values() if len(same) > 1] == []
