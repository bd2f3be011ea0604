"""Teachers behind Anthropic's Messages API, an optional extra.

Only this file imports the `anthropic` library. The API gives no log-probabilities, so shares
come from votes or are stated.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from sentimill_train.labelling.providers.anthropic_batches import AnthropicBatches
from sentimill_train.labelling.providers.teacher import Teacher
from sentimill_train.labelling.requests.messages import Question, Reply, Stop, Usage
from sentimill_train.optional_packages import check_installed


class AnthropicTeacher(Teacher):
    """A Claude model."""

    provider = "anthropic"
    own_url = "https://api.anthropic.com"
    path = "/v1/messages"
    batch_api = AnthropicBatches

    def __init__(self, model: str, *, url: str = own_url, key: str, timeout_s: float) -> None:
        check_installed("asking a Claude model", "anthropic", extra="anthropic")
        import anthropic

        super().__init__(anthropic, "AsyncAnthropic", model, url, key, timeout_s)
        self.optional = {"temperature": [None], "thinking": [None], "output_config": [None]}

    def body(self, question: Question) -> dict[str, object]:
        """Return the JSON of one message."""
        fields: dict[str, object] = {
            "temperature": question.temperature,
            "thinking": {"type": "disabled"},
            "output_config": {"format": {"type": "json_schema", "schema": question.schema}},
        }
        return {
            "model": self.model,
            "system": question.system,
            "messages": [{"role": "user", "content": question.user}],
            "max_tokens": question.answer_tokens,
            **{name: value for name, value in fields.items() if self.optional[name]},
        }

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


_STOPS: Final[Mapping[str | None, Stop]] = {
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
