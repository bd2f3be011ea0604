"""Anthropic's Message Batches for the test server: created, looked at, listed, their results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

_NEVER: Final = "2026-11-25T00:00:00Z"  # a date that nobody reads


@dataclass
class Worked:
    """What became of one request: a message, or the type of an error and its text."""

    message: dict[str, Any] | None
    error: str = "api_error"
    said: str = "something went wrong"


@dataclass
class MessageBatches:
    """The batches of one server.

    work: does one request (its params). expires: whether a request, by its batch and its params,
    is never reached.
    """

    work: Callable[[dict[str, Any]], Worked]
    expires: Callable[[str], bool]
    polls: Callable[[], int]
    requests: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    results: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    archived: set[str] = field(default_factory=set)
    _seen: Counter[str] = field(default_factory=Counter)

    @property
    def waiting(self) -> int:
        """How many requests are in batches that have not ended."""
        return sum(len(r) for name, r in self.requests.items() if name not in self.results)

    def create(self, body: dict[str, Any]) -> dict[str, Any]:
        """Take a batch. Ids are checked as the provider does."""
        ids = [request["custom_id"] for request in body["requests"]]
        assert len(set(ids)) == len(ids)
        assert all(0 < len(name) <= 64 for name in ids)
        name = f"msgbatch_{len(self.requests)}"
        self.requests[name] = body["requests"]
        return self._shown(name)

    def look(self, name: str) -> dict[str, Any]:
        """Return a batch, which ends after some looks."""
        self._seen[name] += 1
        if name not in self.results and self._seen[name] > self.polls():
            found = [self._result(name, request) for request in self.requests[name]]
            self.results[name] = found[::-1]  # in any order, says the provider
        return self._shown(name)

    def page(self, query: str) -> dict[str, Any]:
        """Return two batches a page, the newest first."""
        names = list(self.requests)[::-1]
        after = query.partition("after_id=")[2].partition("&")[0]
        start = names.index(after) + 1 if after else 0
        data = [self.look(name) for name in names[start : start + 2]]
        ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {}
        return {"data": data, "has_more": start + 2 < len(names)} | ends

    def _result(self, batch: str, request: dict[str, Any]) -> dict[str, Any]:
        name = request["custom_id"]
        # Not by its id: a run draws that at random, and a test's faults must not vary.
        if self.expires(f"{batch} {request['params']}"):
            return {"custom_id": name, "result": {"type": "expired"}}
        worked = self.work(request["params"])
        if worked.message is not None:
            result = {"type": "succeeded", "message": worked.message}
        else:
            error = {"type": worked.error, "message": worked.said}
            result = {"type": "errored", "error": {"type": "error", "error": error}}
        return {"custom_id": name, "result": result}

    def _shown(self, name: str) -> dict[str, Any]:
        ended = name in self.results
        kinds = Counter(line["result"]["type"] for line in self.results.get(name, []))
        counts = {kind: kinds[kind] for kind in ("succeeded", "errored", "canceled", "expired")}
        counts["processing"] = 0 if ended else len(self.requests[name])
        return {
            "id": name, "type": "message_batch", "request_counts": counts,
            "processing_status": "ended" if ended else "in_progress",
            "created_at": _NEVER, "expires_at": _NEVER, "ended_at": _NEVER if ended else None,
            "archived_at": _NEVER if name in self.archived else None,
            "results_url": None if name in self.archived or not ended
            else f"https://api.anthropic.com/v1/messages/batches/{name}/results",
        }  # fmt: skip
