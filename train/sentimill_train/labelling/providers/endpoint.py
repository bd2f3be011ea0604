"""What the endpoints of all providers share: calls, names in the store, the meaning of statuses."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import ModuleType
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from sentimill_train.labelling.requests.messages import Failure

_T = TypeVar("_T")

_AT_RISK: Final = frozenset({408, 504})  # a gateway gave up; the model behind it may have answered
_RETRY: Final = frozenset({408, 409, 425, 429})
_FATAL: Final = frozenset({401, 402, 403, 404, 405})


class Endpoint:
    """The endpoint of a provider, called through its SDK. Errors are returned as failures.

    sdk: `openai` or `anthropic`, which have the same error classes. client: the class of its
    client. leave_out: is told what an endpoint complains of in a request, leaves that out of later
    requests, and says whether it did.
    """

    def __init__(
        self,
        sdk: ModuleType,
        client: str,
        leave_out: Callable[[str, Mapping[str, object]], bool],
        *,
        url: str,
        key: str,
        timeout_s: float,
    ) -> None:
        self._sdk = sdk
        self._leave_out = leave_out
        # Retries are ours: the budget must know of each.
        self.client: Any = getattr(sdk, client)(
            api_key=key, base_url=url, timeout=timeout_s, max_retries=0
        )

    async def post(self, path: str, body: Mapping[str, object]) -> str | Failure:
        """Send JSON and return the body as it came; the typed calls would parse it first."""
        return await self.attempt(lambda: self.client.post(path, body=body, cast_to=str), body)

    async def post_bytes(self, path: str, data: bytes) -> str | Failure:
        """Send a JSON document that is already encoded."""
        return await self.attempt(lambda: self.client.post(path, content=data, cast_to=str), {})

    async def get(self, path: str) -> str | Failure:
        """Fetch a body as it came."""
        return await self.attempt(lambda: self.client.get(path, cast_to=str), {})

    async def attempt(
        self, call: Callable[[], Awaitable[_T]], body: Mapping[str, object]
    ) -> _T | Failure:
        """Make any call of the SDK. body: what it sends."""
        try:
            return await call()
        except self._sdk.APITimeoutError:
            return Failure(reason="TIMEOUT", retry=True, at_risk=True)
        except self._sdk.APIConnectionError as error:
            unsent = type(error.__cause__).__name__ == "ConnectError"
            return Failure(reason="CONNECTION", retry=True, at_risk=not unsent)
        except self._sdk.APIStatusError as error:
            said = f"{getattr(error, 'param', '')} {error.message}"
            code = getattr(error, "code", None)
            return self.refusal(error.status_code, code, said, body, error.response.headers)

    def refusal(
        self,
        status: int,
        code: str | None,
        said: str,
        body: Mapping[str, object],
        headers: Mapping[str, str] | None = None,
    ) -> Failure:
        """Return the failure for an error. A field that it complains of is left out from now on."""
        if status in (400, 422) and self._leave_out(said.lower(), body):
            return Failure(reason="UNKNOWN_FIELD", retry=True, free=True)
        return failure_of_status(status, code, headers or {})

    async def close(self) -> None:
        """Close the connections."""
        await self.client.close()


def filed_name(provider: str, model: str, url: str, own_url: str) -> str:
    """Return `provider:model`, and `@host` where it is not the provider's own."""
    host = "" if url == own_url else f"@{urlsplit(url).netloc}"
    return f"{provider}:{model}{host}"


def failure_of_status(status: int, code: str | None, headers: Mapping[str, str]) -> Failure:
    """Return the failure for an HTTP status: retry, give up this call, or give up all calls."""
    fatal = status in _FATAL or code == "insufficient_quota"
    retry = not fatal and (status in _RETRY or status >= 500)
    return Failure(
        reason=f"HTTP_{status}",
        retry=retry,
        fatal=fatal,
        at_risk=status in _AT_RISK,
        retry_after_s=retry_after_s(headers) if retry else None,
    )


def perhaps_done(failure: Failure) -> Failure:
    """Return the failure of a call that creates something: it may exist after a 500 or 502."""
    unclear = failure.reason in ("HTTP_500", "HTTP_502")
    return replace(failure, at_risk=True) if unclear else failure


def retry_after_s(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Return what Retry-After asks for, in seconds: a number, a date, or OpenAI's milliseconds."""
    try:
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        value = headers.get("retry-after")
        if value is None:
            return None
        try:
            return max(0.0, float(value))
        except ValueError:
            at = parsedate_to_datetime(value)
            return max(0.0, (at - (now or datetime.now(UTC))).total_seconds())
    except (ValueError, TypeError):
        return None
