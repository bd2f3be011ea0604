"""Labelling from end to end, against a server that misbehaves in every way."""

from __future__ import annotations

import functools
import json
import random
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from labelling_runs import PRICE, bill, job_in, lines, quote, run, teacher_of, whole_bill
from repository import SUPPORT
from sentimill.errors import SomeRowsFailed, UnavailableError, UsageError
from sentimill_train.data.schema import SENTIMENTS, Example
from sentimill_train.labelling.job import failed_path, person_label
from sentimill_train.labelling.pipeline import Labeller
from sentimill_train.labelling.prompt import SENTIMENT, load_prompt, text_key
from sentimill_train.labelling.providers.openai import OpenAITeacher
from sentimill_train.labelling.requests import request_loop, response_parser
from sentimill_train.labelling.requests.budget import PICO, Budget
from sentimill_train.labelling.requests.rate_limit import CallRates
from sentimill_train.labelling.requests.request_loop import RetryLimits, Tally
from teacher_server import KINDS, Behaviour, teacher_server

ROWS = 240
EVERY_FAULT = dict.fromkeys(KINDS, 0.05)


def test_every_row_gets_its_label_in_order(tmp_path: Path) -> None:
    """Shares from log-probabilities, summing to one, the label their largest."""
    job = job_in(tmp_path, rows=30)
    with teacher_server() as server:
        report = run(job, server)
    rows = lines(job.out)

    assert [row["id"] for row in rows] == [f"r{n}" for n in range(30)]
    assert [row["label"] for row in rows[:3]] == ["positive", "negative", "neutral"]
    assert all(abs(sum(row["probs"].values()) - 1) < 1e-5 for row in rows)
    assert {row["soft"] for row in rows} == {"logprobs"}
    assert report.labelled == 30
    assert lines(failed_path(job.out)) == []


@pytest.mark.slow
def test_spend_is_the_servers_own_count(tmp_path: Path) -> None:
    """With 5 % of every fault: each row labelled once or listed with its reason, money exact."""
    job = job_in(tmp_path, rows=400, concurrency=32)
    behaviour = Behaviour(faults=EVERY_FAULT, hopeless=0.01, hang_s=3.0)
    with teacher_server(behaviour) as server, pytest.raises(SomeRowsFailed, match="no label"):
        run(job, server, timeout_s=1.0)
    report = json.loads((tmp_path / "labelled.jsonl.report.json").read_text())
    ids = [row["id"] for row in lines(job.out)] + [row["id"] for row in lines(failed_path(job.out))]

    assert Counter(ids) == Counter(f"r{n}" for n in range(400))
    assert report["spent_usd"] == pytest.approx(bill(server), abs=1e-12)
    assert whole_bill(server) <= report["spent_usd"] + report["at_risk_usd"]
    assert set(server.count.faults) == set(KINDS)
    assert "REFUSED" in report["failed"]


def test_second_run_asks_nothing(tmp_path: Path) -> None:
    """Everything is in the store, and the output is the same to the byte."""
    job = job_in(tmp_path, rows=20)
    with teacher_server() as server:
        run(job, server)
        first, calls = job.out.read_bytes(), server.count.calls
        run(job, server)

    assert server.count.calls == calls
    assert job.out.read_bytes() == first


def test_same_text_is_asked_once(tmp_path: Path) -> None:
    """However many rows hold it, and whatever it is wrapped in."""
    job = job_in(tmp_path, rows=1)
    texts = ["A lovely lamp.", " A lovely<br/>lamp. ", "A lovely lamp.\x00"] * 10
    rows = [json.dumps({"id": str(n), "text": text}) for n, text in enumerate(texts)]
    Path(job.source).write_text("\n".join(rows), encoding="utf-8")
    with teacher_server() as server:
        run(job, server)

    assert len(lines(job.out)) == 30
    assert server.count.calls == 1


