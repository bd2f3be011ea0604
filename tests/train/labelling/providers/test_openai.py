"""The real OpenAI SDK against the real wire format."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any, Literal

import pytest

from labelling_runs import outcome_of, teacher_of
from sentimill.errors import UsageError
from sentimill_train.data.schema import SENTIMENTS
from sentimill_train.labelling.annotator import TeacherSpec, open_teacher
from sentimill_train.labelling.prompt import SENTIMENT, load_prompt
from sentimill_train.labelling.providers.teacher import failure_of_status, retry_after_s
from sentimill_train.labelling.requests.messages import Failure, Question
from teacher_server import Behaviour, TeacherServer, teacher_server


def question(mode: Literal["logprobs", "votes", "stated"] = "logprobs") -> Question:
    """Return a question about a fine review."""
    return load_prompt(SENTIMENT, SENTIMENTS, mode).question("t", "A lovely lamp.")


def send(server: TeacherServer, times: int = 1, timeout_s: float = 20.0) -> list[str | Failure]:
    """Send the same question some times, one after the other."""

    async def scenario() -> list[str | Failure]:
        teacher = teacher_of(server, timeout_s=timeout_s)
        try:
            return [await outcome_of(teacher, question()) for _ in range(times)]
        finally:
            await teacher.close()

    return asyncio.run(scenario())


def test_request_asks_for_a_closed_answer_without_reasoning() -> None:
    """Schema with an enum, log-probabilities, no reasoning, a bound on the answer."""
    with teacher_server(keep_bodies=True) as server:
        send(server)
    (body,) = server.count.bodies
    schema = body["response_format"]["json_schema"]

    assert schema["strict"] is True
    assert schema["schema"]["properties"]["label"]["enum"] == ["A", "B", "C"]
    assert (body["logprobs"], body["top_logprobs"]) == (True, 20)
    assert (body["reasoning_effort"], body["temperature"]) == ("none", 0.0)
    assert body["max_completion_tokens"] == question().answer_tokens


def test_reply_is_kept_as_it_came_and_opened_later() -> None:
    """The body is the wire's own text; opening it gives content, tokens and usage."""
    with teacher_server() as server:
        (raw,) = send(server)
        teacher = teacher_of(server)
    assert isinstance(raw, str)
    reply = teacher.read(raw)

    assert reply is not None
    assert reply.usage is not None
    assert (reply.usage.tokens_in, reply.usage.tokens_out) == (
        server.count.tokens_in,
        server.count.tokens_out,
    )
    assert any(len(top) == 3 for _, top in reply.tokens)
    assert teacher.read("<html>busy</html>") is None


def test_unknown_fields_are_given_up_one_by_one() -> None:
    """An older or smaller endpoint gets what it knows; each refusal costs a free call."""
    unknown = frozenset(
        {"reasoning_effort", "logprobs", "response_format", "max_completion_tokens"}
    )
    with teacher_server(Behaviour(unknown=unknown), keep_bodies=True) as server:
        results = send(server, times=8)
    free = [result for result in results if isinstance(result, Failure)]

    assert all(failure.free and failure.retry for failure in free)
    assert isinstance(results[-1], str)
    assert "max_tokens" in server.count.bodies[-1]
    assert unknown.isdisjoint(server.count.bodies[-1])


def test_reasoning_is_turned_down_as_far_as_the_model_knows() -> None:
    """`none`, then `minimal`, then `low`, before the field is left out."""
    with teacher_server(Behaviour(unknown=frozenset({"reasoning_effort"})), keep_bodies=True) as s:
        send(s, times=4)
    efforts = [body.get("reasoning_effort") for body in s.count.bodies]

    assert efforts == ["none", "minimal", "low", None]


