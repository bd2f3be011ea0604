"""Teachers behind Anthropic's Messages API, an optional extra.

The only file that knows the `anthropic` library. The API gives no log-probabilities, so shares
come from votes or are stated. As in `openai`, a field that a model does not know is left out once
the endpoint refuses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from sentimill_train.labelling.providers.anthropic_batches import AnthropicBatches
from sentimill_train.labelling.providers.endpoint import Endpoint, filed_name
from sentimill_train.labelling.requests.messages import Failure, Question, Reply, Usage
from sentimill_train.optional_packages import check_installed

ANTHROPIC_URL: Final = "https://api.anthropic.com"

# Where an error names several of these fields, the first is left out first.
_FIELDS: Final = ("temperature", "thinking", "output_config")


class AnthropicTeacher:
    """A Claude model. `close` it on the loop that used it."""

    offers_logprobs = False

    def __init__(self, model: str, *, url: str = ANTHROPIC_URL, key: str, timeout_s: float) -> None:
        check_installed("asking a Claude model", "anthropic", extra="anthropic")
        import anthropic

        self.model = model
        self.url = url
        self._fields = set(_FIELDS)
        self._endpoint = Endpoint(
            anthropic, "AsyncAnthropic", self._leave_out, url=url, key=key, timeout_s=timeout_s
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
        return await self._endpoint.post("/v1/messages", self.body(question))

    def batches(self) -> AnthropicBatches:
        """Return its batch API."""
        return AnthropicBatches(self._endpoint)

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
            # Unlike OpenAI's, Anthropic's `input_tokens` does not include cached tokens.
            usage=Usage(
                tokens_in=found.usage.input_tokens + cached + written,
                tokens_out=found.usage.output_tokens,
                cached_in=cached,
                cache_written=written,
            ),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._endpoint.close()

    def _leave_out(self, said: str, body: Mapping[str, object]) -> bool:
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
