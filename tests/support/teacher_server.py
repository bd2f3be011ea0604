"""A small OpenAI-compatible server: the real wire format, for the real SDK, with faults on demand.

It runs on a thread of its own, on a port that the system picks, and counts what it delivers, which
is what the provider's bill would say. Speaks chat completions, files and batches as OpenAI does,
messages and their batches as Anthropic does.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from anthropic_batch_api import MessageBatches, Worked
from teacher_mind import annotator, review_of
from teacher_wire import completion, message

KINDS: Final = ("429", "500", "timeout", "cut", "refuse", "empty", "malformed", "drop")


@dataclass
class Behaviour:
    """How the server behaves. faults: share of calls a kind, of `KINDS`.

    most_faults: how many calls about one text may go wrong before it is answered well. hopeless:
    share of texts that are refused for ever. unknown: request fields that it rejects with a 400.
    status: an HTTP status for every call. tokens_per_byte: 0.25 is what English takes.
    batch_queue: how many rows the batches in progress may have together. batch_drops: how many
    batches are taken without the caller hearing of it, the last by a 502. on_call: told the number
    of each call when it arrives.
    """

    faults: dict[str, float] = field(default_factory=dict)
    most_faults: int = 1_000_000
    hopeless: float = 0.0
    unknown: frozenset[str] = frozenset()
    status: int | None = None
    code: str | None = None
    gullible: bool = False
    logprobs: bool = True
    latency_s: float = 0.0
    hang_s: float = 30.0
    retry_after: dict[str, str] = field(default_factory=lambda: {"retry-after-ms": "20"})
    tokens_per_byte: float = 0.25
    batch_polls: int = 1
    batch_lost: float = 0.0
    batch_status: str = "completed"
    batch_queue: int | None = None
    batch_drops: int = 0
    on_call: Callable[[int], None] | None = None


@dataclass
class Count:
    """What the server's bill would say. delivered: replies; asked: calls by text."""

    calls: int = 0
    delivered: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    lost_in: int = 0
    lost_out: int = 0
    most_at_once: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)
    good: Counter[str] = field(default_factory=Counter)
    paths: Counter[str] = field(default_factory=Counter)
    bodies: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class _Answer:
    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    fault: str | None = None
    tokens: tuple[int, int] = (0, 0)
    text: str = ""


