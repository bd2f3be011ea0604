"""Scoring through a running server: the same bytes, with patience."""

from __future__ import annotations

import math
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from cli_in_process import Sentimill
from live_server import live_server
from scoring_jobs import job
from sentimill.errors import DeadlineError, SentimillError, UnavailableError, UsageError
from sentimill.scoring.scorers import LocalScorer
from sentimill.scoring.server_scorer import ServerScorer
from sentimill.server.settings import Serve
from tiny_bundle import graph, write_tiny_bundle

TEXTS = [*["good", "bad " * 20, "", "fine", "the battery"] * 60, "x" * (2 << 20)]
CSV = ("id,text\n" + "".join(f'{i},"{text}"\n' for i, text in enumerate(TEXTS))).encode()


@pytest.mark.slow
def test_a_server_gives_the_same_bytes(
    tmp_path: Path, bundle: Path, scorer: LocalScorer, sentimill: Sentimill
) -> None:
    """As the bundle itself, errors included."""
    (tmp_path / "in.csv").write_bytes(CSV)
    job(tmp_path / "in.csv", tmp_path / "local.csv", probs=True).run(scorer)

    with live_server(Serve(bundle=bundle, port=0, metrics_port=0, threads=1)) as serving:
        found = sentimill(
            "score",
            tmp_path / "in.csv",
            tmp_path / "out.csv",
            "--server",
            serving.address,
            "--probs",
        )

    assert found.code == 3
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "local.csv").read_bytes()


def test_a_text_that_breaks_the_servers_engine_fails_alone(tmp_path: Path) -> None:
    """As it does here."""
    made = write_tiny_bundle(tmp_path / "tiny", model=graph(fail_on="poison"))
    (tmp_path / "in.csv").write_bytes(b"text\ngood\npoison\nbad\n")

    with live_server(Serve(bundle=made.path, port=0, metrics_port=0, threads=1)) as serving:
        scorer = ServerScorer(serving.address)
        summary = job(tmp_path / "in.csv", tmp_path / "out.csv").run(scorer)
        scorer.close()

    assert (summary.rows, summary.failed) == (3, 1)
    assert b"poison,,,,,,ENGINE_FAILED" in (tmp_path / "out.csv").read_bytes()


class Clock(threading.Event):
    """An event that is never set, and a clock that only its waits move on."""

    def __init__(self, stop_at_s: float = math.inf) -> None:
        super().__init__()
        self.now_s = 0.0
        self.pauses: list[float] = []
        self._stop_at_s = stop_at_s

    def wait(self, timeout: float | None = None) -> bool:
        """Move the clock on; say that the job is to stop once it is late enough."""
        assert timeout is not None
        self.now_s += timeout
        self.pauses.append(timeout)
        return self.now_s >= self._stop_at_s

    def __call__(self) -> float:
        """Return the time."""
        return self.now_s


