"""A fine-tuned classifier as the teacher of a student, with its logits and token states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

from sentimill.classifier import plan_batches
from sentimill.errors import UsageError
from sentimill.text.tokenizer import TextEncoder, Truncation
from sentimill_train.data.schema import Example
from sentimill_train.data.tokenized import Rows, tokenise
from sentimill_train.model.autocast import autocast
from sentimill_train.model.pretrained import Pretrained, find_pretrained
from sentimill_train.model.student import (
    Student,
    is_student,
    load_student,
    positions_of,
    to_device,
    to_tensors,
)
from sentimill_train.training.distributed import current_process

_BATCH_TOKENS: Final = 16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class Teacher:
    """A classifier, and the rows of train as tokenised by its own tokenizer.

    order: for each of our labels, its index among the labels of the classifier.
    """

    source: Pretrained
    model: PreTrainedModel
    rows: Rows
    order: tuple[int, ...]

    def read(self, chosen: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return the logits (rows, labels) of the *chosen* rows, and the states of their tokens.

        The states are the output of the last layer (rows, tokens, hidden). Neither has a gradient.
        """
        ids, mask = to_tensors(self.model, self.rows, chosen)
        with torch.no_grad():
            if isinstance(self.model, Student):
                logits, states = self.model.read(ids, mask)
            else:
                found = self.model(input_ids=ids, attention_mask=mask, output_hidden_states=True)
                logits, states = found.logits, found.hidden_states[-1]
        return logits[:, list(self.order)].float(), states

    def logits(self, wanted: Sequence[int], dtype: torch.dtype | None) -> NDArray[np.float32]:
        """Return the logits (wanted, labels) of the rows *wanted*.

        In a process group each process computes a part, and every process gets all logits.
        dtype: of matrix products, see `fast_dtype`.
        """
        process = current_process()
        each = -(-len(wanted) // process.count)
        part = list(wanted)[process.rank * each : (process.rank + 1) * each]
        found = np.zeros((each, len(self.order)), dtype=np.float32)
        lengths = self.rows.lengths()[part].tolist()
        for places in plan_batches(lengths, _BATCH_TOKENS):
            with autocast(self.model.device, dtype):
                logits, _ = self.read([part[i] for i in places])
            found[places] = logits.cpu().numpy()
        parts = process.gather(torch.from_numpy(found))
        return np.asarray(torch.cat(parts).numpy()[: len(wanted)])

    def check_states(self, student: Student, rows: Rows) -> None:
        """Raise unless *student* has states of the same size for the same tokens.

        Raises:
            UsageError: HIDDEN_DIFFERS.
        """
        sizes = [int(model.config.hidden_size) for model in (student, self.model)]
        if sizes[0] != sizes[1] or not np.array_equal(rows.ids, self.rows.ids):
            raise UsageError(
                f"--hidden-weight compares token states, but {self.source.name} has another"
                f" tokenizer than the student, or another hidden size ({sizes[1]}, not {sizes[0]}):"
                " leave it out, or give a --teacher-bundle of the same base",
                reason="HIDDEN_DIFFERS",
            )


def load_teacher(
    folder: Path,
    labels: Sequence[str],
    examples: Sequence[Example],
    *,
    max_tokens: int,
    truncation: Truncation,
) -> Teacher:
    """Return the bundle or sequence classifier in *folder*, with *examples* as its rows.

    Raises:
        UsageError: those of `find_pretrained`; TEACHER_UNSUPPORTED if transformers cannot load it
            as a classifier without custom code, or its tokenizer refuses a text; LABELS_DIFFER.
    """
    if not folder.is_dir():
        raise _unsupported(folder, "there is no such folder")
    source = find_pretrained(str(folder))
    try:
        config = AutoConfig.from_pretrained(folder)
        order = _order_of(config.id2label or {}, labels, source.name)
        model: PreTrainedModel
        if is_student(config):
            model = load_student(folder)
        else:
            model = AutoModelForSequenceClassification.from_pretrained(
                folder, config=config, use_safetensors=True, dtype=torch.float32
            )
    except (OSError, ValueError) as error:
        raise _unsupported(folder, str(error)) from error
    model.float()
    model.train(False)
    to_device(model)
    encoder = TextEncoder(
        source.tokenizer_json(),
        max_tokens=min(max_tokens, positions_of(config)),
        truncation=truncation,
    )
    rows, refused = tokenise(examples, encoder, labels)
    if refused:
        raise _unsupported(folder, f"its tokenizer refuses {len(refused)} of the rows")
    return Teacher(source=source, model=model, rows=rows, order=order)


def _order_of(id2label: dict[int, str], labels: Sequence[str], name: str) -> tuple[int, ...]:
    """Return the index of each of *labels* in *id2label*, ignoring case.

    Raises:
        UsageError: LABELS_DIFFER.
    """
    where = {str(label).casefold(): int(i) for i, label in id2label.items()}
    if sorted(where) != sorted(label.casefold() for label in labels):
        raise UsageError(
            f"--teacher-bundle {name} has the labels {', '.join(id2label.values())}, not"
            f" {', '.join(labels)}: name them in the id2label of its config.json, or with --labels",
            reason="LABELS_DIFFER",
        )
    return tuple(where[label.casefold()] for label in labels)


def _unsupported(folder: Path, why: str) -> UsageError:
    return UsageError(
        f"--teacher-bundle {folder} cannot be used ({why}): give a bundle, or the folder of a"
        " sequence classifier of transformers",
        reason="TEACHER_UNSUPPORTED",
    )
