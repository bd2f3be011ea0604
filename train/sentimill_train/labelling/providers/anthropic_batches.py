"""Anthropic's Message Batches: one request holds all calls of a part.

A batch there keeps no name of ours, so the id of each request holds the part's name. A part that
may have arrived is recognised by its size and, once it has results, by the first of them.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Final

import msgspec

from sentimill_train.labelling.providers.endpoint import Endpoint, perhaps_done
from sentimill_train.labelling.requests.batch_api import BatchResult, BatchStatus, FoundParts
from sentimill_train.labelling.requests.messages import Failure

_PATH: Final = "/v1/messages/batches"
_PAGE: Final = 1000  # the most that the API gives

# The HTTP status that each error has outside of a batch (API, "Errors").
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


class _Counts(msgspec.Struct):
    processing: int = 0
    succeeded: int = 0
    errored: int = 0
    canceled: int = 0
    expired: int = 0

    @property
    def total(self) -> int:
        return self.processing + self.succeeded + self.errored + self.canceled + self.expired


class _Remote(msgspec.Struct):
    id: str
    processing_status: str
    archived_at: str | None = None
    counts: _Counts = msgspec.field(default_factory=_Counts, name="request_counts")


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
    """Anthropic's Message Batches ("Batch processing" and its reference, November 2026)."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def request(self, part: str, number: int, body: Mapping[str, object]) -> bytes:
        """Return an element of the list. Its id has 64 characters at most: 46, a dash, digits."""
        call = {"custom_id": f"{part}-{number}", "params": body}
        return json.dumps(call, ensure_ascii=False).encode("utf-8", "replace")

    async def submit(self, part: str, requests: Sequence[bytes]) -> str | Failure:
        """Create the batch."""
        data = b'{"requests":[' + b",".join(requests) + b"]}"
        raw = await self._endpoint.post_bytes(_PATH, data)
        if isinstance(raw, Failure):
            return perhaps_done(raw)
        return msgspec.json.decode(raw, type=_Remote).id

    async def find(self, parts: Mapping[str, int], known: Collection[str]) -> FoundParts | Failure:
        """Find parts by size and by the ids in their results. Before there are any: unsure."""
        names: dict[str, str] = {}
        unsure: set[str] = set()
        after = ""
        while True:
            raw = await self._endpoint.get(f"{_PATH}?limit={_PAGE}{after}")
            if isinstance(raw, Failure):
                return raw
            page = msgspec.json.decode(raw, type=_Page)
            for batch in page.data:
                alike = {part for part, rows in parts.items() if rows == batch.counts.total}
                alike -= names.keys()
                if not alike or batch.id in known or batch.archived_at is not None:
                    continue
                if batch.processing_status != "ended":
                    unsure |= alike
                    continue
                results = await self.fetch(_results(batch.id))
                if isinstance(results, Failure):
                    return results
                part = _part(results.partition("\n")[0])
                if part in alike:
                    names[part] = batch.id
            if not page.has_more or not page.data:
                return FoundParts(names, unsure - names.keys())
            after = f"&after_id={page.data[-1].id}"

    async def status(self, name: str) -> BatchStatus | Failure:
        """Return the status of a part. Results are deleted after 29 days."""
        raw = await self._endpoint.get(f"{_PATH}/{name}")
        if isinstance(raw, Failure):
            return raw
        remote = msgspec.json.decode(raw, type=_Remote)
        over = remote.processing_status == "ended"
        gone = remote.archived_at is not None
        return BatchStatus(
            status=remote.processing_status,
            over=over or gone,
            # Not the URL that the batch names: the key goes to the teacher's own host only.
            files=(_results(name),) if over and not gone else (),
            gone=gone,
        )

    async def fetch(self, file: str) -> str | Failure:
        """Fetch the results."""
        return await self._endpoint.get(file)

    def read_result(self, text: str, body: Mapping[str, object]) -> BatchResult:
        """Read a line of the results, which come in any order."""
        line = msgspec.json.decode(text, type=_Line)
        number = int(line.custom_id.rpartition("-")[2])
        result = line.result
        if result.type == "succeeded":
            return BatchResult(number, bytes(result.message).decode(), None)
        if result.type != "errored":  # canceled or expired, and not billed
            return BatchResult(
                number, None, Failure(reason=f"BATCH_{result.type.upper()}", retry=True)
            )
        problem = result.error.error if result.error else _Problem()
        status = _STATUS.get(problem.type, 500)
        return BatchResult(
            number, None, self._endpoint.refusal(status, None, problem.message, body)
        )


def _results(name: str) -> str:
    return f"{_PATH}/{name}/results"


def _part(line: str) -> str | None:
    return msgspec.json.decode(line, type=_Line).custom_id.rpartition("-")[0] if line else None
