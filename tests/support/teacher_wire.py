"""The replies of the test server, in the form of each provider."""

from __future__ import annotations

from typing import Any


def completion(
    model: str,
    content: str,
    fault: str | None,
    tokens: tuple[int, int],
    top: list[tuple[str, list[tuple[str, float]]]] | None,
) -> dict[str, Any]:
    """Return a chat completion. top: the likeliest tokens at each place, with log-probabilities."""
    refused = fault == "refuse"
    message = {"role": "assistant", "content": None if refused else content,
               "refusal": "I cannot help with that." if refused else None}  # fmt: skip
    choice: dict[str, Any] = {"index": 0, "message": message, "logprobs": None,
                              "finish_reason": "length" if fault == "cut" else "stop"}  # fmt: skip
    if top is not None and fault is None:
        choice["logprobs"] = {"content": [
            {"token": token, "logprob": max(p for _, p in likely), "bytes": None,
             "top_logprobs": [{"token": t, "logprob": p, "bytes": None} for t, p in likely]}
            for token, likely in top]}  # fmt: skip
    usage = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1],
             "total_tokens": sum(tokens)}  # fmt: skip
    return {"id": "chatcmpl-test", "object": "chat.completion", "created": 0, "model": model,
            "choices": [choice], "usage": usage}  # fmt: skip


def message(
    model: str, content: str, fault: str | None, tokens: tuple[int, int], _top: object
) -> dict[str, Any]:
    """Return a message."""
    stop = {"cut": "max_tokens", "refuse": "refusal"}.get(fault or "", "end_turn")
    return {"id": "msg_test", "type": "message", "role": "assistant", "model": model,
            "content": [{"type": "text", "text": content}], "stop_reason": stop,
            "stop_sequence": None,
            "usage": {"input_tokens": tokens[0], "output_tokens": tokens[1]}}  # fmt: skip
