"""Teachers behind an OpenAI-compatible endpoint: hosted, vLLM, Ollama, llama.cpp, TGI.

Only this file imports the `openai` library. Endpoints differ in the fields that they accept, so
questions are first sent with all fields, and without a field once the endpoint has refused it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from sentimill_train.labelling.providers.openai_batches import OpenAIBatches
from sentimill_train.labelling.providers.teacher import Teacher
from sentimill_train.labelling.requests.messages import Question, Reply, Stop, TokenShares, Usage
from sentimill_train.optional_packages import check_installed

_TOP_TOKENS: Final = 20  # the most that the API allows


class OpenAITeacher(Teacher):
    """A chat model."""

    provider = "openai"
    own_url = "https://api.openai.com/v1"
    path = "/chat/completions"
    batch_api = OpenAIBatches

    def __init__(self, model: str, *, url: str = own_url, key: str, timeout_s: float) -> None:
        check_installed("asking a teacher", "openai", extra="label")
        import openai

        super().__init__(openai, "AsyncOpenAI", model, url, key, timeout_s)
        self._limit_field = "max_completion_tokens"
        self.optional = {
            "logprobs": [None],
            # No reasoning, or as little as the model allows; values of newer models come first.
            "reasoning_effort": ["none", "minimal", "low"],
            "response_format": [None],
            "temperature": [None],
        }

    def body(self, question: Question) -> dict[str, object]:
        """Return the JSON of one chat completion."""
        schema = {"name": "judgement", "strict": True, "schema": question.schema}
        fields: dict[str, object] = {
            "temperature": question.temperature,
            "reasoning_effort": next(iter(self.optional["reasoning_effort"]), None),
            "response_format": {"type": "json_schema", "json_schema": schema},
        }
        body: dict[str, object] = {
            "model": self.model,
            "messages": [
                {"role": "system", "content": question.system},
                {"role": "user", "content": question.user},
            ],
            self._limit_field: question.answer_tokens,
            **{name: value for name, value in fields.items() if self.optional[name]},
        }
        if question.mode == "logprobs" and self.offers_logprobs:
            body |= {"logprobs": True, "top_logprobs": _TOP_TOKENS}
        return body

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

    def give_up_field(self, said: str, body: Mapping[str, object]) -> bool:
        """Give up a field. The limit on the answer stays, under its other name if needed."""
        if "max_completion_tokens" in said or "max_tokens" in said:
            newer = "max_completion_tokens" in body
            if newer or "max_completion_tokens" in said:
                self._limit_field = "max_tokens" if newer else "max_completion_tokens"
                return True
            return False
        return super().give_up_field(said, body)


_STOPS: Final[Mapping[str | None, Stop]] = {
    "stop": "end",
    "length": "length",
    "content_filter": "refusal",
}


class _Token(msgspec.Struct):
    token: str
    logprob: float
    top_logprobs: list[_Token] | None = None  # None in the alternatives themselves


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
