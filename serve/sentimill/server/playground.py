"""Classifies what somebody types on the status page, with the limits of every call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from sentimill.errors import SentimillError
from sentimill.observability.status import PlaygroundAnswer
from sentimill.server.access.auth import ANONYMOUS
from sentimill.server.message_parser import decode
from sentimill.server.request_handler import Request, RequestHandler

_SECONDS: Final = 10.0
"""How long an answer may take."""


def playground(
    requests: RequestHandler, loop: asyncio.AbstractEventLoop
) -> Callable[[bytes], PlaygroundAnswer]:
    """Return a function that classifies a text in UTF-8, for any thread but the event loop's.

    The text is neither kept nor logged.
    """

    async def classify(data: bytes) -> PlaygroundAnswer:
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
        except TimeoutError:
            return PlaygroundAnswer(error=f"no answer in {_SECONDS:g} s")
        except SentimillError as error:
            return PlaygroundAnswer(error=str(error))
        if isinstance(one, SentimillError):
            return PlaygroundAnswer(error=str(one))
        return PlaygroundAnswer(
            label=one.label,
            confidence=one.confidence,
            tokens=one.tokens,
            abstained=one.abstained,
            truncated=one.truncated,
        )

    return lambda data: asyncio.run_coroutine_threadsafe(classify(data), loop).result()
