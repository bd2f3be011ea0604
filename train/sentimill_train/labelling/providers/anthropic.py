"""Teachers behind Anthropic's Messages API, an optional extra.

The only file that knows the `anthropic` library. The API gives no log-probabilities, so shares
come from votes or are stated. As in `openai`, a field that a model does not know is left out once
the endpoint refuses it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Final, Literal, TypeVar

import msgspec

from sentimill.errors import UsageError
from sentimill_train.labelling.providers.anthropic_batches import AnthropicBatches
from sentimill_train.labelling.providers.endpoint import failure_of_status, filed_name
from sentimill_train.labelling.requests.messages import Failure, Question, Reply, Usage

if TYPE_CHECKING:
    import anthropic

_T = TypeVar("_T")

__all__ = ["ANTHROPIC_URL", "AnthropicTeacher"]

ANTHROPIC_URL: Final = "https://api.anthropic.com"

# In the order in which they are left out where an error names several of them.
_FIELDS: Final = ("temperature", "thinking", "output_config")


class AnthropicTeacher:
    """A Claude model. `close` it on the loop that used it."""

    offers_logprobs = False

    def __init__(self, model: str, *, url: str = ANTHROPIC_URL, key: str, timeout_s: float) -> None:
        try:
            import anthropic
        except ImportError as error:
            raise UsageError(
                "asking a Claude model needs anthropic: pip install 'sentimill[anthropic]'",
                reason="EXTRA_MISSING",
            ) from error
        self.model = model
        self.url = url
        self._anthropic = anthropic
        self._fields = set(_FIELDS)
        self._client: anthropic.AsyncAnthropic = anthropic.AsyncAnthropic(
            api_key=key,
            base_url=url,
            timeout=timeout_s,
            max_retries=0,  # retries are ours: the budget must know of each
        )

    @property
    def name(self) -> str:
        """`anthropic:model`, and `@host` where it is not Anthropic's own."""
        return filed_name("anthropic", self.model, self.url, ANTHROPIC_URL)

    def body(self, question: Question) -> dict[str, object]:
        """Return the JSON of one message."""
        body: dict[str, object] = {
            "model": self.model,
            "system": question.system,
            "messages": [{"role": "user", "content": question.user}],
            "max_tokens": question.answer_tokens,
        }
        if "temperature" in self._fields:
            body["temperature"] = question.temperature
        if "thinking" in self._fields:
            body["thinking"] = {"type": "disabled"}
        if "output_config" in self._fields:
            form = {"type": "json_schema", "schema": question.schema}
            body["output_config"] = {"format": form}
        return body

    async def send(self, question: Question) -> str | Failure:
        """Send one message. Cancelling it may leave it billed."""
        body = self.body(question)
        return await self._attempt(
            lambda: self._client.post("/v1/messages", body=body, cast_to=str), body
        )

    async def post(self, path: str, data: bytes) -> str | Failure:
        """Send a JSON document and return the body as it came."""
        return await self._attempt(lambda: self._client.post(path, content=data, cast_to=str), {})

    async def get(self, path: str) -> str | Failure:
        """Fetch a body as it came."""
        return await self._attempt(lambda: self._client.get(path, cast_to=str), {})

    async def _attempt(
        self, call: Callable[[], Awaitable[_T]], body: Mapping[str, object]
    ) -> _T | Failure:
        """Make a call of the library; network errors are returned as failures."""
        sdk = self._anthropic
        try:
            return await call()
        except sdk.APITimeoutError:
            return Failure(reason="TIMEOUT", retry=True, at_risk=True)
        except sdk.APIConnectionError as error:
            unsent = type(error.__cause__).__name__ == "ConnectError"
            return Failure(reason="CONNECTION", retry=True, at_risk=not unsent)
        except sdk.APIStatusError as error:
            return self.refusal(
                error.status_code, error.message, body, headers=error.response.headers
            )

    def refusal(
        self,
        status: int,
        said: str,
        body: Mapping[str, object],
        *,
        headers: Mapping[str, str] | None = None,
    ) -> Failure:
        """Return the failure for an error, and leave out a field that the error complains of."""
        if status == 400 and self._give_up_field(said.lower(), body):
            return Failure(reason="UNKNOWN_FIELD", retry=True, free=True)
        return failure_of_status(status, None, headers or {})

    def batches(self) -> AnthropicBatches:
        """Return its batch API."""
        return AnthropicBatches(self)

    def read(self, raw: str) -> Reply | None:
        """Decode the body of a message."""
        try:
            found = msgspec.json.decode(raw, type=_Message)
        except msgspec.DecodeError:
            return None
        cached = found.usage.cache_read_input_tokens or 0
        written = found.usage.cache_creation_input_tokens or 0
        return Reply(
            content="".join(block.text for block in found.content if block.type == "text"),
            stop=_STOPS.get(found.stop_reason, "other"),
            # Unlike OpenAI, Anthropic counts cached tokens beside the tokens in.
            usage=Usage(
                tokens_in=found.usage.input_tokens + cached + written,
                tokens_out=found.usage.output_tokens,
                cached_in=cached,
                cache_written=written,
            ),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    def _give_up_field(self, said: str, body: Mapping[str, object]) -> bool:
        for field in _FIELDS:
            if field in said:
                self._fields.discard(field)
                return field in body
        return False


_STOPS: Final[Mapping[str | None, Literal["end", "length", "refusal", "other"]]] = {
    "end_turn": "end",
    "stop_sequence": "end",
    "max_tokens": "length",
    "refusal": "refusal",
}


class _Block(msgspec.Struct):
    type: str
    text: str = ""


class _Usage(msgspec.Struct):
    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None


class _Message(msgspec.Struct):
    content: list[_Block]
    usage: _Usage
    stop_reason: str | None = None