def test_changed_parser_rereads_what_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers that an old parser could not read are worth keeping."""
    job = replace(job_in(tmp_path, rows=6), retries=RetryLimits(attempts=1, first_wait_s=0.0))
    with teacher_server() as server:
        with monkeypatch.context() as patched:
            patched.setattr(request_loop, "read_answer", lambda reply, question: "MALFORMED")
            with pytest.raises(SomeRowsFailed):
                run(job, server)
        calls = server.count.calls
        run(job, server)

    assert server.count.calls == calls
    assert len(lines(job.out)) == 6


def test_rows_that_cannot_be_sent_are_reported(tmp_path: Path) -> None:
    """An empty text costs nothing and stops nobody."""
    job = job_in(tmp_path, rows=1)
    Path(job.source).write_text(
        '{"id":"a","text":"  "}\n{"id":"b","text":"Good."}\n', encoding="utf-8"
    )
    with teacher_server() as server, pytest.raises(SomeRowsFailed, match="1 of 2"):
        run(job, server)

    assert [row["id"] for row in lines(job.out)] == ["b"]
    assert lines(failed_path(job.out)) == [{"id": "a", "reason": "EMPTY_TEXT"}]


def test_budget_stops_cleanly_and_a_larger_one_goes_on(tmp_path: Path) -> None:
    """Exit code 3 in between; the second run pays only for the rest."""
    job = job_in(tmp_path, rows=60, concurrency=4)
    with teacher_server() as server:
        small = replace(job, budget=int(0.008 * PICO))
        with pytest.raises(SomeRowsFailed, match="larger --budget"):
            run(small, server)
        done = len(lines(job.out))
        assert 0 < done < 60
        assert bill(server) <= 0.008
        assert {row["reason"] for row in lines(failed_path(job.out))} == {"BUDGET"}
        run(job, server)

    assert len(lines(job.out)) == 60
    assert server.count.calls == 60


@pytest.mark.parametrize("faulty", [False, True])
def test_200_workers_never_pass_the_budget(tmp_path: Path, faulty: bool) -> None:
    """By the server's count, lost replies included, whatever goes wrong."""
    answers_paid = 150
    behaviour = Behaviour(faults=EVERY_FAULT if faulty else {}, hang_s=0.5, latency_s=0.005)
    one = (300 * PRICE[0] + 4 * PRICE[1]) / 1e6
    job = job_in(tmp_path, rows=600, concurrency=200, budget=int(answers_paid * one * PICO))
    with teacher_server(behaviour) as server, pytest.raises(SomeRowsFailed, match="budget"):
        run(job, server)

    assert whole_bill(server) <= answers_paid * one
    assert server.count.most_at_once > 5
    assert faulty or bill(server) > 0.9 * answers_paid * one


def test_wrong_key_stops_at_once(tmp_path: Path) -> None:
    """No row can go better, so none is tried again and nothing is written."""
    job = job_in(tmp_path, rows=50, concurrency=2)
    with teacher_server(Behaviour(status=401)) as server, pytest.raises(UsageError, match="401"):
        run(job, server)

    assert server.count.calls <= 2
    assert not job.out.exists()


def test_server_that_dies_and_comes_back_is_waited_for(tmp_path: Path) -> None:
    """Connections refused in the middle of a run are tried again."""
    job = job_in(tmp_path, rows=150, concurrency=4, retries=RetryLimits(first_wait_s=0.1))
    with teacher_server() as server:
        states = iter(("up", "down", "up again"))
        state = next(states)

        def chaos(done: int, total: int, tally: Tally, budget: Budget) -> None:
            nonlocal state
            if state == "up" and done >= 40:
                server.stop()
                state = next(states)
            elif state == "down" and tally.faults["CONNECTION"]:
                server.start()
                state = next(states)

        report = Labeller(job, [(teacher_of(server), quote())], lambda plan: True, chaos).run()

    assert state == "up again"
    assert report.labelled == 150
    assert report.faults["CONNECTION"] > 0


def test_server_that_stays_dead_ends_the_run(tmp_path: Path) -> None:
    """With what there is written, and the way to go on said."""
    retries = RetryLimits(attempts=3, consecutive_failures=10, first_wait_s=0.0)
    job = job_in(tmp_path, rows=50, retries=retries)
    with teacher_server() as server:
        run(replace(job, source=str(_head(job.source, 5))), server)
    with pytest.raises(UnavailableError, match="run the same command"):
        run(job, server)

    assert len(lines(job.out)) == 5
    assert {row["reason"] for row in lines(failed_path(job.out))} <= {"CONNECTION", "NO_ANSWERS"}


def _head(source: str, rows: int) -> Path:
    path = Path(source).with_name("head.jsonl")
    path.write_text("".join(Path(source).read_text().splitlines(keepends=True)[:rows]))
    return path


def test_rows_that_are_refused_again_stop_nothing(tmp_path: Path) -> None:
    """A resumed run asks its hopeless rows one after the other, and still reports each of them."""
    retries = RetryLimits(answers=2, consecutive_failures=10, first_wait_s=0.0)
    job = job_in(tmp_path, rows=120, retries=retries, concurrency=1)
    with teacher_server(Behaviour(hopeless=0.2)) as server:
        with pytest.raises(SomeRowsFailed):
            run(job, server)
        before = lines(failed_path(job.out))
        with pytest.raises(SomeRowsFailed):
            run(job, server)

    assert len(before) > 10
    assert {row["reason"] for row in before} == {"REFUSED"}
    assert lines(failed_path(job.out)) == before


