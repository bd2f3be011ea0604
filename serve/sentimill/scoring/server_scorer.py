"""The scorer that asks a running server, as a bulk caller."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, TypeVar

import numpy as np

from sentimill.client.channel import Security
from sentimill.client.client import Client
from sentimill.errors import (
    DeadlineError,
    EngineError,
    QuotaError,
    SentimillError,
    TextError,
    UnavailableError,
    UsageError,
)
from sentimill.evidence.index import ids_json
from sentimill.evidence.sentences import sentences_json
from sentimill.scoring.answer_columns import Answers
from sentimill.scoring.scorers import Model, Texts
from sentimill.types import Prediction

log = logging.getLogger(__name__)

T = TypeVar("T")

_REQUEST_TEXTS: Final = 256
_REQUESTS: Final = 8
"""Requests in flight at once: enough to keep the server's next batch filled."""

_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 10.0
_REQUEST_S: Final = 60.0
_FIRST_PATIENCE_S: Final = 10.0
"""How long the first request may take: a wrong address should fail soon."""

_HOPELESS: Final = frozenset({"CERTIFICATE_REFUSED", "TLS_REFUSED"})
_LATE: Final = "DEADLINE_EXCEEDED"


class ServerScorer:
    """Asks a running server, with bulk priority; waits and asks again while it is full.

    patience_s: how long a server may refuse before the job gives up; finished rows stay saved. The
    last request may take a minute longer. stop: setting it ends a wait at once. explain,
    neighbours: ask for the sentences of each text too, and for reviews of the caller's index.
    """

    ahead = 1

    def __init__(
        self,
        address: str,
        *,
        security: Security | None = None,
        patience_s: float = 600.0,
        stop: threading.Event | None = None,
        explain: bool = False,
        neighbours: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._address = address
        self._explain = explain
        self._neighbours = neighbours
        self._stop = stop or threading.Event()
        self._clock = clock
        self._patience_s = min(patience_s, _FIRST_PATIENCE_S)
        with Client(address, timeout_seconds=_FIRST_PATIENCE_S, security=security) as client:
            self._client = client
            self._model = self.model()
        self._client = Client(address, timeout_seconds=_REQUEST_S, security=security)
        self._threads = ThreadPoolExecutor(_REQUESTS, thread_name_prefix="request")
        self._patience_s = patience_s
        self._client.model()  # the client then splits its requests by the server's limits

    def model(self) -> Model:
        """See `Scorer.model`."""
        found = self._patiently(lambda: self._client.model())
        engine = f"{found.precision} on {found.provider}"
        return Model(found.digest, engine, found.labels, found.threshold)

    def prepare(self, texts: Texts) -> Callable[[], Answers]:
        """See `Scorer.prepare`: the server tokenises.

        The call raises UsageError when another model has answered.
        """
        return partial(self._answer, texts)

    def _answer(self, texts: Texts) -> Answers:
        errors: dict[int, SentimillError] = {
            i: text for i, text in enumerate(texts) if isinstance(text, TextError)
        }
        # Texts of similar length share a request, so the server's batches have less padding.
        asked = [(len(text), i) for i, text in enumerate(texts) if isinstance(text, str)]
        positions = [i for _, i in sorted(asked)]
        chunks = [
            positions[k : k + _REQUEST_TEXTS] for k in range(0, len(positions), _REQUEST_TEXTS)
        ]
        probs = np.full((len(texts), len(self._model.labels)), np.nan, dtype=np.float32)
        tokens = 0
        foreign: list[int] = []
        sentences: list[str | None] = [None] * len(texts)
        near: list[str | None] = [None] * len(texts)
        for chunk, results in zip(
            chunks, self._threads.map(lambda chunk: self._ask(texts, chunk), chunks), strict=True
        ):
            for place, result in zip(chunk, results, strict=True):
                if isinstance(result, Prediction):
                    self._check_model(result.model_digest in (self._model.digest, ""))
                    probs[place] = result.probs
                    tokens += result.tokens
                    sentences[place] = sentences_json(result.sentences)
                    near[place] = ids_json(result.neighbours)
                    if result.abstain_reason == "UNSUPPORTED_LANGUAGE":
                        foreign.append(place)
                else:
                    errors[place] = result
        # The digest does not identify the precision, which decides the last bits of a figure.
        self._check_model(self.model() == self._model)
        evidence = {"sentences": sentences, "neighbours": near}
        return Answers(probs, errors, foreign, tokens, tokens, evidence)

    def close(self) -> None:
        """Close the connection."""
        self._threads.shutdown(cancel_futures=True)
        self._client.close()

    def _check_model(self, same: bool) -> None:
        """Raise UsageError unless the model is the *same* with which the job began."""
        if not same:
            why = f"another model than the one the job began with answered at {self._address}, so"
            why += " nothing is published: let all servers there have one model, then run the job"
            why += " again with --restart"
            raise UsageError(why, reason="MODEL_CHANGED")

    def _ask(
        self, texts: Texts, positions: Sequence[int], since: float | None = None
    ) -> Sequence[Prediction | TextError | EngineError]:
        """Return the answers to the texts at *positions*.

        A slow server may not compute a large request of long texts before its deadline, however
        often it is asked. So such a request is halved. since: when the wait for these texts began.
        """
        since = self._clock() if since is None else since
        wanted = [text for text in (texts[i] for i in positions) if isinstance(text, str)]
        one = len(wanted) == 1
        try:
            return self._patiently(
                lambda: self._client.classify(
                    wanted, bulk=True, explain=self._explain, neighbours=self._neighbours
                ),
                since,
                also_late=one,
            )
        except DeadlineError as error:
            if one or error.reason != _LATE or self._clock() - since > self._patience_s:
                raise
        half = len(positions) // 2
        first = self._ask(texts, positions[:half], since)
        return [*first, *self._ask(texts, positions[half:])]

    def _patiently(
        self, call: Callable[[], T], since: float | None = None, *, also_late: bool = True
    ) -> T:
        """Return the result of *call*; while the server refuses, wait twice as long each time.

        since: when the wait began, now by default. also_late: ask again after a deadline too.
        """
        began, pause = self._clock() if since is None else since, _FIRST_PAUSE_S
        while True:
            try:
                return call()
            except (UnavailableError, DeadlineError, QuotaError) as error:
                if error.reason == _LATE and not also_late:
                    raise
                if error.reason in _HOPELESS or self._clock() - began + pause > self._patience_s:
                    raise
                log.info("%s is busy (%s): again in %.1f s", self._address, error.reason, pause)
                if self._stop.wait(pause):
                    why = "stopped while the server was busy; what is done is saved: run the same"
                    why += " command again to go on"
                    raise SentimillError(why, reason="INTERRUPTED") from error
                pause = min(2 * pause, _LONGEST_PAUSE_S)
