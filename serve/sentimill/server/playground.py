"""Classifies what somebody types on the status page, with the limits of every call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from sentimill.errors import SentimillError
from sentimill.server.access.auth import ANONYMOUS
from sentimill.server.message_parser import decode
from sentimill.server.request_handler import Request, RequestHandler

_SECONDS: Final = 10.0
"""How long an answer may take."""

_SHOWN: Final = ("label", "confidence", "tokens", "abstained", "truncated")
"""The fields of a prediction that the page gets."""


def playground(
    requests: RequestHandler, loop: asyncio.AbstractEventLoop
) -> Callable[[bytes], Mapping[str, object]]:
    """Return a function that classifies a text in UTF-8, for any thread but the event loop's.

    It returns the fields in `_SHOWN`, or `error` with the reason why there is no answer. The text
    is neither kept nor logged.
    """

    async def classify(data: bytes) -> Mapping[str, object]:
        request = Request(
            texts=[decode(data)],
            count=1,
            caller=ANONYMOUS,
            sender="playground",
            seconds_left=_SECONDS,
        )
        try:
            with requests.hold(data):
                async with asyncio.timeout(_SECONDS):
                    (one,) = (await requests.classify(request)).results
            if isinstance(one, SentimillError):
                raise one
        except TimeoutError:
            return {"error": f"no answer in {_SECONDS:g} s"}
        except SentimillError as error:
            return {"error": str(error)}
        return {name: getattr(one, name) for name in _SHOWN}

    return lambda data: asyncio.run_coroutine_threadsafe(classify(data), loop).result()