def test_gold_rows_measure_the_teacher_and_keep_their_label(tmp_path: Path) -> None:
    """Agreement and temperature are of gold rows, which come out as they came in."""
    job = job_in(tmp_path, rows=90, gold_every=3, shots=1)
    with teacher_server(keep_bodies=True) as server:
        report = run(job, server)
    (teacher,) = report.teachers
    rows = lines(job.out)

    assert teacher["agreement_with_gold"] == 1.0
    assert teacher["gold_rows"] == 29  # one was shown as an example
    assert teacher["temperature"] != 1.0
    assert report.kept == 30
    assert all("probs" not in row and "teacher" not in row for row in rows[::3])
    assert "<example>" in server.count.bodies[0]["messages"][1]["content"]


def test_relabel_asks_about_all_and_keeps_the_given_label_beside(tmp_path: Path) -> None:
    """For labels that are themselves in doubt, such as stars."""
    job = job_in(tmp_path, rows=30, gold_every=1, relabel=True)
    with teacher_server() as server:
        run(job, server)

    assert all(row["given"] == row["label"] and row["probs"] for row in lines(job.out))


def test_the_label_of_a_teacher_never_becomes_gold(tmp_path: Path) -> None:
    """`--relabel` on the command's own output keeps what people gave, and only that."""
    job = job_in(tmp_path, rows=30, gold_every=2, relabel=True)
    again = replace(job, source=str(job.out), out=tmp_path / "again.jsonl")
    with teacher_server() as server:
        run(job, server)
        report = run(again, server)
    first, second = lines(job.out), lines(again.out)

    assert [row.get("given") for row in first[:2]] == ["positive", None]
    assert [row.get("given") for row in second] == [row.get("given") for row in first]
    assert report.teachers[0]["gold_rows"] == 15


def test_only_a_label_that_a_person_gave_is_gold() -> None:
    """Rows name their teacher. Without one, a label is a person's, whatever the shares say."""
    row = Example(id="1", text="a", label="positive", source="s")
    rows = (
        row,
        replace(row, teacher="m"),
        replace(row, teacher="m", given="neutral"),
        replace(row, probs=(0.1, 0.2, 0.7)),
    )

    assert [*map(person_label, rows)] == ["positive", None, "neutral", "positive"]


def test_votes_are_drawn_where_there_are_no_log_probabilities(tmp_path: Path) -> None:
    """The endpoint ignores the field; five answers make the shares."""
    job = job_in(tmp_path, rows=6, votes=5)
    with teacher_server(Behaviour(logprobs=False), keep_bodies=True) as server:
        report = run(job, server)

    assert report.teachers[0]["soft"] == "votes"
    assert server.count.calls == 1 + 6 * 5 or server.count.calls == 4 + 6 * 5
    assert server.count.bodies[-1]["temperature"] == 1.0
    shares = {"negative": 1 / 18, "neutral": 1 / 18, "positive": 16 / 18}
    assert lines(job.out)[0]["probs"] == pytest.approx(shares, abs=1e-5)


def test_stated_shares_are_the_last_resort(tmp_path: Path) -> None:
    """No log-probabilities and one vote: the model's own numbers."""
    job = job_in(tmp_path, rows=6)
    with teacher_server(Behaviour(unknown=frozenset({"logprobs"}))) as server:
        report = run(job, server)

    assert report.teachers[0]["soft"] == "stated"
    assert report.labelled == 6


def test_two_teachers_are_pooled_and_their_disagreement_kept(tmp_path: Path) -> None:
    """Both are asked about every row; the column says how far they are apart."""
    job = job_in(tmp_path, rows=9)
    with teacher_server() as server:
        report = run(job, server, models=("one", "two"))
    row = lines(job.out)[0]

    assert server.count.calls == 18
    assert len(report.teachers) == 2
    assert row["disagreement"] == 0.0
    assert row["soft"] == "logprobs logprobs"


def test_redacted_text_is_all_that_leaves(tmp_path: Path) -> None:
    """The output keeps the text as it was."""
    job = job_in(tmp_path, rows=1, redact=True)
    Path(job.source).write_text('{"id":"a","text":"Good, mail me at jo@x.example"}', "utf-8")
    with teacher_server(keep_bodies=True) as server:
        run(job, server)

    assert "jo@x.example" not in json.dumps(server.count.bodies)
    assert "jo@x.example" in lines(job.out)[0]["text"]


def test_plan_comes_first_and_may_be_refused(tmp_path: Path) -> None:
    """Rows, tokens, price and time are shown before the first call, and no means no."""
    job = job_in(tmp_path, rows=20)
    shown: list[str] = []

    def refuse(plan: str) -> bool:
        shown.append(plan)
        return False

    with teacher_server() as server:
        labeller = Labeller(job, [(teacher_of(server), quote())], refuse)
        with pytest.raises(UsageError, match="not confirmed"):
            labeller.run()

    assert server.count.calls == 0
    assert all(word in shown[0] for word in ("20 rows", "tokens", "cost", "budget", "time"))


