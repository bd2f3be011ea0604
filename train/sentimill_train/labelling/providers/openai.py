"""Teachers behind an OpenAI-compatible endpoint: hosted, vLLM, Ollama, llama.cpp, TGI.

The only file that knows the `openai` library. Endpoints differ in the fields that they know, so
a question is first sent with all fields, and loses a field once the endpoint refuses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from sentimill_train.labelling.providers.endpoint import Endpoint, filed_name
from sentimill_train.labelling.providers.openai_batches import OpenAIBatches
from sentimill_train.labelling.requests.messages import Failure, Question, Reply, TokenShares, Usage
from sentimill_train.optional_packages import check_installed

OPENAI_URL: Final = "https://api.openai.com/v1"

_EFFORTS: Final = ("none", "minimal", "low")
"""Reasoning off, or as little as the model knows: newest models first."""

_TOP_TOKENS: Final = 20  # the most that the API gives


class OpenAITeacher:
    """A chat model. `close` it on the loop that used it."""

    def __init__(self, model: str, *, url: str = OPENAI_URL, key: str, timeout_s: float) -> None:
        check_installed("asking a teacher", "openai", extra="label")
        import openai

        self.model = model
        self.url = url
        self._fields = {"response_format", "reasoning_effort", "logprobs", "temperature"}
        self._efforts = list(_EFFORTS)
        self._limit_field = "max_completion_tokens"
        self._endpoint = Endpoint(
            openai, "AsyncOpenAI", self._leave_out, url=url, key=key, timeout_s=timeout_s
        )

    @property
    def name(self) -> str:
        """`openai:model`, and `@host` where it is not OpenAI's own."""
        return filed_name("openai", self.model, self.url, OPENAI_URL)

    @property
    def offers_logprobs(self) -> bool:
        """Whether the endpoint has not refused log-probabilities so far."""
        return "logprobs" in self._fields

    def body(self, question: Question) -> dict[str, object]:
        """Return the JSON of one chat completion."""
        body: dict[str, object] = {
            "model": self.model,
            "messages": [
                {"role": "system", "content": question.system},
                {"role": "user", "content": question.user},
            ],
            self._limit_field: question.answer_tokens,
        }
        if "temperature" in self._fields:
            body["temperature"] = question.temperature
        if "reasoning_effort" in self._fields:
            body["reasoning_effort"] = self._efforts[0]
        if "response_format" in self._fields:
            schema = {"name": "judgement", "strict": True, "schema": question.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        if question.mode == "logprobs" and "logprobs" in self._fields:
            body |= {"logprobs": True, "top_logprobs": _TOP_TOKENS}
        return body

    async def send(self, question: Question) -> str | Failure:
        """Send one chat completion. Cancelling it may leave it billed."""
        return await self._endpoint.post("/chat/completions", self.body(question))

    def batches(self) -> OpenAIBatches:
        """Return its batch API."""
        return OpenAIBatches(self._endpoint)

    def read(self, raw: str) -> Reply | None:
        """Decode the body of a chat completion."""
        try:
            found = msgspec.json.decode(raw, type=_Completion)
        except msgspec.DecodeError:
            return None
        usage = None
        if found.usage is not None:
            details = found.usage.prompt_tokens_details or _Details()
            usage = Usage(
                tokens_in=found.usage.prompt_tokens,
                tokens_out=found.usage.completion_tokens,
                cached_in=details.cached_tokens or 0,
                cache_written=details.cache_write_tokens or 0,
            )
        if not found.choices:
            return Reply(content="", stop="other", usage=usage)
        choice = found.choices[0]
        tokens = (
            tuple(_token(t) for t in (choice.logprobs.content or ())) if choice.logprobs else ()
        )
        return Reply(
            content=choice.message.content or "",
            stop="refusal" if choice.message.refusal else _STOPS.get(choice.finish_reason, "other"),
            usage=usage,
            tokens=tokens,
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._endpoint.close()

    def _leave_out(self, said: str, body: Mapping[str, object]) -> bool:
        """Leave out the field that the endpoint complains of; False where it names none of ours."""
        if "max_completion_tokens" in said or "max_tokens" in said:
            other = "max_tokens" if "max_completion_tokens" in body else "max_completion_tokens"
            named = "max_completion_tokens" in body or "max_completion_tokens" in said
            self._limit_field = other if named else self._limit_field
            return named
        for field in sorted(self._fields):
            if field not in said:
                continue
            if field not in body:
                return True  # another call found out first
            if field == "reasoning_effort" and len(self._efforts) > 1:
                if body[field] == self._efforts[0]:
                    self._efforts.pop(0)
            else:
                self._fields.discard(field)
            return True
        return any(field in said for field in _ALL_FIELDS if field in body)


_ALL_FIELDS: Final = ("response_format", "reasoning_effort", "logprobs", "temperature")
_STOPS: Final[Mapping[str | None, Literal["end", "length", "refusal", "other"]]] = {
    "stop": "end",
    "length": "length",
    "content_filter": "refusal",
}


class _Top(msgspec.Struct):
    token: str
    logprob: float


class _Token(msgspec.Struct):
    token: str
    logprob: float
    top_logprobs: list[_Top] | None = None


class _LogProbs(msgspec.Struct):
    content: list[_Token] | None = None


class _Message(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: str | None = None
    logprobs: _LogProbs | None = None


class _Details(msgspec.Struct):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int
    prompt_tokens_details: _Details | None = None


class _Completion(msgspec.Struct):
    choices: list[_Choice]
    usage: _Usage | None = None


def _token(token: _Token) -> TokenShares:
    top = tuple((t.token, t.logprob) for t in token.top_logprobs or ())
    return token.token, top or ((token.token, token.logprob),)
