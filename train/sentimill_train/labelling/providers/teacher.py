"""A teacher: a large model behind an endpoint, with the code that all providers share.

A provider is a subclass that writes questions, reads replies, and lists the fields of a request
that some models do not know. Such a field is left out once an endpoint has refused it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar
from urllib.parse import urlsplit

from sentimill_train.labelling.requests.messages import Failure, Question, Reply

if TYPE_CHECKING:
    from sentimill_train.labelling.providers.anthropic_batches import AnthropicBatches
    from sentimill_train.labelling.providers.openai_batches import OpenAIBatches

_T = TypeVar("_T")

_AT_RISK: Final = frozenset({408, 504})  # a gateway timed out; the model may have answered
_RETRY: Final = frozenset({408, 409, 425, 429})
_FATAL: Final = frozenset({401, 402, 403, 404, 405})


class Teacher(ABC):
    """A model behind an endpoint, called through the provider's SDK. Its errors become `Failure`.

    Many tasks of one event loop may use it at once; `close` it there. path: of the API for
    questions. optional: the fields that a model may not know, in the order in which they are given
    up, each with the values to try.
    """

    provider: ClassVar[str]
    own_url: ClassVar[str]
    path: ClassVar[str]
    batch_api: ClassVar[type[OpenAIBatches] | type[AnthropicBatches]]

    def __init__(
        self, sdk: ModuleType, client: str, model: str, url: str, key: str, timeout_s: float
    ) -> None:
        self.model = model
        self.optional: dict[str, list[object]] = {}
        self._url = url
        self._sdk = sdk
        # The SDK must not retry, because the budget must count each call.
        self.client: Any = getattr(sdk, client)(
            api_key=key, base_url=url, timeout=timeout_s, max_retries=0
        )

    @property
    def name(self) -> str:
        """Its name in the store: `provider:model`, with `@host` if that is not the provider's."""
        host = "" if self._url == self.own_url else f"@{urlsplit(self._url).netloc}"
        return f"{self.provider}:{self.model}{host}"

    @property
    def offers_logprobs(self) -> bool:
        """Whether the endpoint has not refused log-probabilities so far."""
        return bool(self.optional.get("logprobs"))

    @abstractmethod
    def body(self, question: Question) -> dict[str, object]:
        """Return the JSON of the request, also for batches."""

    @abstractmethod
    def read(self, raw: str) -> Reply | None:
        """Decode the body of a reply. Returns None if it is not a valid reply."""

    def batches(self) -> OpenAIBatches | AnthropicBatches:
        """Return its batch API."""
        return self.batch_api(self)

    async def send(self, question: Question) -> str:
        """Return the raw body of the reply. A cancelled call may still be billed."""
        return await self.post(self.path, self.body(question))

    async def post(self, path: str, body: Mapping[str, object]) -> str:
        """Send JSON and return the raw body, which the typed calls of the SDK would parse."""
        return await self.attempt(lambda: self.client.post(path, body=body, cast_to=str), body)

    async def get(self, path: str) -> str:
        """Fetch a raw body."""
        return await self.attempt(lambda: self.client.get(path, cast_to=str))

    async def attempt(
        self, call: Callable[[], Awaitable[_T]], body: Mapping[str, object] | None = None
    ) -> _T:
        """Make a call of the SDK. body: the JSON that it sends. Raises Failure."""
        try:
            return await call()
        except self._sdk.APITimeoutError:
            raise Failure(reason="TIMEOUT", retry=True, at_risk=True) from None
        except self._sdk.APIConnectionError as error:
            unsent = type(error.__cause__).__name__ == "ConnectError"
            raise Failure(reason="CONNECTION", retry=True, at_risk=not unsent) from None
        except self._sdk.APIStatusError as error:
            said = f"{getattr(error, 'param', '')} {error.message}"
            code = getattr(error, "code", None)
            raise self.refusal(
                error.status_code, code, said, body or {}, error.response.headers
            ) from None

    async def create_batch(self, call: Callable[[], Awaitable[str]]) -> str:
        """Make a call that creates a batch, which may exist even after a 500 or 502."""
        try:
            return await self.attempt(call)
        except Failure as failure:
            failure.at_risk |= failure.reason in ("HTTP_500", "HTTP_502")
            raise

    def refusal(
        self,
        status: int,
        code: str | None,
        said: str,
        body: Mapping[str, object],
        headers: Mapping[str, str] | None = None,
    ) -> Failure:
        """Return the failure for an error. A field that the error names is left out from now on."""
        if status in (400, 422) and self.give_up_field(said.lower(), body):
            return Failure(reason="UNKNOWN_FIELD", retry=True, free=True)
        return failure_of_status(status, code, headers or {})

    def give_up_field(self, said: str, body: Mapping[str, object]) -> bool:
        """Give up the field that an error names, or its value; return False if it names none.

        body: the JSON that was sent; another call may have given up the same value already.
        """
        for field, values in self.optional.items():
            if field in said and field in body:
                if len(values) == 1 or body[field] in values[:1]:
                    del values[:1]
                return True
        return False

    async def close(self) -> None:
        """Close the connections."""
        await self.client.close()


def failure_of_status(status: int, code: str | None, headers: Mapping[str, str]) -> Failure:
    """Return the failure for an HTTP status; it says whether to retry, and if all calls fail."""
    fatal = status in _FATAL or code == "insufficient_quota"
    retry = not fatal and (status in _RETRY or status >= 500)
    return Failure(
        reason=f"HTTP_{status}",
        retry=retry,
        fatal=fatal,
        at_risk=status in _AT_RISK,
        retry_after_s=retry_after_s(headers) if retry else None,
    )


def retry_after_s(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Return the seconds in Retry-After: a number, a date, or milliseconds (OpenAI)."""
    with suppress(ValueError):
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
    value = headers.get("retry-after", "")
    with suppress(ValueError):
        return max(0.0, float(value))
    with suppress(ValueError, TypeError):
        at = parsedate_to_datetime(value)
        return max(0.0, (at - (now or datetime.now(UTC))).total_seconds())
    return None
