"""`Classifier`: a loaded bundle that turns texts into predictions, without a server.

Programs, offline jobs and the server all use it.

classifier = Classifier.load()                                     # the reference student
classifier.classify(["The battery died in a week."])[0].label      # "negative"
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, repeat
from pathlib import Path
from typing import Final, TypeVar, cast, get_args

import numpy as np
from numpy.typing import NDArray

from sentimill.bundle.manifest import Golden, Manifest
from sentimill.bundle.reader import Bundle, open_bundle
from sentimill.bundle.reference import find_bundle
from sentimill.decisions import Decisions, decide, probabilities
from sentimill.engine.base import Engine, EngineChoice, EngineName, EngineWish, Precision, Provider
from sentimill.engine.factory import start_engine
from sentimill.engine.hardware import Machine
from sentimill.engine.selection import rank_engines
from sentimill.errors import BundleError, EngineError, TextError, UsageError
from sentimill.evidence.index import Index
from sentimill.evidence.sentences import Explanation
from sentimill.evidence.states import with_states
from sentimill.progress import progress_bar
from sentimill.text.tokenizer import Encoded, TextEncoder, Truncation, pad, plan_batches
from sentimill.types import (
    NEIGHBOURS,
    AbstainReason,
    Neighbour,
    Prediction,
    Probs,
    check_neighbours,
    list_of_texts,
    text_of,
)

__all__ = [
    "BATCH_TOKENS",
    "Classifier",
    "Decisions",
    "Precision",
    "Prediction",
    "decide",
    "encoder_of",
    "golden_fault",
    "plan_batches",
    "probabilities",
]

T = TypeVar("T")
Rows = Sequence[NDArray[np.int64]]

BATCH_TOKENS: Final = {"cpu": 512, "cuda": 32_768}
"""Default number of padded tokens (rows times longest) in one engine call, by provider.

A CPU is no faster with more (benchmarks/engine/engine_rate.py): the states of more tokens do not
fit into the cache of a core, and every call waits for a whole batch. An H200 is a third slower with
4,096, and no faster with 65,536 (benchmarks/results/engine-gpu.md).
"""

_GOLDEN_TOLERANCE: Final = {"fp32": 1e-3, "fp16": 5e-3, "bf16": 2e-2, "int8": 5e-2}
"""How far a golden probability may differ from that of the fp32 graph, in each precision.

