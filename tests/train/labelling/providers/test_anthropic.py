"""The real Anthropic SDK against its wire format."""

from __future__ import annotations

import asyncio
from importlib.util import find_spec

import pytest

from labelling_runs import outcome_of
from sentimill_train.data.schema import SENTIMENTS
from sentimill_train.labelling.prompt import SENTIMENT, load_prompt
from sentimill_train.labelling.providers.anthropic import AnthropicTeacher
from sentimill_train.labelling.requests.messages import Failure
from sentimill_train.labelling.requests.response_parser import read_answer
from teacher_server import Behaviour, TeacherServer, teacher_server

# Found, and not imported: the SDK takes seconds, also where no test of it runs.
pytestmark = pytest.mark.skipif(find_spec("anthropic") is None, reason="needs the extra anthropic")
QUESTION = load_prompt(SENTIMENT, SENTIMENTS, "stated").question("t", "A lovely lamp.")


def send(server: TeacherServer, times: int = 1) -> tuple[AnthropicTeacher, list[str | Failure]]:
    """Send a question some times."""

    async def scenario() -> tuple[AnthropicTeacher, list[str | Failure]]:
        url = server.url.removesuffix("/v1")
        teacher = AnthropicTeacher("claude-test", url=url, key="test", timeout_s=20.0)
        try:
            return teacher, [await outcome_of(teacher, QUESTION) for _ in range(times)]
        finally:
            await teacher.close()

    return asyncio.run(scenario())


def test_message_brings_shares_and_its_cost() -> None:
    """The same question, another provider's wire."""
    with teacher_server(keep_bodies=True) as server:
        teacher, (raw,) = send(server)
    assert isinstance(raw, str)
    reply = teacher.read(raw)
    shares = read_answer(reply, QUESTION)

    assert isinstance(shares, tuple)
    assert shares[2] == max(shares)
    assert reply is not None
    assert reply.usage is not None
    assert reply.usage.tokens_in == server.count.tokens_in
    assert server.count.bodies[0]["output_config"]["format"]["type"] == "json_schema"


def test_fields_that_a_model_rejects_are_given_up() -> None:
    """Newest models take no temperature and always think."""
    unknown = frozenset({"temperature", "thinking"})
    with teacher_server(Behaviour(unknown=unknown), keep_bodies=True) as server:
        _, results = send(server, times=3)

    assert [isinstance(result, str) for result in results] == [False, False, True]
    assert unknown.isdisjoint(server.count.bodies[-1])


@pytest.mark.parametrize(
    ("fault", "reason"), [("cut", "TRUNCATED"), ("refuse", "REFUSED"), ("empty", "EMPTY")]
)
def test_stop_reasons_are_understood(fault: str, reason: str) -> None:
    """As for any other provider."""
    with teacher_server(Behaviour(faults={fault: 1.0})) as server:
        teacher, (raw,) = send(server)

    assert isinstance(raw, str)
    assert read_answer(teacher.read(raw), QUESTION) == reason


def test_status_decides_as_elsewhere() -> None:
    """One rule for all providers."""
    with teacher_server(Behaviour(status=429, retry_after={"retry-after": "3"})) as server:
        _, (failure,) = send(server)

    assert isinstance(failure, Failure)
    assert (failure.retry, failure.retry_after_s) == (True, 3.0)
