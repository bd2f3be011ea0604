"""Turns texts into request messages, and response messages into results, for both clients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Final

from sentimill.client.channel import reason_of
from sentimill.errors import OUTCOMES, EngineError, TextError
from sentimill.types import (
    EXPLAINED_SHARE,
    AbstainReason,
    Limits,
    Model,
    Neighbour,
    Prediction,
    Probs,
    Result,
    Sentence,
    check_neighbours,
    check_size,
    text_of,
)
from sentimill.v1 import sentiment_pb2 as pb

_MAX_ITEMS: Final = 256
"""Texts in one request: enough to fill batches, few enough to keep a call's latency even."""

_MAX_BYTES: Final = 2 << 20
"""Bytes in one request, a quarter of the default limit of a server."""

_ITEM_BYTES: Final = 16
"""An upper bound for the overhead of a text in a message."""

_REASONS: Final[dict[int, AbstainReason]] = {
    pb.ABSTAIN_REASON_LOW_CONFIDENCE: "LOW_CONFIDENCE",
    pb.ABSTAIN_REASON_UNSUPPORTED_LANGUAGE: "UNSUPPORTED_LANGUAGE",
}


class Answers:
    """The results of one list of texts, filled in as responses arrive."""

    def __init__(self, texts: Sequence[object]) -> None:
        self.texts = texts
        self._results: list[Result | None] = [None] * len(texts)

    def fail(self, position: int, error: TextError) -> None:
        """Give the text at *position* its error."""
        error.position = position
        self._results[position] = error

    def add(self, positions: Sequence[int], data: bytes) -> None:
        """Put the results of the ClassifyResponse *data* at their *positions*."""
        response = pb.ClassifyResponse.FromString(data)
        labels = tuple(response.labels)
        for position, result in zip(positions, response.results, strict=True):
            if result.WhichOneof("outcome") == "prediction":
                self._results[position] = _prediction(
                    result.prediction, labels, response.model_digest
                )
                continue
            why, reason = result.error.message, reason_of(result.error)
            if result.error.code == OUTCOMES[EngineError].code:
                self._results[position] = EngineError(why, reason=reason)
            else:
                self.fail(position, TextError(why, reason=reason))

    def requests(
        self, *, bulk: bool, limits: Limits | None, explain: bool, neighbours: int
    ) -> Iterator[tuple[list[int], pb.ClassifyRequest]]:
        """Yield requests within the limits on items and bytes, with the positions of their texts.

        A text that no server accepts gets its error here and is not sent, because it would make
        the whole request fail. limits: the server's, None where they are not known.
        """
        check_neighbours(neighbours)
        most_items, most_bytes = _MAX_ITEMS, _MAX_BYTES
        if limits is not None:
            # Half of the queue: bulk work may not fill all of it, and other callers need the rest.
            most_items = max(1, min(most_items, limits.max_items, limits.max_waiting_texts // 2))
            most_bytes = min(most_bytes, limits.max_request_bytes)
        if explain:
            most_items = max(1, most_items // EXPLAINED_SHARE)
        priority = pb.PRIORITY_BULK if bulk else pb.PRIORITY_INTERACTIVE

        def request() -> tuple[list[int], pb.ClassifyRequest]:
            return positions, pb.ClassifyRequest(
                items=items, priority=priority, explain=explain, neighbours=neighbours
            )

        positions: list[int] = []
        items: list[pb.ClassifyItem] = []
        size = 0
        for position, item in enumerate(self.texts):
            try:
                data = _encode(item)
            except TextError as error:
                self.fail(position, error)
                continue
            more = len(data) + _ITEM_BYTES
            if items and (len(items) == most_items or size + more > most_bytes):
                yield request()
                positions, items, size = [], [], 0
            positions.append(position)
            items.append(pb.ClassifyItem(utf8=data))
            size += more
        if items:
            yield request()

    def results(self) -> list[Result]:
        """Return one result per text, in order."""
        return [result for result in self._results if result is not None]


def model_of(data: bytes) -> Model:
    """Return the GetModelResponse *data* as a record."""
    response = pb.GetModelResponse.FromString(data)
    limits = response.limits
    return Model(
        name=response.name,
        version=response.version,
        digest=response.digest,
        labels=tuple(response.labels),
        max_tokens=response.max_tokens,
        precision=response.precision,
        provider=response.provider,
        threshold=response.threshold if response.HasField("threshold") else None,
        limits=Limits(*(getattr(limits, limit.name) for limit in fields(Limits))),
        languages=tuple(response.languages),
    )


def _encode(item: object) -> bytes:
    """Return the text *item* as bytes. Raises TextError."""
    text = text_of(item)
    if isinstance(text, TextError):
        raise text
    # Lone surrogates are encoded too, so that such a text fails alone and not the whole message.
    data = text.encode("utf-8", "surrogatepass")
    check_size(len(data))
    return data


def _prediction(got: pb.Prediction, labels: tuple[str, ...], digest: str) -> Prediction:
    """Return the message *got* as a record."""
    return Prediction(
        label=got.label,
        probs=Probs(got.probs, labels),
        score=got.score if got.HasField("score") else None,
        confidence=got.confidence,
        abstained=got.abstained,
        truncated=got.truncated,
        tokens=got.tokens,
        # A server of an older version sends no reason, and knows only this one.
        abstain_reason=_REASONS.get(
            got.abstain_reason, "LOW_CONFIDENCE" if got.abstained else None
        ),
        model_digest=digest,
        sentences=tuple(
            Sentence(
                start=one.start,
                end=one.end,
                label=one.label,
                probs=Probs(one.probs, labels),
                change=one.change if one.HasField("change") else None,
            )
            for one in got.sentences
        ),
        neighbours=tuple(Neighbour(one.id, one.label, one.similarity) for one in got.neighbours),
    )
