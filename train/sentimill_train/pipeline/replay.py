"""The replay: reviews that a continued student learns again, so that it forgets less."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from sentimill.text.tokenizer import TextEncoder
from sentimill_train.data.examples import read_examples, stream_texts
from sentimill_train.data.schema import SENTIMENTS, Example
from sentimill_train.data.splits import sample_rows, split_of, text_key
from sentimill_train.data.tokenized import Rows, tokenise
from sentimill_train.pipeline.config import TrainConfig
from sentimill_train.training.defaults import replayed_rows
from sentimill_train.training.targets import human_labels

_PACKAGED: Final = ("starter", "hard-kinds")
_VALIDATION_ROWS: Final = 200
"""Rows that help to choose the share of the new weights; using all took as long as a training."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """Rows of other reviews, on which a continued student should still answer well.

    train: learnt together with the own rows. validation: used to choose the share of new weights.
    """

    train: Rows
    validation: Rows


def read_replay(
    config: TrainConfig, own: Sequence[Example], encoder: TextEncoder, labels: Sequence[str]
) -> Replay | None:
    """Return the rows to replay with the *own* reviews, according to `replay` and `anchors`.

    `replay` adds reviews of the package (labels: `SENTIMENTS`), at most `replayed_rows` of them.
    Only the texts of `anchors` are used, not their labels. A text that is among the own reviews is
    not replayed.
    """
    train: list[Example] = []
    validation: list[Example] = []
    if config.replay and tuple(labels) == SENTIMENTS:
        for example in (e for source in _PACKAGED for e in read_examples(source)):
            split = example.split or split_of(example.text)
            if split != "test":
                (train if split == "train" else validation).append(example)
        train = human_labels(train, labels)  # validation keeps its labels, to compute its loss
        order = np.random.default_rng(config.fit.seed).permutation(len(train))
        train = [train[i] for i in np.sort(order[: replayed_rows(len(own))])]
        validation = sample_rows(validation, _VALIDATION_ROWS)
    for source in config.anchors:
        texts = enumerate(stream_texts(source, config.columns))
        train += [Example(id=f"{source}-{i}", text=text, source=source) for i, (text, _) in texts]
    keys = {text_key(example.text) for example in (*train, *validation)}
    taken = {key for example in own if (key := text_key(example.text)) in keys}
    splits = [[e for e in each if text_key(e.text) not in taken] for each in (train, validation)]
    if not any(splits):
        return None
    first, second = (tokenise(each, encoder, labels)[0] for each in splits)
    return Replay(train=first, validation=second)
