"""OpenAI's batch API: a file of requests is uploaded, and a batch is created from it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from sentimill_train.labelling.requests.messages import BatchStatus, Failure, json_bytes

if TYPE_CHECKING:
    from sentimill_train.labelling.providers.teacher import Teacher

_PAGE: Final = 100
_ENDPOINT: Final = "/v1/chat/completions"
_WAIT_CODES: Final = frozenset({"token_limit_exceeded"})  # the queue is full; try again later
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
    """OpenAI's batch API (API reference, "Batch", November 2026). Its calls raise Failure."""

    def __init__(self, teacher: Teacher) -> None:
        self._teacher = teacher
        self._uploaded: dict[str, str] = {}

    def request(self, part: str, number: int, body: Mapping[str, object]) -> bytes:
        """Return a request as an element of a part: here, a line of the file."""
        return json_bytes(
            {"custom_id": str(number), "method": "POST", "url": _ENDPOINT, "body": body}
        )

    async def submit(self, part: str, requests: Sequence[bytes]) -> str:
        """Upload the file once, create a batch from it, and return the provider's name for it.

        After a failure that is `at_risk` the batch may exist nevertheless.
        """
        client = self._teacher.client
        if part not in self._uploaded:
            lines = (f"{part}.jsonl", b"\n".join(requests))
            try:
                file = await self._teacher.attempt(
                    lambda: client.files.create(file=lines, purpose="batch")
                )
            except Failure as failure:
                failure.at_risk = False  # an uploaded file costs nothing
                raise
            self._uploaded[part] = file.id
        body = {
            "input_file_id": self._uploaded[part],
            "endpoint": _ENDPOINT,
            "completion_window": "24h",
            "metadata": {"sentimill_part": part},
        }
        raw = await self._teacher.create_batch(
            lambda: client.post("/batches", body=body, cast_to=str)
        )
        return msgspec.json.decode(raw, type=_Remote).id

    async def find(
        self, parts: Mapping[str, int], known: Collection[str]
    ) -> tuple[Mapping[str, str], Collection[str]]:
        """Return the provider's names of *parts*, and the parts to look for again later.

        parts: their number of requests, by our name. known: the provider's names of other parts.
        Here the metadata has our name, so no part is unsure.
        """
        names: dict[str, str] = {}
        after = ""
        while len(names) < len(parts):
            raw = await self._teacher.get(f"/batches?limit={_PAGE}{after}")
            page = msgspec.json.decode(raw, type=_Page)
            for remote in page.data:
                part = (remote.metadata or {}).get("sentimill_part", "")
                if part in parts:
                    names.setdefault(part, remote.id)
            if not page.has_more or not page.data:
                break
            after = f"&after={page.data[-1].id}"
        return names, ()

    async def status(self, name: str) -> BatchStatus:
        """Return the status of a part. A failed part was refused as a whole."""
        raw = await self._teacher.get(f"/batches/{name}")
        remote = msgspec.json.decode(raw, type=_Remote)
        codes = {error.code for error in (remote.errors and remote.errors.data) or []}
        full = not codes.isdisjoint(_WAIT_CODES)
        files = (remote.output_file_id, remote.error_file_id)
        return BatchStatus(
            status=remote.status,
            over=remote.status in _OVER,
            files=tuple(f"/files/{file}/content" for file in files if file is not None),
            full=remote.status == "failed" and full,
            refused=remote.status == "failed" and not full,
        )

    def read_result(self, text: str, body: Mapping[str, object]) -> tuple[int, str | Failure]:
        """Read a line of results: the number of the request, and the reply or its failure.

        body: that of any request of the part, empty if unknown.
        """
        line = msgspec.json.decode(text, type=_Line)
        number = int(line.custom_id)
        if line.response is None:
            code = (line.error and line.error.code) or "unknown"
            return number, Failure(reason=f"BATCH_{code.upper()}", retry=True)
        if line.response.status_code == 200:
            return number, bytes(line.response.body).decode()
        try:
            error = msgspec.json.decode(line.response.body, type=_Problem).error
        except msgspec.DecodeError:
            error = _Error()
        said = f"{error.param or ''} {error.message or ''}"
        return number, self._teacher.refusal(line.response.status_code, error.code, said, body)