class TeacherServer:
    """A running server. `url` is what `--base-url` takes."""

    def __init__(self, behaviour: Behaviour | None = None, *, keep_bodies: bool = False) -> None:
        self.behaviour = behaviour or Behaviour()
        self.count = Count()
        self.port = 0
        self.uploads: list[bytes] = []
        self._keep_bodies = keep_bodies
        self._at_once = 0
        self._files: dict[str, bytes] = {}
        self._batches: dict[str, dict[str, Any]] = {}
        self._polls: Counter[str] = Counter()
        self.messages = MessageBatches(
            self._work_message,
            lambda request: _draw(f"lost {request}") < self.behaviour.batch_lost,
            lambda: self.behaviour.batch_polls,
        )
        self._loop: asyncio.AbstractEventLoop
        self._server: asyncio.Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """The base URL in OpenAI's form."""
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> TeacherServer:
        """Listen; the same port again after a `stop`."""
        ready = threading.Event()
        self._loop = asyncio.new_event_loop()

        def serve() -> None:
            asyncio.set_event_loop(self._loop)
            self._server = self._loop.run_until_complete(
                asyncio.start_server(self._connection, "127.0.0.1", self.port)
            )
            self.port = self._server.sockets[0].getsockname()[1]
            ready.set()
            self._loop.run_forever()

        self._thread = threading.Thread(target=serve, daemon=True)
        self._thread.start()
        ready.wait(10)
        return self

    def stop(self) -> None:
        """Stop listening and cut every connection."""

        async def close() -> None:
            assert self._server is not None
            self._server.close()
            for task in asyncio.all_tasks(self._loop):
                if task is not asyncio.current_task():
                    task.cancel()
            await asyncio.sleep(0)

        asyncio.run_coroutine_threadsafe(close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        assert self._thread is not None
        self._thread.join(10)
        self._loop.close()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(
            ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError, RuntimeError
        ):
            while await self._exchange(reader, writer):
                pass
        with contextlib.suppress(RuntimeError):
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        method, path, _ = head.split("\r\n", 1)[0].split(" ")
        size = re.search(r"(?i)content-length: (\d+)", head)
        body = await reader.readexactly(int(size[1])) if size else b""
        self._at_once += 1
        self.count.most_at_once = max(self.count.most_at_once, self._at_once)
        try:
            answer = self._answer(method, path, body)
            if self.behaviour.latency_s and answer.fault is None:
                await asyncio.sleep(self.behaviour.latency_s)
            if answer.fault == "timeout":
                self._lose(answer)
                await asyncio.sleep(self.behaviour.hang_s)
                return False
        finally:
            self._at_once -= 1
        data = _http(answer)
        if answer.fault == "drop":
            self._lose(answer)
            writer.write(data[: len(data) - len(answer.body) // 2])
            await writer.drain()
            return False
        writer.write(data)
        await writer.drain()
        self._book(answer)
        return True

    def _book(self, answer: _Answer) -> None:
        if answer.tokens != (0, 0):
            self.count.delivered += 1
            self.count.tokens_in += answer.tokens[0]
            self.count.tokens_out += answer.tokens[1]
        if answer.tokens != (0, 0) and answer.fault is None:
            self.count.good[answer.text] += 1

    def _lose(self, answer: _Answer) -> None:
        self.count.lost_in += answer.tokens[0]
        self.count.lost_out += answer.tokens[1]

    def _answer(self, method: str, path: str, body: bytes) -> _Answer:
        self.count.calls += 1
        if self.behaviour.on_call is not None:
            self.behaviour.on_call(self.count.calls)
        path, _, query = path.partition("?")
        self.count.paths[f"{method} {re.sub('/(batch_|file-|msgbatch_).*', '', path)}"] += 1
        if self.behaviour.status is not None:
            return _problem(self.behaviour.status, self.behaviour.code, self.behaviour)
        if path in ("/v1/chat/completions", "/v1/messages"):
            return self._complete(json.loads(body), anthropic=path.endswith("messages"))
        if path == "/v1/files" and method == "POST":
            return self._upload(body)
        if path.startswith("/v1/files/"):
            return _Answer(200, self._files[path.split("/")[3]])
        if path == "/v1/batches" and method == "POST":
            return self._unheard(self._create_batch(json.loads(body)))
        if path.startswith("/v1/messages/batches"):
            return self._message_batches(method, path.split("/")[4:], query, body)
        if path == "/v1/batches":
            return _json(
                {"object": "list", "data": list(self._batches.values()), "has_more": False}
            )
        if path.startswith("/v1/batches/"):
            return _json(self._look_at(path.split("/")[3]))
        return _problem(404, None, self.behaviour)

    def _message_batches(self, method: str, rest: list[str], query: str, body: bytes) -> _Answer:
        if method == "POST":
            request = json.loads(body)
            rows = self.messages.waiting + len(request["requests"])
            if self.behaviour.batch_queue is not None and rows > self.behaviour.batch_queue:
                return _problem(429, None, self.behaviour)
            return self._unheard(_json(self.messages.create(request)))
        if not rest:
            return _json(self.messages.page(query))
        if len(rest) == 1:
            return _json(self.messages.look(rest[0]))
        lines = [json.dumps(line, ensure_ascii=False) for line in self.messages.results[rest[0]]]
        return _Answer(200, ("\n".join(lines) + "\n").encode())

    def _unheard(self, answer: _Answer) -> _Answer:
        if self.behaviour.batch_drops:
            self.behaviour.batch_drops -= 1
            if not self.behaviour.batch_drops:
                return _problem(502, None, self.behaviour)
            answer.fault = "drop"
        return answer

    def _work_message(self, request: dict[str, Any]) -> Worked:
        answer = self._complete(request, anthropic=True, in_batch=True)
        if answer.status == 400:
            said = json.loads(answer.body)["error"]["message"]
            return Worked(None, "invalid_request_error", said)
        if answer.fault in ("429", "500", "timeout", "drop"):
            return Worked(None, "overloaded_error")
        self._book(answer)
        return Worked(json.loads(answer.body))

    def _complete(
        self, request: dict[str, Any], *, anthropic: bool = False, in_batch: bool = False
    ) -> _Answer:
        if self._keep_bodies:
            self.count.bodies.append(request)
        named = sorted(self.behaviour.unknown & set(request))
        if named:
            return _problem(400, "unsupported_parameter", self.behaviour, param=named[0])
        user = next(m["content"] for m in request["messages"] if m["role"] == "user")
        text = review_of(user)
        self.count.asked[text] += 1
        fault = self._fault(text, self.count.asked[text])
        if fault is not None:
            self.count.faults[fault] += 1
        if fault in ("429", "500") and not in_batch:
            return _problem(int(fault), None, self.behaviour, fault=fault)
        schema = json.dumps(request.get("response_format") or request.get("output_config") or "")
        asks_label = '"label"' in (schema if schema != '""' else user.rsplit("</review", 1)[-1])
        said = annotator(user, stated=not asks_label, gullible=self.behaviour.gullible)
        content = {"empty": "", "malformed": '{"label": \u2028', "cut": said.content[:5]}.get(
            fault or "", said.content
        )
        system = request.get("system") or request["messages"][0]["content"]
        tokens_in = round(self.behaviour.tokens_per_byte * len((system + user).encode())) + 10
        tokens = (tokens_in, max(1, len(content) // 4))
        shape = message if anthropic else completion
        wanted = bool(request.get("logprobs")) and self.behaviour.logprobs
        reply = shape(request["model"], content, fault, tokens, said.tokens if wanted else None)
        return _Answer(200, json.dumps(reply).encode(), {}, fault, tokens, text)

    def _fault(self, text: str, attempt: int) -> str | None:
        if _draw(f"hopeless {text}") < self.behaviour.hopeless:
            return "refuse"
        if attempt > self.behaviour.most_faults:
            return None
        point = _draw(f"{attempt} {text}")
        for kind, share in self.behaviour.faults.items():
            if point < share:
                return kind
            point -= share
        return None

    def _upload(self, body: bytes) -> _Answer:
        content = body.split(b"application/", 1)[-1].split(b"\r\n\r\n", 1)
        part = next(p for p in body.split(b"\r\n\r\n") if p.lstrip().startswith(b"{"))
        data = part.rsplit(b"\r\n--", 1)[0] if content else part
        name = f"file-{len(self._files)}"
        self._files[name] = data
        self.uploads.append(data)
        kind = {"object": "file", "purpose": "batch", "status": "processed"}
        return _json({"id": name, "bytes": len(data), "created_at": 0, "filename": "p"} | kind)

    def _create_batch(self, request: dict[str, Any]) -> _Answer:
        name = f"batch_{len(self._batches)}"
        self._batches[name] = {
            "id": name, "object": "batch", "endpoint": request["endpoint"], "created_at": 0,
            "completion_window": "24h", "input_file_id": request["input_file_id"],
            "metadata": request.get("metadata"), "status": "in_progress",
        }  # fmt: skip
        waiting = [b for b in self._batches.values() if b["status"] == "in_progress"]
        rows = sum(self._files[b["input_file_id"]].count(b"\n") + 1 for b in waiting)
        if self.behaviour.batch_queue is not None and rows > self.behaviour.batch_queue:
            errors = {"object": "list", "data": [{"code": "token_limit_exceeded"}]}
            self._batches[name] |= {"status": "failed", "errors": errors}
        return _json(self._batches[name])

    def _look_at(self, name: str) -> dict[str, Any]:
        batch = self._batches[name]
        self._polls[name] += 1
        if batch["status"] == "in_progress" and self._polls[name] > self.behaviour.batch_polls:
            self._work_off(batch)
        return batch

    def _work_off(self, batch: dict[str, Any]) -> None:
        good: list[str] = []
        bad: list[str] = []
        batch["status"] = self.behaviour.batch_status
        if self.behaviour.batch_status == "failed":
            batch["errors"] = {"object": "list", "data": [{"code": self.behaviour.code}]}
            return
        for line in self._files[batch["input_file_id"]].splitlines():
            request = json.loads(line)
            if _draw(f"lost {batch['id']} {line!r}") < self.behaviour.batch_lost:
                error = {"code": "batch_expired", "message": "not done in time"}
                bad.append(json.dumps({"custom_id": request["custom_id"], "error": error}))
                continue
            answer = self._complete(request["body"], in_batch=True)
            broken = answer.status != 200 or answer.fault in ("429", "500", "timeout", "drop")
            status = 500 if broken and answer.status == 200 else answer.status
            response = {"status_code": status, "request_id": "r",
                        "body": json.loads(answer.body)}  # fmt: skip
            line_out = {"id": "l", "custom_id": request["custom_id"], "response": response}
            (bad if broken else good).append(json.dumps(line_out))
            if not broken:
                self._book(answer)
        for field_name, lines in (("output_file_id", good), ("error_file_id", bad)):
            if lines:
                batch[field_name] = f"file-{len(self._files)}"
                self._files[batch[field_name]] = "\n".join(lines).encode()


def _draw(seed: str) -> float:
    return int.from_bytes(hashlib.sha256(seed.encode("utf-8", "replace")).digest()[:7]) / 2**56


def _problem(
    status: int,
    code: str | None,
    behaviour: Behaviour,
    *,
    param: str | None = None,
    fault: str | None = None,
) -> _Answer:
    said = f"Unsupported parameter: {param}" if param else "something went wrong"
    error = {"message": said, "type": "error", "param": param, "code": code}
    headers = behaviour.retry_after if status == 429 else {}
    return _Answer(status, json.dumps({"error": error}).encode(), headers, fault)


def _json(value: dict[str, Any]) -> _Answer:
    return _Answer(200, json.dumps(value).encode())


def _http(answer: _Answer) -> bytes:
    head = [f"HTTP/1.1 {answer.status} X", "content-type: application/json"]
    head += [f"{name}: {value}" for name, value in answer.headers.items()]
    head += [f"content-length: {len(answer.body)}", "", ""]
    return "\r\n".join(head).encode() + answer.body


@contextlib.contextmanager
def teacher_server(
    behaviour: Behaviour | None = None, *, keep_bodies: bool = False, port: int = 0
) -> Iterator[TeacherServer]:
    """Run a server for the length of a block, on a free port or on one that was free just now."""
    server = TeacherServer(behaviour, keep_bodies=keep_bodies)
    server.port = port
    server.start()
    try:
        yield server
    finally:
        server.stop()
