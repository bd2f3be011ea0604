"""What all endpoints share: names in the store, and the meaning of HTTP statuses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urlsplit

from sentimill_train.labelling.requests.messages import Failure

__all__ = ["failure_of_status", "filed_name", "perhaps_done", "retry_after_s"]

_AT_RISK: Final = frozenset({408, 504})  # a gateway gave up; the model behind it may have answered
_RETRY: Final = frozenset({408, 409, 425, 429})
_FATAL: Final = frozenset({401, 402, 403, 404, 405})


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