Rounding alone causes about a quarter of this. A wrong graph, tokenizer or kernel causes more.
"""


class Classifier:
    """A loaded bundle. `classify` may be called from one thread at a time; `decide` from any."""

    def __init__(
        self, bundle: Bundle, engine: Engine, choice: EngineChoice, *, detect_language: bool = True
    ) -> None:
        self.bundle = bundle
        self.engine = engine
        self.precision = choice.precision
        self.choice = choice
        self._tokenizer_json = bundle.read("tokenizer.json")
        self._temperature = bundle.manifest.precision(choice.precision).temperature
        self._token_step = engine.info.token_step
        self._languages = bundle.manifest.languages if detect_language else ()
        self.encoder = self.new_encoder()
        self.index: Index | None = None
        self._replay_golden()
        self._probe = self._shortest_golden()

    @classmethod
    def load(
        cls,
        bundle: Path | str | None = None,
        *,
        precision: Precision = "auto",
        engine: EngineName = "auto",
        provider: Provider = "auto",
        threads: int | None = None,
        detect_language: bool = True,
        states: bool = False,
        index: Path | str | None = None,
    ) -> Classifier:
        """Open, check and load a bundle, and replay its golden texts.

        bundle: a folder, or `hub:owner/name[@revision]` for a bundle on the Hugging Face Hub; None
        loads the reference student. detect_language: abstain on texts in none of the bundle's
        languages. states: compute the pooled state of each text too, see `compute`. index: a
        folder that `sentimill index` wrote; answers then carry their `neighbours`.

        Raises:
            BundleError: the folder does not verify, or its golden texts get other answers here.
            EngineError: no engine is installed, or not the one that was asked for.
            UsageError: this machine does not have that engine, precision or provider; or there is
                no such model.
        """
        wish = EngineWish(precision=precision, engine=engine, provider=provider)
        opened = open_bundle(find_bundle(bundle))
        manifest = opened.manifest
        _check_precision(precision, manifest)
        choices = rank_engines(wish, list(manifest.precisions), Machine.here())

        def graph_of(choice: EngineChoice) -> bytes:
            graph = opened.read(manifest.graph_file(choice.precision, choice.provider))
            return with_states(graph) if states or found else graph

        found = None if index is None else Index.open(index, opened.digest)
        started, choice = start_engine(choices, graph_of, threads=threads)
        made = cls(opened, started, choice, detect_language=detect_language)
        made.index = found
        return made

    @property
    def labels(self) -> tuple[str, ...]:
        """The closed label set, in the order of probs."""
        return self.bundle.manifest.labels

    @property
    def threshold(self) -> float | None:
        """The confidence below which an answer is marked as abstained; None for never."""
        return self.bundle.manifest.threshold_of(self.precision)

    @property
    def batch_tokens(self) -> int:
        """Padded tokens in one engine call that suit the provider."""
        return BATCH_TOKENS[self.engine.info.provider]

    def new_encoder(self) -> TextEncoder:
        """Return a new tokenizer, since each thread needs one of its own."""
        return encoder_of(self.bundle.manifest, self._tokenizer_json, self._languages)

    def classify(
        self,
        texts: Iterable[object],
        *,
        batch_tokens: int | None = None,
        progress: bool = False,
        explain: bool = False,
        neighbours: int = NEIGHBOURS,
    ) -> list[Prediction | TextError]:
        """Return one result for each text, in order: its prediction, or its TextError.

        texts: a list, a pandas or polars Series, a numpy array or an Arrow array. A missing value
        and a value that is not a string get a TextError too. Texts are sorted by length, so a mixed
        list costs little padding. progress: show a progress bar. explain: split each text and
        answer its sentences too, see `Prediction.sentences`. neighbours: how many reviews of the
        index an answer shows, at most 32.

        Raises EngineError when the engine fails, InputError when *texts* is a single string.
        """
        check_neighbours(neighbours)
        items = [text_of(item) for item in list_of_texts(texts)]
        count = len(items)
        if explain:
            explanation = Explanation(items)
            items = list(explanation)
        encoded, logits = self.compute(items, batch_tokens or self.batch_tokens, progress=progress)
        near: list[tuple[Neighbour, ...]] = []
        if self.index and neighbours:
            own = sum(isinstance(one, Encoded) for one in encoded[:count])  # not the sentences
            near = self.index.nearest(logits[:own, len(self.labels) :], neighbours)
        read = [one for one in encoded if isinstance(one, Encoded)]
        answered = iter(self.decide(logits, read, near))
        results = [next(answered) if isinstance(one, Encoded) else one for one in encoded]
        return explanation.attach(results, self.labels) if explain else results

    def compute(
        self,
        items: Sequence[str | TextError],
        batch_tokens: int | None = None,
        *,
        progress: bool = False,
    ) -> tuple[list[Encoded | TextError], NDArray[np.float32]]:
        """Return the tokens or the error of each item, and the logits of those with tokens.

        If the classifier was loaded with `states`, a row has the pooled state after the logits.
        """
        found = iter(self.encoder.encode([item for item in items if isinstance(item, str)]))
        encoded = [next(found) if isinstance(item, str) else item for item in items]
        for i, one in enumerate(encoded):
            if isinstance(one, TextError):
                one.position = i
        rows = [one.ids for one in encoded if isinstance(one, Encoded)]
        batches = list(plan_batches([*map(len, rows)], batch_tokens or self.batch_tokens))
        with progress_bar(len(rows), shown=progress) as advance:

            def run(batch: Rows, other_calls: int) -> NDArray[np.float32]:
                logits = self.run(batch, other_calls)
                advance(len(batch))
                return logits

            computed = self.at_once(run, [[rows[k] for k in batch] for batch in batches])
        values = computed[0].shape[1] if computed else len(self.labels)
        logits = np.empty((len(rows), values), dtype=np.float32)
        for batch, part in zip(batches, computed, strict=True):
            logits[batch] = part
        return encoded, logits

    def at_once(self, work: Callable[[Rows, int], T], batches: Sequence[Rows]) -> list[T]:
        """Return the result of *work* for each of *batches*, in order.

        work: takes a batch and how many other calls run at the same time, and passes both to `run`.
        As many batches run at once, in threads, as the engine can use. The first exception of
        *work* is raised, and then no further batch begins.
        """
        threads = min(self.engine.info.calls, len(batches))
        if threads < 2:
            return [work(batch, 0) for batch in batches]
        with ThreadPoolExecutor(threads, thread_name_prefix="engine") as pool:
            return [*pool.map(work, batches, repeat(threads - 1))]

    def run(self, rows: Rows, other_calls: int = 0) -> NDArray[np.float32]:
        """Pad *rows* of token ids and return their logits (rows, labels), from any thread.

        other_calls: see `Engine.run`. Raises EngineError when the engine fails, and when its logits
        are NaN or infinite: they could look like a label with high confidence.
        """
        tokens = self.padded_length(max(map(len, rows)))
        padded = pad(rows, self.bundle.manifest.pad_id, tokens=tokens)
        logits = self.engine.run(*padded, other_calls=other_calls)
        if lost := int((~np.isfinite(logits)).any(axis=1).sum()):
            why = f"the engine returned NaN or infinity for {lost} of {len(rows)} texts"
            raise EngineError(why, reason="ENGINE_FAILED")
        return logits

    def padded_length(self, tokens: int) -> int:
        """Return the length to which the engine pads a batch whose longest text has *tokens*.

        The length is never rounded up beyond the model's own limit, since the model may have no
        position embedding there.
        """
        up = -(-tokens // self._token_step) * self._token_step
        return max(tokens, min(up, self.bundle.manifest.max_tokens))

    def computed_tokens(self, lengths: Sequence[int]) -> int:
        """Return how many tokens the engine computes in one call for texts of *lengths*."""
        if self.engine.info.unpadded:
            return sum(lengths)
        return len(lengths) * self.padded_length(max(lengths))

    def decide(
        self,
        logits: NDArray[np.float32],
        encoded: Sequence[Encoded],
        near: Iterable[tuple[Neighbour, ...]] = (),
    ) -> list[Prediction]:
        """Turn logits (rows, labels) into calibrated answers; *near* belongs to the first rows."""
        labels, digest = self.labels, self.bundle.digest
        probs = probabilities(logits[:, : len(labels)], self._temperature)
        foreign = np.array([text.foreign for text in encoded], dtype=bool)
        made = decide(probs, labels, self.threshold, foreign)
        scores = repeat(None) if made.score is None else made.score.tolist()
        # Converting whole columns is much faster than converting one number at a time.
        columns = (
            made.best.tolist(), probs.tolist(), scores, made.confidence.tolist(),
            made.abstained.tolist(),
        )  # fmt: skip
        predictions = []
        rows = zip(*columns, encoded, chain(near, repeat(())), strict=False)
        for best, each, score, confidence, abstained, text, neighbours in rows:
            reason: AbstainReason | None = None
            if abstained:
                reason = "UNSUPPORTED_LANGUAGE" if text.foreign else "LOW_CONFIDENCE"
            predictions.append(
                Prediction(
                    label=labels[best],
                    probs=Probs(each, labels),
                    score=score,
                    confidence=confidence,
                    abstained=abstained,
                    truncated=text.truncated,
                    tokens=len(text.ids),
                    abstain_reason=reason,
                    model_digest=digest,
                    neighbours=neighbours,
                )
            )
        return predictions

    def _replay_golden(self) -> None:
        """Check the golden texts together and each alone: some engines fail in only one case."""
        golden = self.bundle.manifest.golden
        texts = [one.text for one in golden]
        together = self.classify(texts)
        alone = [answer for text in texts for answer in self.classify([text])]
        for expected, got in zip((*golden, *golden), (*together, *alone), strict=True):
            self._check_golden(expected, got if isinstance(got, TextError) else got.probs)

    def probe(self) -> None:
        """Run one golden text again, alone, and check its answer; from any thread.

        The watchdog tests the engine with it. It costs one engine call of a short text.

        Raises:
            EngineError: the engine fails.
            BundleError: the answer is wrong.
        """
        expected, ids = self._probe
        logits = self.run([ids])[:, : len(self.labels)]
        self._check_golden(expected, probabilities(logits, self._temperature)[0].tolist())

    def _shortest_golden(self) -> tuple[Golden, NDArray[np.int64]]:
        """Return the golden text with the fewest tokens, and its token ids."""
        golden = self.bundle.manifest.golden
        encoded = zip(golden, self.encoder.encode([g.text for g in golden]), strict=True)
        rows = [(one, text.ids) for one, text in encoded if isinstance(text, Encoded)]
        return min(rows, key=lambda row: len(row[1]))

    def _check_golden(self, expected: Golden, got: Sequence[float] | TextError) -> None:
        if isinstance(got, TextError):
            fault: str | None = f"has no answer ({got})"
        else:
            fault = golden_fault(expected, got, self.precision)
        if fault:
            raise BundleError(
                f"bundle {self.bundle.path} does not verify: a golden text {fault} in"
                f" {self.precision} on {self.engine.info.engine}: export it again, or use"
                " another --precision or --engine",
                reason="BUNDLE_GOLDEN_MISMATCH",
            )


def encoder_of(
    manifest: Manifest, tokenizer_json: bytes, languages: Sequence[str] = ()
) -> TextEncoder:
    """Return the tokenizer of a bundle, with the limits and the cleaning of its manifest."""
    return TextEncoder(
        tokenizer_json,
        max_tokens=manifest.max_tokens,
        truncation=cast(Truncation, manifest.truncation),
        cleaning=manifest.cleaning,
        languages=languages,
    )


def golden_fault(expected: Golden, probs: Sequence[float], precision: str) -> str | None:
    """Return what is wrong with the answer to a golden text, or None where it is right.

    The label may change where two labels are nearly equally probable, as long as no probability
    moves by more than the rounding of the precision explains.
    """
    limit = _GOLDEN_TOLERANCE[precision]
    moved = max(abs(a - b) for a, b in zip(expected.probs, probs, strict=True))
    if moved <= limit:
        return None
    if np.argmax(expected.probs) != np.argmax(probs):
        return f"changed its label and moved by {moved:.4f} (the limit is {limit})"
    return f"moved by {moved:.4f} (the limit is {limit})"


def _check_precision(wanted: Precision, manifest: Manifest) -> None:
    if wanted == "auto" or wanted not in get_args(Precision):
        return  # rank_engines reports an unknown name
    try:
        manifest.precision(wanted)
    except KeyError:
        raise UsageError(
            f"the bundle has no precision {wanted!r}, it has {', '.join(manifest.precisions)}"
            f" (this program knows {', '.join(get_args(Precision))})",
            reason="UNKNOWN_PRECISION",
        ) from None