@pytest.mark.parametrize(
    ("status", "code", "retry", "fatal"),
    [
        (400, None, False, False),
        (401, None, False, True),
        (403, None, False, True),
        (404, None, False, True),
        (413, None, False, False),
        (422, None, False, False),
        (429, "rate_limit_exceeded", True, False),
        (429, "insufficient_quota", False, True),
        (500, None, True, False),
        (503, None, True, False),
    ],
)
def test_status_decides_whether_to_try_again(
    status: int, code: str | None, retry: bool, fatal: bool
) -> None:
    """A wrong key or an empty account helps no call, a bad request not this one."""
    with teacher_server(Behaviour(status=status, code=code)) as server:
        (failure,) = send(server)

    assert isinstance(failure, Failure)
    assert (failure.reason, failure.retry, failure.fatal) == (f"HTTP_{status}", retry, fatal)


def test_retry_after_reaches_the_caller() -> None:
    """As the failure's own wait, in seconds."""
    with teacher_server(Behaviour(status=429, retry_after={"retry-after": "7"})) as server:
        (failure,) = send(server)

    assert isinstance(failure, Failure)
    assert failure.retry_after_s == 7.0


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "Mon, 23 Nov 2026 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Mon, 23 Nov 2026 11:00:00 GMT"}, 0.0),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_a_number_or_a_date(headers: dict[str, str], expected: float | None) -> None:
    """Both forms of RFC 9110, and OpenAI's finer one."""
    now = datetime(2026, 11, 23, 12, tzinfo=UTC)

    assert retry_after_s(headers, now) == expected


def test_hopeless_status_is_not_at_risk() -> None:
    """What a server refused it did not bill; what a gateway gave up on it may have."""
    assert not failure_of_status(500, None, {}).at_risk
    assert failure_of_status(504, None, {}).at_risk


def test_lost_replies_may_have_been_billed() -> None:
    """A time-out and a cut connection are at risk; a refused connection never got there."""
    with teacher_server(Behaviour(faults={"timeout": 1.0}, hang_s=2.0)) as server:
        (late,) = send(server, timeout_s=0.2)
        server.behaviour.faults = {"drop": 1.0}
        (cut,) = send(server)
    (gone,) = send(server)

    found: list[Any] = [late, cut, gone]
    assert [failure.reason for failure in found] == ["TIMEOUT", "CONNECTION", "CONNECTION"]
    assert [failure.at_risk for failure in found] == [True, True, False]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("openai:gpt-6-luna", TeacherSpec("openai", "gpt-6-luna", None)),
        ("openai:org/m@v2@http://h:1/v1", TeacherSpec("openai", "org/m@v2", "http://h:1/v1")),
        ("anthropic:claude-x", TeacherSpec("anthropic", "claude-x", None)),
        ("openai:org/m:free@2026-01-01", TeacherSpec("openai", "org/m:free@2026-01-01", None)),
    ],
)
def test_teachers_are_named_by_provider_model_and_url(name: str, expected: TeacherSpec) -> None:
    """A model's own name may hold colons, slashes and at signs."""
    assert TeacherSpec.parse(name) == expected


@pytest.mark.parametrize("name", ["gpt-6", "openai:", "mistral:m", "openai:@http://h"])
def test_bad_names_are_usage_errors(name: str) -> None:
    """Before anything is opened."""
    with pytest.raises(UsageError, match="is not a teacher"):
        TeacherSpec.parse(name)


@pytest.mark.parametrize(
    "address",
    [
        "localhost:11434/v1",
        "localhost",
        "10.0.0.7/v1",
        "10.0.0.7",
        "gpu-3:8000",
        "llm.example.com/v1",
        "[::1]:8000/v1",
        "Http://gpu-3:8000/v1",
    ],
)
def test_address_without_a_scheme_is_refused(address: str) -> None:
    """As a part of the model's name, it would send the reviews to the provider."""
    with pytest.raises(UsageError, match="write openai:llama3@http://") as caught:
        TeacherSpec.parse(f"openai:llama3@{address}")

    assert str(caught.value).endswith(address.removeprefix("Http://"))
    assert "/Http" not in str(caught.value)
    assert caught.value.reason == "BAD_TEACHER"


def test_hosted_teacher_needs_a_key() -> None:
    """The message names the variable; keys come from nowhere else."""
    with pytest.raises(UsageError, match="OPENAI_API_KEY"):
        open_teacher(TeacherSpec("openai", "m", None), key=None, timeout_s=1.0)
