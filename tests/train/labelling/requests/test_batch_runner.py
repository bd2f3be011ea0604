"""The batch API: parts, polling, partial failures, and runs that end in between."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from anthropic_batch_api import Worked
from labelling_runs import PRICE, bill, claude_of, job_in, lines, quote, run, teacher_of
from repository import SUPPORT
from sentimill.errors import SomeRowsFailed, UnavailableError, UsageError
from sentimill_train.labelling.job import LabelJob, failed_path, report_path
from sentimill_train.labelling.pipeline import Labeller
from sentimill_train.labelling.requests import batch_runner as batching
from sentimill_train.labelling.requests.batch_runner import BatchLimits, BatchRunner
from sentimill_train.labelling.requests.budget import PICO, Budget
from sentimill_train.labelling.requests.messages import Key
from sentimill_train.labelling.requests.response_cache import Batch, ResponseCache
from teacher_server import Behaviour, TeacherServer, teacher_server

QUICK = BatchLimits(poll_s=0.01)
CREATE = {"openai": "POST /v1/batches", "anthropic": "POST /v1/messages/batches"}

REASONS = {
    "openai": {"TRUNCATED", "MALFORMED", "HTTP_500", "BATCH_BATCH_EXPIRED"},
    "anthropic": {"TRUNCATED", "MALFORMED", "HTTP_529", "BATCH_EXPIRED"},
}

both = pytest.mark.parametrize("provider", list(CREATE))


def test_parts_are_submitted_polled_and_collected(tmp_path: Path) -> None:
    """Twelve rows in parts of five; only the first question, about log-probabilities, is live."""
    job = job_in(tmp_path, rows=12)
    with teacher_server(Behaviour(batch_polls=2)) as server:
        report = run(job, server, batch=replace(QUICK, rows=5))

    assert report.labelled == 12
    assert server.count.paths["POST /v1/batches"] == 3
    assert server.count.paths["POST /v1/chat/completions"] == 1
    assert report.spent_usd == pytest.approx(bill(server), abs=1e-12)


def test_nothing_is_asked_live_where_nothing_is_to_be_found_out(tmp_path: Path) -> None:
    """Anthropic has no log-probabilities, so every question goes into a part, and is paid half."""
    job = job_in(tmp_path, rows=12)
    with teacher_server(Behaviour(batch_polls=2)) as server:
        report = run(job, server, batch=replace(QUICK, rows=5), provider="anthropic")

    assert report.labelled == 12
    assert server.count.paths[CREATE["anthropic"]] == 3
    assert server.count.paths["POST /v1/messages"] == 0
    assert set(server.count.asked.values()) == {1}
    assert report.spent_usd == pytest.approx(bill(server), abs=1e-12)


def test_part_stays_below_the_size_limit(tmp_path: Path) -> None:
    """A part is cut before it grows too large for the provider."""
    job = job_in(tmp_path, rows=12)
    with teacher_server() as server:
        run(job, server, batch=replace(QUICK, size_bytes=9000))

    assert server.count.paths["POST /v1/batches"] > 2
    assert all(len(data) <= 9000 for data in server.uploads)


@both
def test_lines_that_failed_are_asked_again(tmp_path: Path, provider: str) -> None:
    """Expired lines, errors and bad answers go into a later part, and cost what they cost."""
    job = job_in(tmp_path, rows=80, soft="stated")
    behaviour = Behaviour(
        faults={"500": 0.1, "cut": 0.1, "malformed": 0.1}, most_faults=2, batch_lost=0.1
    )
    with teacher_server(behaviour) as server:
        try:
            run(job, server, batch=QUICK, provider=provider)
            failed = 0
        except SomeRowsFailed:
            failed = len(lines(failed_path(job.out)))
    report = json.loads(report_path(job.out).read_text())

    assert len(lines(job.out)) + failed == 80
    assert failed < 8
    assert server.count.paths[CREATE[provider]] > 1
    assert {"TRUNCATED", "MALFORMED", "BATCH_EXPIRED", "BATCH_BATCH_EXPIRED"} & set(
        report["faults"]
    )
    assert report["spent_usd"] == pytest.approx(bill(server), abs=1e-12)
    assert max(server.count.good.values()) == 1


@both
def test_stopped_run_is_collected_by_the_next(tmp_path: Path, provider: str) -> None:
    """The provider keeps the part; nothing is submitted twice."""
    job = job_in(tmp_path, rows=10, soft="stated")
    with teacher_server(Behaviour(batch_polls=3)) as server:
        with pytest.raises(SomeRowsFailed, match="interrupted"):
            _interrupted(job, server, provider)
        report = run(job, server, batch=QUICK, provider=provider)

    assert report.labelled == 10
    assert server.count.paths[CREATE[provider]] == 1
    assert set(server.count.asked.values()) == {1}


@both
@pytest.mark.parametrize("moment", [1, 2])
def test_killed_run_is_collected_by_the_next(tmp_path: Path, provider: str, moment: int) -> None:
    """SIGKILL while the part is handed over, so that its name is never heard, or after."""
    job = job_in(tmp_path, rows=6, soft="stated")
    start = {"openai": 1, "anthropic": 0}[provider]  # there a file is uploaded before
    with teacher_server(Behaviour(batch_polls=2)) as server:
        process = _start(job, server, provider)
        server.behaviour.on_call = lambda call: process.kill() if call == start + moment else None
        assert process.wait() == -signal.SIGKILL
        server.behaviour.on_call = None
        report = run(job, server, batch=QUICK, provider=provider)

    assert report.labelled == 6
    assert server.count.paths[CREATE[provider]] == 1
    assert set(server.count.asked.values()) == {1}
    assert report.spent_usd == pytest.approx(bill(server), abs=1e-12)


def _start(job: LabelJob, server: TeacherServer, provider: str) -> subprocess.Popen[bytes]:
    url = server.url.removesuffix("/v1") if provider == "anthropic" else server.url
    program = SUPPORT / "label_process.py"
    command = [sys.executable, str(program), "label", job.source, str(job.out)]
    command += ["--teacher", f"{provider}:m", "--base-url", url, "--budget", "10", "--yes"]
    command += ["--price-in", str(PRICE[0]), "--price-out", str(PRICE[1])]
    command += ["--soft", "stated", "--batch", "--poll-s", "0.01", "--store", str(job.store)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@both
def test_part_whose_reply_was_lost_is_found_in_the_same_run(tmp_path: Path, provider: str) -> None:
    """A cut connection, or a 502, while handing over: the part is looked for, not sent again."""
    job = job_in(tmp_path, rows=6, soft="stated")
    with teacher_server(Behaviour(batch_drops=2, batch_polls=2)) as server:
        report = run(job, server, batch=replace(QUICK, rows=4), provider=provider)

    assert report.labelled == 6
    assert server.count.paths[CREATE[provider]] == 2
    assert report.spent_usd == pytest.approx(bill(server), abs=1e-12)


@both
def test_part_that_never_arrived_is_released(tmp_path: Path, provider: str) -> None:
    """Its money is free again and its questions are asked anew."""
    job = job_in(tmp_path, rows=6, soft="stated")
    with teacher_server() as server:
        store = ResponseCache(job.store)
        name = (claude_of if provider == "anthropic" else teacher_of)(server).name

        async def die_early() -> None:
            calls = [(store.number(), Key(name, "p", "t", 0), 10**12)]
            await store.begin_all(calls, Batch("sentimill-lost", name, None))

        asyncio.run(die_early())
        store.close()
        report = run(replace(job, budget=PICO), server, batch=QUICK, provider=provider)

    assert report.labelled == 6
    assert report.spent_usd == pytest.approx(bill(server), abs=1e-12)


def _interrupted(job: LabelJob, server: TeacherServer, provider: str) -> None:
    """Hand a part over and stop before it is collected, as Ctrl-C would."""

    async def stop(self: BatchRunner, parts: list[Batch]) -> list[Batch]:
        self.stop("INTERRUPTED")
        return parts

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BatchRunner, "_poll", stop)
        run(job, server, batch=QUICK, provider=provider)


def test_open_parts_of_the_second_teacher_are_reserved_once(tmp_path: Path) -> None:
    """Each teacher has its own runner, and the budget is that of both."""
    job = job_in(tmp_path, rows=6, soft="stated")
    budgets: list[Budget] = []
    with teacher_server(Behaviour(batch_polls=2)) as server:
        with pytest.raises(SomeRowsFailed, match="interrupted"):
            _interrupted(job, server, "openai")
        teachers = [(teacher_of(server, model), quote()) for model in ("first", "m")]
        Labeller(
            job,
            teachers,
            lambda plan: True,
            lambda done, total, tally, budget: budgets.append(budget),
            batch=QUICK,
        ).run()

    assert len(lines(job.out)) == 6
    assert budgets[-1].reserved == 0


@both
def test_budget_bounds_a_part(tmp_path: Path, provider: str) -> None:
    """No part reserves more than there is; what settles for less pays for the next."""
    job = job_in(tmp_path, rows=40, budget=int(0.006 * PICO), soft="stated")
    with teacher_server() as server, pytest.raises(SomeRowsFailed, match="larger --budget"):
        run(job, server, batch=QUICK, provider=provider)

    assert 0 < len(lines(job.out)) < 40
    assert (server.count.tokens_in * PRICE[0] + server.count.tokens_out * PRICE[1]) / 1e6 <= 0.006
    assert server.count.paths[CREATE[provider]] > 1


def test_refused_part_ends_the_run(tmp_path: Path) -> None:
    """A file that the provider does not take is no better the second time."""
    job = job_in(tmp_path, rows=4)
    behaviour = Behaviour(batch_status="failed", code="invalid_json_line")
    with teacher_server(behaviour) as server, pytest.raises(UnavailableError, match="REFUSED"):
        run(job, server, batch=QUICK)

    assert server.count.paths["POST /v1/batches"] == 1


@pytest.mark.parametrize("queue", [1, 7, 12])
def test_full_queue_of_the_provider_is_waited_for(tmp_path: Path, queue: int) -> None:
    """Parts that it has no room for yet come again, smaller if need be, and no row is given up."""
    job = job_in(tmp_path, rows=30)
    with teacher_server(Behaviour(batch_queue=queue, batch_polls=2)) as server:
        report = run(job, server, batch=replace(QUICK, rows=10))

    assert report.labelled == 30
    assert report.spent_usd == pytest.approx(bill(server), abs=1e-12)


def test_part_too_large_for_an_empty_queue_ends_the_run(tmp_path: Path) -> None:
    """A provider with no room for a single row will not find it by waiting."""
    job = job_in(tmp_path, rows=4)
    with (
        teacher_server(Behaviour(batch_queue=0)) as server,
        pytest.raises(UnavailableError, match="REFUSED"),
    ):
        run(job, server, batch=QUICK)

    assert server.count.paths["POST /v1/batches"] == 2  # of three rows, then of one


@pytest.mark.parametrize("queue", [0, 7])
def test_full_queue_at_anthropic_is_a_429(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, queue: int
) -> None:
    """It is waited for, with smaller parts; with no room for one row the run ends."""
    monkeypatch.setattr(batching, "backoff_s", lambda attempt: 0.0)
    job = job_in(tmp_path, rows=12, soft="stated")
    behaviour = Behaviour(batch_queue=queue, retry_after={})
    with teacher_server(behaviour) as server:
        if queue == 0:
            with pytest.raises(UnavailableError, match="REFUSED"):
                run(job, server, batch=QUICK, provider="anthropic")
        else:
            report = run(job, server, batch=QUICK, provider="anthropic")

            assert report.labelled == 12
            assert max(map(len, server.messages.requests.values())) == 6


@both
def test_fields_that_a_model_rejects_are_given_up_in_a_part(tmp_path: Path, provider: str) -> None:
    """Every call of a part complains, the next part leaves the field out, no row is given up."""
    job = job_in(tmp_path, rows=5, soft="stated")
    with teacher_server(Behaviour(unknown=frozenset({"temperature"}))) as server:
        report = run(job, server, batch=QUICK, provider=provider)

    assert report.labelled == 5
    assert server.count.paths[CREATE[provider]] == 2


def test_wrong_key_or_model_ends_the_run(tmp_path: Path) -> None:
    """An error that no call can escape is not met part after part."""
    job = job_in(tmp_path, rows=9, soft="stated")
    with teacher_server() as server:
        server.messages.work = lambda request: Worked(None, "not_found_error", "model: m")
        with pytest.raises(UsageError, match="HTTP_404"):
            run(job, server, batch=replace(QUICK, rows=2, parts_at_once=1), provider="anthropic")

    assert server.count.paths[CREATE["anthropic"]] == 1


def test_part_is_told_from_others_of_its_size(tmp_path: Path) -> None:
    """Anthropic's list names no owner: the ids in the results do, once there are results."""
    job = job_in(tmp_path, rows=6, soft="stated")
    with teacher_server(Behaviour(batch_polls=3)) as server:
        with pytest.raises(SomeRowsFailed):
            _interrupted(job, server, "anthropic")
        _forget_names(job)
        (ours,) = server.messages.requests.values()
        for n in range(4):  # newer than ours, two of them of its size, on several pages
            calls = [
                {"custom_id": f"other{n}-{i}", "params": c["params"]} for i, c in enumerate(ours)
            ]
            server.messages.create({"requests": calls[: len(calls) - n % 2]})
        report = run(job, server, batch=QUICK, provider="anthropic")

    assert report.labelled == 6
    assert server.count.paths[CREATE["anthropic"]] == 1
    assert report.spent_usd == pytest.approx(bill(server) / 5, rel=0.2)  # ours, not the others


def test_results_that_are_gone_count_at_their_worst(tmp_path: Path) -> None:
    """Anthropic deletes them after 29 days: the money is spent, and the rows are asked again."""
    job = job_in(tmp_path, rows=6, soft="stated")
    with teacher_server() as server:
        with pytest.raises(SomeRowsFailed):
            _interrupted(job, server, "anthropic")
        first = next(iter(server.messages.requests))
        server.messages.look(first)
        server.messages.look(first)
        server.messages.archived.add(first)
        report = run(job, server, batch=QUICK, provider="anthropic")

    assert report.labelled == 6
    assert server.count.paths[CREATE["anthropic"]] == 2
    assert report.spent_usd + report.at_risk_usd >= bill(server)


def _forget_names(job: LabelJob) -> None:
    """As if the run had died before it could write what the provider calls its parts."""
    store = ResponseCache(job.store)
    with store._write:
        store._write.execute("UPDATE batch SET remote = NULL")
    store.close()
