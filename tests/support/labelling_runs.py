"""What the labelling tests share: reviews to label, and a run against the test server."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sentimill_train.labelling.job import LabelJob
from sentimill_train.labelling.pipeline import Labeller
from sentimill_train.labelling.providers.anthropic import AnthropicTeacher
from sentimill_train.labelling.providers.openai import OpenAITeacher
from sentimill_train.labelling.providers.teacher import Teacher
from sentimill_train.labelling.requests.batch_runner import BatchLimits
from sentimill_train.labelling.requests.messages import Failure, Question
from sentimill_train.labelling.requests.rate_limit import CallRates
from sentimill_train.labelling.requests.request_loop import RetryLimits
from sentimill_train.labelling.run_report import Report
from sentimill_train.labelling.token_prices import Quote, price_of
from teacher_server import TeacherServer

PRICE = (1.0, 2.0)
"""Dollars a million tokens, in and out."""

QUICK = RetryLimits(first_wait_s=0.01)


def quote() -> Quote:
    """Return the price that the tests pay."""
    found = price_of("openai", "m", given=PRICE)
    assert found is not None
    return found


def bill(server: TeacherServer) -> float:
    """Return what the server would charge for what it delivered, in dollars."""
    return (server.count.tokens_in * PRICE[0] + server.count.tokens_out * PRICE[1]) / 1e6


def whole_bill(server: TeacherServer) -> float:
    """Return the bill with the replies that never arrived."""
    lost = server.count.lost_in * PRICE[0] + server.count.lost_out * PRICE[1]
    return bill(server) + lost / 1e6


def write_reviews(path: Path, rows: int, *, gold_every: int = 0) -> Path:
    """Write reviews that the test teacher finds clear, some of them with their label."""
    words = (("lovely", "positive"), ("terrible", "negative"), ("plain", "neutral"))
    with path.open("w", encoding="utf-8") as file:
        for n in range(rows):
            word, label = words[n % 3]
            row = {"id": f"r{n}", "text": f"Number {n} was {word} and that is all I can say."}
            if gold_every and n % gold_every == 0:
                row["label"] = label
            file.write(json.dumps(row) + "\n")
    return path


def job_in(folder: Path, rows: int = 12, **changes: Any) -> LabelJob:
    """Return a job on fresh reviews in *folder*."""
    source = write_reviews(folder / "reviews.jsonl", rows, gold_every=changes.pop("gold_every", 0))
    job = LabelJob(
        source=str(source),
        out=folder / "labelled.jsonl",
        store=folder / "answers.sqlite",
        budget=10**13,
        rates=CallRates(concurrency=changes.pop("concurrency", 8)),
        retries=QUICK,
    )
    return replace(job, **changes)


def teacher_of(server: TeacherServer, model: str = "m", timeout_s: float = 20.0) -> OpenAITeacher:
    """Return the real SDK pointed at the test server."""
    return OpenAITeacher(model, url=server.url, key="test", timeout_s=timeout_s)


def claude_of(server: TeacherServer, model: str = "m", timeout_s: float = 20.0) -> AnthropicTeacher:
    """Return Anthropic's SDK pointed at the test server."""
    url = server.url.removesuffix("/v1")
    return AnthropicTeacher(model, url=url, key="test", timeout_s=timeout_s)


async def outcome_of(teacher: Teacher, question: Question) -> str | Failure:
    """Send a question and return the reply, or the failure."""
    try:
        return await teacher.send(question)
    except Failure as failure:
        return failure


def run(
    job: LabelJob,
    server: TeacherServer,
    *,
    models: Sequence[str] = ("m",),
    timeout_s: float = 20.0,
    batch: BatchLimits | None = None,
    provider: str = "openai",
) -> Report:
    """Label, agreeing to any plan."""
    opened = claude_of if provider == "anthropic" else teacher_of
    teachers = [(opened(server, model, timeout_s), quote()) for model in models]
    return Labeller(job, teachers, lambda plan: True, batch=batch).run()


def lines(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
