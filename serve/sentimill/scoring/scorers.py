"""Scorers classify the texts of a job, in this process or in several others."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from sentimill.classifier import Classifier, plan_batches, probabilities
from sentimill.engine.base import EngineName, Precision, Provider
from sentimill.engine.failures import run_or_split
from sentimill.errors import (
    EngineError,
    SentimillError,
    TextError,
    UsageError,
)
from sentimill.evidence.index import ids_json
from sentimill.evidence.sentences import Explanation, sentences_json
from sentimill.scoring.answer_columns import Answers
from sentimill.text.tokenizer import Encoded

T = TypeVar("T")
Texts = Sequence[str | TextError | None]


@dataclass(frozen=True, slots=True)
class Model:
    """The model of a job, which must not change. engine: precision, engine and provider."""

    digest: str
    engine: str
    labels: tuple[str, ...]
    threshold: float | None


class Scorer(Protocol):
    """Answers the texts of a window. One thread prepares, and another gets the answers."""

    @property
    def ahead(self) -> int:
        """How many windows to prepare ahead of the one whose answers are awaited."""
        ...

    def model(self) -> Model:
        """Return the model that answers now."""
        ...

    def prepare(self, texts: Texts) -> Callable[[], Answers]:
        """Do the work that needs no engine, and return a function that returns the answers.

        The answers have an error for each text without an answer. It raises SentimillError.
        """
        ...


class LocalScorer:
    """Runs the classifier in this process, in batches of texts of similar length.

    explain: answer the sentences of each text too. neighbours: reviews of the index to show.
    """

    ahead = 1

    def __init__(
        self,
        classifier: Classifier,
        *,
        batch_tokens: int | None = None,
        explain: bool = False,
        neighbours: int = 0,
    ) -> None:
        self._classifier = classifier
        self._explain = explain
        self._neighbours = neighbours
        self._encoder = classifier.new_encoder()
        self._batch_tokens = batch_tokens or classifier.batch_tokens
        self._temperature = classifier.bundle.manifest.precision(classifier.precision).temperature

    @classmethod
    def load(
        cls,
        bundle: Path | str,
        *,
        precision: Precision = "auto",
        engine: EngineName = "auto",
        provider: Provider = "auto",
        threads: int | None = None,
        detect_language: bool = True,
        batch_tokens: int | None = None,
        explain: bool = False,
        index: Path | None = None,
        neighbours: int = 0,
    ) -> LocalScorer:
        """Load the bundle, see `Classifier.load`."""
        classifier = Classifier.load(
            bundle,
            precision=precision,
            engine=engine,
            provider=provider,
            threads=threads,
            detect_language=detect_language,
            index=index,
        )
        return cls(classifier, batch_tokens=batch_tokens, explain=explain, neighbours=neighbours)

    def model(self) -> Model:
        """See `Scorer.model`."""
        classifier = self._classifier
        info = classifier.engine.info
        engine = f"{classifier.precision} on {info.engine} {info.provider}"
        if self._encoder.languages:  # otherwise no row abstains for its language
            engine += f" for {'+'.join(sorted(self._encoder.languages))}"
        if classifier.index:
            engine += f" with the index {classifier.index.digest[:12]}"
        return Model(classifier.bundle.digest, engine, classifier.labels, classifier.threshold)

    def prepare(self, texts: Texts) -> Callable[[], Answers]:
        """See `Scorer.prepare`: tokenise."""
        explanation = Explanation(texts) if self._explain else None
        asked = texts if explanation is None else [*explanation]
        errors = {i: text for i, text in enumerate(asked) if isinstance(text, TextError)}
        places = [i for i, text in enumerate(asked) if isinstance(text, str)]
        encoded: dict[int, Encoded] = {}
        found = self._encoder.encode([text for text in asked if isinstance(text, str)])
        for i, one in zip(places, found, strict=True):
            if isinstance(one, Encoded):
                encoded[i] = one
            else:
                errors[i] = one
        return partial(self._answer, encoded, errors, len(asked), len(texts), explanation)

    def _answer(
        self,
        encoded: Mapping[int, Encoded],
        text_errors: Mapping[int, TextError],
        asked: int,
        count: int,
        explanation: Explanation | None,
    ) -> Answers:
        """Run batches of similar length; one that fails is split.

        asked: the number of texts. The first *count* of them are rows, the others their sentences.
        """
        errors: dict[int, SentimillError] = dict(text_errors)
        places = np.array([*encoded], dtype=np.intp)
        rows = [one.ids for one in encoded.values()]
        lengths = [*map(len, rows)]
        probs = np.full((asked, len(self._classifier.labels)), np.nan, dtype=np.float32)
        padded = 0
        batches = list(plan_batches(lengths, self._batch_tokens))
        results = self._classifier.at_once(self._run, [[rows[k] for k in b] for b in batches])
        near: list[str | None] = [None] * asked
        for batch, (found, ids, failed) in zip(batches, results, strict=True):
            padded += self._classifier.computed_tokens([lengths[k] for k in batch])
            probs[places[batch]] = found
            for k, cell in zip(batch, ids, strict=False):
                near[places[k]] = cell
            errors |= {int(places[batch[k]]): error for k, error in failed.items()}
        evidence = {"neighbours": near[:count]}
        if explanation is not None:
            parts = [None if np.isnan(row[0]) else row.tolist() for row in probs]
            sentences = explanation.sentences(parts, self._classifier.labels)
            evidence["sentences"] = [*map(sentences_json, sentences)]
        return Answers(
            probs[:count],
            {i: error for i, error in errors.items() if i < count},
            [i for i, one in encoded.items() if one.foreign and i < count],
            sum(lengths),
            padded,
            evidence,
        )

    def _run(
        self, rows: Sequence[NDArray[np.int64]], other_calls: int
    ) -> tuple[NDArray[np.float32], list[str | None], dict[int, EngineError]]:
        """Return probs (rows, labels), NaN where the engine failed; neighbours; errors by row."""
        labels, index = len(self._classifier.labels), self._classifier.index
        near: list[str | None] = []
        logits, errors = run_or_split(lambda part: self._classifier.run(part, other_calls), rows)
        if logits is None:
            return np.full((len(rows), labels), np.nan, dtype=np.float32), near, errors
        if index and self._neighbours:
            found = index.nearest(logits[:, labels:], self._neighbours)
            near = [None if k in errors else ids_json(one) for k, one in enumerate(found)]
        return probabilities(logits[:, :labels], self._temperature), near, errors


class ProcessScorer:
    """Runs a scorer in each of several processes; each answers one window at a time.

    This process keeps the order of the rows, the journal and the output, so none of them depends on
    the number of processes. load: makes a scorer; it is pickled, and called in each process.
    """

    def __init__(self, load: Callable[[], Scorer], processes: int) -> None:
        """Start the processes and wait for them. Raises what *load* raises."""
        self.ahead = processes + 1
        self._threads = ThreadPoolExecutor(processes, "process")
        self._workers = [_Worker(load) for _ in range(processes)]
        self._idle: SimpleQueue[_Worker] = SimpleQueue()
        try:
            models: list[Model] = [worker.receive() for worker in self._workers]
            self._model = models[0]
            if any(model != self._model for model in models):
                why = "the processes chose different engines: name one with --precision, --provider"
                raise UsageError(f"{why} and --engine", reason="MODEL_CHANGED")
        except BaseException:
            self.close()
            raise
        for worker in self._workers:
            self._idle.put(worker)

    def model(self) -> Model:
        """See `Scorer.model`."""
        return self._model

    def prepare(self, texts: Texts) -> Callable[[], Answers]:
        """See `Scorer.prepare`: the first process that is free takes the texts."""
        return self._threads.submit(self._ask, texts).result

    def close(self) -> None:
        """End the processes at once, whatever they do."""
        for worker in self._workers:
            worker.process.kill()
        self._threads.shutdown(cancel_futures=True)
        for worker in self._workers:
            worker.process.join()

    def _ask(self, texts: Texts) -> Answers:
        worker = self._idle.get()
        try:
            with suppress(OSError):  # the process has ended, which `receive` reports
                worker.connection.send(texts)
            answers: Answers = worker.receive()
            return answers
        finally:
            self._idle.put(worker)


class _Worker:
    """A process that answers windows, and this side of the connection to it."""

    def __init__(self, load: Callable[[], Scorer]) -> None:
        context = get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(load, theirs), daemon=True)
        self.process.start()
        theirs.close()  # the other side then ends with the process

    def receive(self) -> Any:
        """Return what the process sends. Raises its SentimillError, and one if it has ended."""
        try:
            found = self.connection.recv()
        except (EOFError, OSError) as error:
            self.process.join()
            why = f"a process of the job ended with exit code {self.process.exitcode} (-9 is mostly"
            why += " a lack of memory): run the same command again with fewer --processes; what is"
            why += " done is saved"
            raise SentimillError(why, reason="WORKER_LOST") from error
        if isinstance(found, SentimillError):
            raise found
        return found


def _work(load: Callable[[], Scorer], owner: Connection) -> None:
    """Send the model, and then answer the texts that *owner* sends, as long as it lives."""
    for number in (signal.SIGINT, signal.SIGTERM):  # Ctrl-C reaches all; the owner decides
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_owner, daemon=True).start()
    loaded = _result(load)
    with suppress(EOFError, OSError):  # the owner has ended
        owner.send(loaded if isinstance(loaded, SentimillError) else _result(loaded.model))
        while not isinstance(loaded, SentimillError):
            owner.send(_result(partial(_answers, loaded, owner.recv())))


def _answers(scorer: Scorer, texts: Texts) -> Answers:
    return scorer.prepare(texts)()


def _result(call: Callable[[], T]) -> T | SentimillError:
    """Return what *call* returns or its error, which the owner raises.

    An OSError becomes a SentimillError: some of its subclasses cannot be sent to another process.
    """
    try:
        return call()
    except SentimillError as error:
        return error
    except OSError as error:
        return SentimillError(f"a process of the job stopped: {error}", reason="WORKER_FAILED")


def _end_with_owner() -> None:
    """End this process when the one that started it has ended, whatever this one does."""
    owner = parent_process()
    assert owner is not None
    owner.join()
    os._exit(1)
