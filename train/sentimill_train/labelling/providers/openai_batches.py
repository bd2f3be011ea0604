"""OpenAI's batch API: a file of calls is uploaded, then made a batch that carries our own name."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import msgspec

from sentimill_train.labelling.providers.batches import Found, Line, Standing
from sentimill_train.labelling.providers.endpoint import perhaps_done
from sentimill_train.labelling.requests.messages import Failure

if TYPE_CHECKING:
    from sentimill_train.labelling.providers.openai import OpenAITeacher

__all__ = ["OpenAIBatches"]

_PAGE: Final = 100
_ENDPOINT: Final = "/v1/chat/completions"
_WAIT_CODES: Final = frozenset({"token_limit_exceeded"})  # too much enqueued, not a bad request
_OVER: Final = frozenset({"completed", "failed", "expired", "cancelled"})


class _Error(msgspec.Struct):
    code: str | None = None
    param: str | None = None
    message: str | None = None


class _Errors(msgspec.Struct):
    data: list[_Error] | None = None


class _Remote(msgspec.Struct):
    id: str
    status: str
    output_file_id: str | None = None
    error_file_id: str | None = None
    errors: _Errors | None = None
    metadata: dict[str, str] | None = None


class _Page(msgspec.Struct):
    data: list[_Remote]
    has_more: bool = False


class _Response(msgspec.Struct):
    status_code: int
    body: msgspec.Raw = msgspec.Raw(b"null")


class _Line(msgspec.Struct):
    custom_id: str
    response: _Response | None = None
    error: _Error | None = None


class _Problem(msgspec.Struct):
    error: _Error


class OpenAIBatches:
    """The batch API behind a teacher (API reference, "Batch", November 2026)."""

    def __init__(self, teacher: OpenAITeacher) -> None:
        self._teacher = teacher
        self._uploaded: dict[str, str] = {}

    def request(self, part: str, number: int, body: Mapping[str, object]) -> bytes:
        """Return a line of the file."""
        call = {"custom_id": str(number), "method": "POST", "url": _ENDPOINT, "body": body}
        return json.dumps(call, ensure_ascii=False).encode("utf-8", "replace")

    async def hand_over(self, part: str, requests: Sequence[bytes]) -> str | Failure:
        """Upload the file, once, and make it a batch."""
        if part not in self._uploaded:
            file = await self._teacher.upload(f"{part}.jsonl", b"\n".join(requests))
            if isinstance(file, Failure):
                return replace(file, at_risk=False)  # a file alone costs nothing
            self._uploaded[part] = file
        body = {
            "input_file_id": self._uploaded[part],
            "endpoint": _ENDPOINT,
            "completion_window": "24h",
            "metadata": {"sentimill_part": part},
        }
        raw = await self._teacher.post("/batches", body)
        if isinstance(raw, Failure):
            return perhaps_done(raw)
        return msgspec.json.decode(raw, type=_Remote).id

    async def find(self, parts: Mapping[str, int], known: Collection[str]) -> Found | Failure:
        """Find parts by the name that they carry."""
        names: dict[str, str] = {}
        after = ""
        while len(names) < len(parts):
            raw = await self._teacher.get(f"/batches?limit={_PAGE}{after}")
            if isinstance(raw, Failure):
                return raw
            page = msgspec.json.decode(raw, type=_Page)
            for remote in page.data:
                part = (remote.metadata or {}).get("sentimill_part", "")
                if part in parts:
                    names.setdefault(part, remote.id)
            if not page.has_more or not page.data:
                break
            after = f"&after={page.data[-1].id}"
        return Found(names)

    async def look(self, name: str) -> Standing | Failure:
        """Ask after a part. One that failed was turned away whole."""
        raw = await self._teacher.get(f"/batches/{name}")
        if isinstance(raw, Failure):
            return raw
        remote = msgspec.json.decode(raw, type=_Remote)
        codes = {error.code for error in (remote.errors and remote.errors.data) or []}
        full = not codes.isdisjoint(_WAIT_CODES)
        files = (remote.output_file_id, remote.error_file_id)
        return Standing(
            status=remote.status,
            over=remote.status in _OVER,
            files=tuple(f"/files/{file}/content" for file in files if file is not None),
            full=remote.status == "failed" and full,
            refused=remote.status == "failed" and not full,
        )

    async def fetch(self, file: str) -> str | Failure:
        """Fetch the file of the replies, or that of the errors."""
        return await self._teacher.get(file)

    def read_line(self, text: str, body: Mapping[str, object]) -> Line:
        """Open a line of either file."""
        line = msgspec.json.decode(text, type=_Line)
        number = int(line.custom_id)
        if line.response is None:
            code = (line.error and line.error.code) or "unknown"
            return Line(number, None, Failure(reason=f"BATCH_{code.upper()}", retry=True))
        if line.response.status_code == 200:
            return Line(number, bytes(line.response.body).decode(), None)
        try:
            error = msgspec.json.decode(line.response.body, type=_Problem).error
        except msgspec.DecodeError:
            error = _Error()
        said = f"{error.param or ''} {error.message or ''}"
        failure = self._teacher.refusal(line.response.status_code, error.code, said, body)
        return Line(number, None, failure)