def test_a_busy_server_is_asked_again(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Later each time, until patience ends."""
    with live_server(Serve(bundle=bundle, port=0, metrics_port=0, threads=1)) as serving:
        clock = Clock()
        scorer = ServerScorer(serving.address, patience_s=2.0, stop=clock, clock=clock)
        busy = iter([UnavailableError("full", reason="QUEUE_FULL")] * 3)
        ask = scorer._client.classify

        def sometimes(texts: list[str], *, bulk: bool, explain: bool, neighbours: int) -> object:
            assert bulk
            for error in busy:
                raise error
            return ask(texts, bulk=True)

        monkeypatch.setattr(scorer._client, "classify", sometimes)
        answers = scorer.prepare(["good"])()
        scorer.close()

    assert (len(answers.errors), clock.pauses) == (0, [0.1, 0.2, 0.4])


def test_a_request_that_is_never_in_time_is_halved(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow server computes small requests, and would fail the same large one for ever."""
    texts = ["good", "bad", "battery", "fine", "good"]
    with live_server(Serve(bundle=bundle, port=0, metrics_port=0, threads=1)) as serving:
        scorer = ServerScorer(serving.address, stop=Clock())
        classify, sizes = scorer._client.classify, list[int]()

        def slow(asked: list[str], *, bulk: bool, explain: bool, neighbours: int) -> object:
            sizes.append(len(asked))
            if len(asked) > 2:
                raise DeadlineError("too late", reason="DEADLINE_EXCEEDED")
            return classify(asked, bulk=bulk)

        monkeypatch.setattr(scorer._client, "classify", slow)
        answers = scorer.prepare(texts)()
        scorer.close()

    assert sizes == [5, 2, 3, 1, 2]
    assert (len(answers.errors), len(answers.probs)) == (0, 5)


@pytest.mark.parametrize(("call_s", "calls"), [(0.0, 64), (60.0, 10)])
def test_patience_counts_time_and_not_pauses(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, call_s: float, calls: int
) -> None:
    """A call that takes a minute uses a minute of it up."""
    with live_server(Serve(bundle=bundle, port=0, metrics_port=0, threads=1)) as serving:
        clock = Clock()
        scorer = ServerScorer(serving.address, patience_s=600.0, stop=clock, clock=clock)
        asked: list[float] = []

        def never(texts: list[str], *, bulk: bool, explain: bool, neighbours: int) -> object:
            asked.append(clock.now_s)
            clock.now_s += call_s
            raise UnavailableError("full", reason="QUEUE_FULL")

        monkeypatch.setattr(scorer._client, "classify", never)
        with pytest.raises(UnavailableError):
            scorer.prepare(["good"])()
        scorer.close()

    assert len(asked) == pytest.approx(calls, abs=2)
    assert clock.now_s <= 660.0


def test_the_first_stop_ends_a_wait(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done by then is saved, and the error says so."""
    with live_server(Serve(bundle=bundle, port=0, metrics_port=0, threads=1)) as serving:
        clock = Clock(stop_at_s=0.5)
        scorer = ServerScorer(serving.address, stop=clock, clock=clock)

        def never(texts: list[str], *, bulk: bool, explain: bool, neighbours: int) -> object:
            raise UnavailableError("full", reason="QUEUE_FULL")

        monkeypatch.setattr(scorer._client, "classify", never)
        with pytest.raises(SentimillError, match="run the same command again") as caught:
            scorer.prepare(["good"])()
        scorer.close()

    assert (caught.value.reason, clock.pauses) == ("INTERRUPTED", [0.1, 0.2, 0.4])


@pytest.mark.slow
def test_a_server_that_is_gone_ends_the_job(tmp_path: Path) -> None:
    """When patience ends, which is soon for the first request."""
    clock = Clock()

    with pytest.raises(UnavailableError):
        ServerScorer("127.0.0.1:1", stop=clock, clock=clock)

    assert sum(clock.pauses) < 10


def test_two_models_behind_one_address_end_the_job(tmp_path: Path, bundle: Path) -> None:
    """Each response says which model answered, so no output has answers of two."""
    other = write_tiny_bundle(tmp_path / "other", threshold=0.1).path
    (tmp_path / "in.csv").write_bytes(CSV)
    with (
        live_server(Serve(bundle=bundle, port=0, metrics_port=0, threads=1)) as one,
        live_server(Serve(bundle=other, port=0, metrics_port=0, threads=1)) as two,
    ):
        ports = ",".join(serving.address for serving in (one, two))
        scorer = ServerScorer(f"ipv4:{ports}")
        with pytest.raises(UsageError, match="another model") as caught:
            job(tmp_path / "in.csv", tmp_path / "out.csv").run(scorer)
        scorer.close()

    assert caught.value.reason == "MODEL_CHANGED"
    assert not (tmp_path / "out.csv").exists()


def test_the_digest_of_each_response_counts(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that is there for one response alone is noticed too: A, then B, then A again."""
    with live_server(Serve(bundle=bundle, port=0, metrics_port=0, threads=1)) as serving:
        scorer = ServerScorer(serving.address)
        ask = scorer._client.classify

        def other(texts: list[str], *, bulk: bool, explain: bool, neighbours: int) -> object:
            return [replace(one, model_digest="b" * 64) for one in ask(texts, bulk=bulk)]  # type: ignore[type-var]  # predictions, as the text is good

        monkeypatch.setattr(scorer._client, "classify", other)
        with pytest.raises(UsageError, match="another model"):
            scorer.prepare(["good"])()
        scorer.close()


def test_another_model_ends_the_job(tmp_path: Path, bundle: Path) -> None:
    """Half a table from each would be worse than none."""
    other = write_tiny_bundle(tmp_path / "other", threshold=0.1).path
    with live_server(Serve(bundle=bundle, port=0, metrics_port=0, threads=1)) as serving:
        scorer = ServerScorer(serving.address)
        with live_server(Serve(bundle=other, port=0, metrics_port=0, threads=1)) as later:
            scorer._client.close()
            scorer._client = type(scorer._client)(later.address)
            with pytest.raises(UsageError, match="another model") as caught:
                scorer.prepare(["good"])()
        scorer.close()

    assert caught.value.reason == "MODEL_CHANGED"
