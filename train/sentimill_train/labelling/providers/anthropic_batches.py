"""Anthropic's Message Batches: one request holds all calls of a part.

A batch there cannot hold our name for it, so the id of each request holds it. A part that may have
arrived is recognised by its size and, once it has results, by the id of the first one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from sentimill_train.labelling.requests.messages import BatchStatus, Failure, json_bytes

if TYPE_CHECKING:
    from sentimill_train.labelling.providers.teacher import Teacher

_PATH: Final = "/v1/messages/batches"
_PAGE: Final = 1000  # the most that the API allows

# The HTTP status of each error outside of a batch (API, "Errors").
_STATUS: Final[Mapping[str, int]] = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "timeout_error": 504,
    "overloaded_error": 529,
}


class _Remote(msgspec.Struct):
    id: str
    processing_status: str
    archived_at: str | None = None
    request_counts: dict[str, int] = {}


class _Page(msgspec.Struct):
    data: list[_Remote]
    has_more: bool = False


class _Problem(msgspec.Struct):
    type: str = ""
    message: str = ""


class _Error(msgspec.Struct):
    error: _Problem


class _Result(msgspec.Struct):
    type: str
    message: msgspec.Raw = msgspec.Raw(b"null")
    error: _Error | None = None


class _Line(msgspec.Struct):
    custom_id: str
    result: _Result


class AnthropicBatches:
    """Anthropic's Message Batches ("Batch processing" and its reference, November 2026).

    `OpenAIBatches` documents the methods.
    """

    def __init__(self, teacher: Teacher) -> None:
        self._teacher = teacher

    def request(self, part: str, number: int, body: Mapping[str, object]) -> bytes:
        """Return one element of the list. Its id has a part of 46 characters, and may have 64."""
        return json_bytes({"custom_id": f"{part}-{number}", "params": body})

    async def submit(self, part: str, requests: Sequence[bytes]) -> str:
        """Create the batch."""
        data = b'{"requests":[' + b",".join(requests) + b"]}"
        post = self._teacher.client.post
        raw = await self._teacher.create_batch(lambda: post(_PATH, content=data, cast_to=str))
        return msgspec.json.decode(raw, type=_Remote).id

    async def find(
        self, parts: Mapping[str, int], known: Collection[str]
    ) -> tuple[Mapping[str, str], Collection[str]]:
        """Find parts by size and by the ids in their results; without results, they are unsure."""
        names: dict[str, str] = {}
        unsure: set[str] = set()
        after = ""
        while True:
            raw = await self._teacher.get(f"{_PATH}?limit={_PAGE}{after}")
            page = msgspec.json.decode(raw, type=_Page)
            for batch in page.data:
                size = sum(batch.request_counts.values())
                alike = {part for part, rows in parts.items() if rows == size} - names.keys()
                if not alike or batch.id in known or batch.archived_at is not None:
                    continue
                if batch.processing_status != "ended":
                    unsure |= alike
                    continue
                first, _, _ = (await self._teacher.get(_results(batch.id))).partition("\n")
                part = msgspec.json.decode(first, type=_Line).custom_id if first else ""
                if (part := part.rpartition("-")[0]) in alike:
                    names[part] = batch.id
            if not page.has_more or not page.data:
                return names, unsure - names.keys()
            after = f"&after_id={page.data[-1].id}"

    async def status(self, name: str) -> BatchStatus:
        """Return the status of a part. Results are deleted after 29 days."""
        raw = await self._teacher.get(f"{_PATH}/{name}")
        remote = msgspec.json.decode(raw, type=_Remote)
        over = remote.processing_status == "ended"
        gone = remote.archived_at is not None
        return BatchStatus(
            status=remote.processing_status,
            over=over or gone,
            # The URL in the batch is not used, so that the key goes only to the teacher's host.
            files=(_results(name),) if over and not gone else (),
            gone=gone,
        )

    def read_result(self, text: str, body: Mapping[str, object]) -> tuple[int, str | Failure]:
        """Read a line of the results, which come in any order."""
        line = msgspec.json.decode(text, type=_Line)
        number = int(line.custom_id.rpartition("-")[2])
        result = line.result
        if result.type == "succeeded":
            return number, bytes(result.message).decode()
        if result.type != "errored":  # canceled or expired, and not billed
            return number, Failure(reason=f"BATCH_{result.type.upper()}", retry=True)
        problem = result.error.error if result.error else _Problem()
        status = _STATUS.get(problem.type, 500)
        return number, self._teacher.refusal(status, None, problem.message, body)


def _results(name: str) -> str:
    return f"{_PATH}/{name}/results"
