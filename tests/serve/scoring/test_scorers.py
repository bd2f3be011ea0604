"""Scoring through a running server: the same bytes, with patience."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli_in_process import Sentimill
from live_server import live_server
from scoring_jobs import job
from sentimill.errors import UnavailableError, UsageError
from sentimill.scoring.scorers import LocalScorer, ServerScorer
from sentimill.server.lifecycle import Serve
from tiny_bundle import graph, write_tiny_bundle

TEXTS = [*["good", "bad " * 20, "", "fine", "the battery"] * 60, "x" * (2 << 20)]
CSV = ("id,text\n" + "".join(f'{i},"{text}"\n' for i, text in enumerate(TEXTS))).encode()


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
    assert b"poison,,,,,ENGINE_FAILED" in (tmp_path / "out.csv").read_bytes()


def test_a_busy_server_is_asked_again(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Later each time, until patience ends."""
    with live_server(Serve(bundle=bundle, port=0, metrics_port=0, threads=1)) as serving:
        pauses: list[float] = []
        scorer = ServerScorer(serving.address, patience_s=2.0, pause=pauses.append)
        busy = iter([UnavailableError("full", reason="QUEUE_FULL")] * 3)
        ask = scorer._client.classify

        def sometimes(texts: list[str], *, bulk: bool) -> object:
            assert bulk
            for error in busy:
                raise error
            return ask(texts, bulk=True)

        monkeypatch.setattr(scorer._client, "classify", sometimes)
        answers = scorer.answer(scorer.prepare(["good"]))
        scorer.close()

    assert (len(answers.errors), pauses) == (0, [0.1, 0.2, 0.4])


def test_a_server_that_is_gone_ends_the_job(tmp_path: Path) -> None:
    """When patience ends, which is soon when it never was there."""
    pauses: list[float] = []

    with pytest.raises(UnavailableError):
        ServerScorer("127.0.0.1:1", pause=pauses.append)

    assert sum(pauses) < 10


def test_another_model_ends_the_job(tmp_path: Path, bundle: Path) -> None:
    """Half a table from each would be worse than none."""
    other = write_tiny_bundle(tmp_path / "other", threshold=0.1).path
    with live_server(Serve(bundle=bundle, port=0, metrics_port=0, threads=1)) as serving:
        scorer = ServerScorer(serving.address)
        with live_server(Serve(bundle=other, port=0, metrics_port=0, threads=1)) as later:
            scorer._client.close()
            scorer._client = type(scorer._client)(later.address)
            with pytest.raises(UsageError, match="another model") as caught:
                scorer.answer(scorer.prepare(["good"]))
        scorer.close()

    assert caught.value.reason == "MODEL_CHANGED"
