"""The batch API: parts, polling, partial failures, and runs that end in between."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from labelling import PRICE, bill, job_in, lines, quote, run, teacher_of
from sentimill.errors import SomeRowsFailed, UnavailableError, UsageError
from sentimill_train.label import Labeller, Watch
from sentimill_train.survey import LabelJob, failed_path
from sentimill_train.teacher.batch import BatchAsker, BatchLimits
from sentimill_train.teacher.budget import PICO
from sentimill_train.teacher.claude import ClaudeTeacher
from sentimill_train.teacher.question import Key
from sentimill_train.teacher.store import Batch, Store
from teacher_server import Behaviour, TeacherServer, teacher_server

QUICK = BatchLimits(poll_s=0.01)


def test_parts_are_submitted_polled_and_collected(tmp_path: Path) -> None:
    """Twelve rows in parts of five; only the first question, about log-probabilities, is live."""
    job = job_in(tmp_path, rows=12)
    with teacher_server(Behaviour(batch_polls=2)) as server:
        report = run(job, server, batch=replace(QUICK, rows=5))

    assert report.labelled == 12
    assert server.count.paths["POST /v1/batches"] == 3
    assert server.count.paths["POST /v1/chat/completions"] == 1
    assert report.spent_usd == pytest.approx(bill(server), abs=1e-12)


def test_part_stays_below_the_size_limit(tmp_path: Path) -> None:
    """A part is cut before it grows too large for the provider."""
    job = job_in(tmp_path, rows=12)
    with teacher_server() as server:
        run(job, server, batch=replace(QUICK, size_bytes=9000))

    assert server.count.paths["POST /v1/batches"] > 2
    assert all(len(data) <= 9000 for data in server.uploads)


def test_lines_that_failed_are_asked_again(tmp_path: Path) -> None:
    """Expired lines, errors and bad answers go into a later part, and cost what they cost."""
    job = job_in(tmp_path, rows=80)
    behaviour = Behaviour(
        faults={"500": 0.1, "cut": 0.1, "malformed": 0.1}, most_faults=2, batch_lost=0.1
    )
    with teacher_server(behaviour) as server:
        server.behaviour.faults = {}
        run(replace(job, source=str(_one(job.source))), server)
        server.behaviour.faults = {"500": 0.1, "cut": 0.1, "malformed": 0.1}
        try:
            report = run(job, server, batch=QUICK)
            failed = 0
        except SomeRowsFailed:
            failed = len(lines(failed_path(job.out)))
            report = None

    assert len(lines(job.out)) + failed == 80
    assert failed < 5
    assert server.count.paths["POST /v1/batches"] > 1
    assert report is None or report.spent_usd == pytest.approx(bill(server), abs=1e-12)


def _one(source: str) -> Path:
    path = Path(source).with_name("one.jsonl")
    path.write_text(Path(source).read_text().splitlines(keepends=True)[0])
    return path


def test_stopped_run_is_collected_by_the_next(tmp_path: Path) -> None:
    """The provider keeps the part; nothing is submitted twice."""
    job = job_in(tmp_path, rows=10)
    with teacher_server(Behaviour(batch_polls=3)) as server:
        with pytest.raises(SomeRowsFailed, match="interrupted"):
            _interrupted(job, server)
        report = run(job, server, batch=QUICK)

    assert report.labelled == 10
    assert server.count.paths["POST /v1/batches"] == 1


def test_part_whose_name_was_never_written_is_found_again(tmp_path: Path) -> None:
    """A run that died between handing over and writing the name: the part carries our own."""
    job = job_in(tmp_path, rows=6)
    with teacher_server() as server:
        with pytest.raises(SomeRowsFailed):
            _interrupted(job, server)
        store = Store(job.store)
        with store._write:
            store._write.execute("UPDATE batch SET remote = NULL")
        store.close()
        report = run(job, server, batch=QUICK)

    assert report.labelled == 6
    assert server.count.paths["POST /v1/batches"] == 1


def test_part_that_never_arrived_is_released(tmp_path: Path) -> None:
    """Its money is free again and its questions are asked anew."""
    job = job_in(tmp_path, rows=6)
    with teacher_server() as server:
        store = Store(job.store)
        name = teacher_of(server).name

        async def die_early() -> None:
            calls = [(store.number(), Key(name, "p", "t", 0), 10**12)]
            await store.begin_all(calls, Batch("sentimill-lost", name, None))

        asyncio.run(die_early())
        store.close()
        report = run(replace(job, budget=PICO), server, batch=QUICK)

    assert report.labelled == 6
    assert report.spent_usd == pytest.approx(bill(server), abs=1e-12)


def _interrupted(job: LabelJob, server: TeacherServer) -> None:
    """Hand a part over and stop before it is collected, as Ctrl-C would."""

    async def stop(self: BatchAsker, parts: list[Batch]) -> list[Batch]:
        self.stop("INTERRUPTED")
        return parts

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BatchAsker, "_poll", stop)
        run(job, server, batch=QUICK)


def test_budget_bounds_a_part(tmp_path: Path) -> None:
    """No part reserves more than there is; what settles for less pays for the next."""
    job = job_in(tmp_path, rows=40, budget=int(0.006 * PICO))
    with teacher_server() as server, pytest.raises(SomeRowsFailed, match="larger --budget"):
        run(job, server, batch=QUICK)

    assert 0 < len(lines(job.out)) < 40
    assert (server.count.tokens_in * PRICE[0] + server.count.tokens_out * PRICE[1]) / 1e6 <= 0.006
    assert server.count.paths["POST /v1/batches"] > 1


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


def test_provider_without_batches_is_a_usage_error(tmp_path: Path) -> None:
    """Said before anything is handed over."""
    pytest.importorskip("anthropic")
    job = job_in(tmp_path, rows=4, soft="stated")
    with teacher_server() as server:
        teacher = ClaudeTeacher("c", url=server.url.removesuffix("/v1"), key="test", timeout_s=20.0)
        with pytest.raises(UsageError, match="--batch"):
            Labeller(job, [(teacher, quote())], Watch(plan=lambda plan: True), QUICK).run()

    assert server.count.calls == 0