@pytest.mark.parametrize("gold_every", [0, 2])
def test_estimate_holds(tmp_path: Path, gold_every: int) -> None:
    """The plan's cost is within a quarter of what the run costs, gold rows included."""
    job = job_in(tmp_path, rows=100, gold_every=gold_every)
    with teacher_server() as server:
        report = run(job, server)

    assert report.expected_usd == pytest.approx(report.spent_usd, rel=0.25)


def test_unknown_price_needs_a_word(tmp_path: Path) -> None:
    """A budget cannot be held without a price; `none` says that it need not be."""
    job = job_in(tmp_path, rows=3)
    with teacher_server() as server:
        with pytest.raises(UsageError, match="--price-in"):
            Labeller(job, [(teacher_of(server), None)], lambda plan: True).run()
        free = replace(job, budget=None)
        report = Labeller(free, [(teacher_of(server), None)], lambda plan: True).run()

    assert report.labelled == 3


def test_limits_are_kept(tmp_path: Path) -> None:
    """No more calls at once than allowed, and no more a minute."""
    rates = CallRates(requests_per_minute=1200, concurrency=3)
    job = replace(job_in(tmp_path, rows=21), rates=rates)
    started = time.monotonic()
    with teacher_server(Behaviour(latency_s=0.01)) as server:
        run(job, server)

    assert server.count.most_at_once <= 3
    assert time.monotonic() - started >= 20 / 20


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    """SIGKILL, again and again: no stored answer is asked for again, same bytes at the end."""
    behaviour = Behaviour(most_faults=3, hopeless=0.01, latency_s=0.01)
    behaviour.faults = {kind: 0.05 for kind in KINDS if kind != "timeout"}
    calm = tmp_path / "calm"
    calm.mkdir()
    with teacher_server(behaviour) as server, pytest.raises(SomeRowsFailed):
        run(job_in(calm, rows=ROWS, concurrency=16), server)
    job = job_in(tmp_path, rows=ROWS)
    rng = random.Random(3)
    # The port is a part of the teacher's name, so both runs need the same one.
    with teacher_server(behaviour, port=server.port) as server:
        for moment in [rng.randint(5, ROWS // 3) for _ in range(3)] + [None]:
            stored = _stored_texts(job.store)
            before = server.count.asked.copy()
            process = _start(job.source, job.out, job.store, server.url)
            until = None if moment is None else server.count.calls + moment
            server.behaviour.on_call = functools.partial(_kill_at, process, until)
            process.wait()
            assert [text for text in server.count.asked - before if text in stored] == []

    assert process.returncode == 3  # some texts are refused for ever
    assert job.out.read_bytes() == (calm / "labelled.jsonl").read_bytes()
    assert bill(server) <= _booked(job.store)


def _kill_at(process: subprocess.Popen[bytes], moment: int | None, call: int) -> None:
    if call == moment:
        process.kill()


def _start(source: str, out: Path, store: Path, url: str) -> subprocess.Popen[bytes]:
    program = SUPPORT / "label_process.py"
    options = ["--teacher", "openai:m", "--base-url", url, "--budget", "10", "--yes"]
    options += ["--price-in", str(PRICE[0]), "--price-out", str(PRICE[1]), "--store", str(store)]
    command = [sys.executable, str(program), "label", source, str(out), *options]
    return subprocess.Popen(
        [*command, "--concurrency", "16"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def _stored_texts(store: Path) -> set[str]:
    """Return the texts of this test's reviews that the store holds a usable answer for."""
    if not store.exists():
        return set()
    prompt = load_prompt(SENTIMENT, SENTIMENTS, "logprobs")
    teacher = OpenAITeacher("m", url="http://127.0.0.1/v1", key="x", timeout_s=1.0)
    words = ("lovely", "terrible", "plain")
    texts = [f"Number {n} was {words[n % 3]} and that is all I can say." for n in range(ROWS)]
    by_key = {text_key(text): text for text in texts}
    with sqlite3.connect(store) as connection:
        rows = connection.execute("SELECT text, raw FROM call WHERE raw IS NOT NULL").fetchall()
    connection.close()
    found = set()
    for key, raw in rows:
        question = prompt.question("t", by_key[key])
        question = replace(question, mode="votes")  # the letters are all that matters here
        if isinstance(response_parser.read_answer(teacher.read(raw), question), tuple):
            found.add(by_key[key])
    return found


def _booked(store: Path) -> float:
    with sqlite3.connect(store) as connection:
        (pico,) = connection.execute("SELECT sum(spent) + sum(at_risk) FROM call").fetchone()
    connection.close()
    return float(pico) / PICO
