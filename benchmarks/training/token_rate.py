"""How many tokens a second does `train` learn on a CPU, compared with bare forward and backward?

    python -m benchmarks.training.token_rate --data DATA

The bound is forward and backward of the same student, on the same batches, with the same autocast:
the arm `bare`. The arm `loop` is `fit` itself, timed from the end of its first step to the end of
its last. Every other arm is `bare` with one change:

- `optimizer`: with clipping and AdamW, each timed, so that the rest of a step is known
- `embeddings`: as `optimizer`, and the word vectors are trained too; `train` freezes them
- `cast_linear`: a copy of the student keeps the weights of its linear layers in bfloat16. Each step
  copies the weights to it and the gradients back; autocast then has no weight to cast
- `cast_encoder`: the same with the whole encoder in bfloat16, and without autocast
- `math_attention`: attention from plain products. PyTorch's flash kernel, which it uses on a CPU if
  attention has no dropout, is slower backward
- `dropout`: 0.1 in the encoder; the included model was trained without dropout

All arms run in one process in turns, every second turn in reverse order. A ratio compares two arms
of one turn, and figures are medians over the turns. Only the tokens of the reviews count, not
padding. Backward has twice the matrix products of forward. Writes `results/token_rate.json`.
"""

from __future__ import annotations

import argparse
import os
import random
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.record import RESULTS, surroundings, write_result
from benchmarks.reviews import read_reviews
from sentimill.text.tokenizer import TextEncoder
from sentimill_train.data.schema import SENTIMENTS, Example
from sentimill_train.data.tokenized import Rows, plan_epoch, tokenise
from sentimill_train.model.autocast import autocast, fast_dtype
from sentimill_train.model.pretrained import find_pretrained
from sentimill_train.model.student import Student, freeze_embeddings, new_student, to_tensors
from sentimill_train.training.loop import FitConfig, fit, seed_everything
from sentimill_train.training.optimizer import new_optimizer

CONFIG: Final = FitConfig(epochs=1)
TOKENS: Final = (26, 73)
TOKENS_OF_A_WORD: Final = 1.26
MAX_TOKENS: Final = 256

Parts = dict[str, float]
"""Seconds by part of a step, summed over the steps of a turn, without its first step."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one step on the student's device: ids and mask (rows, longest), gold (rows,)."""

    ids: Tensor
    mask: Tensor
    gold: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Bare:
    """Forward and backward of *student*, and what an arm adds to them.

    dtype: of autocast; None leaves the types as they are. weights: the float32 student whose
    weights are copied to *student* at each step, and which gets its gradients.
    """

    student: Student
    dtype: torch.dtype | None
    weights: Student | None = None
    optimizer: torch.optim.Optimizer | None = None
    attention: Sequence[SDPBackend] = (SDPBackend.FLASH_ATTENTION, SDPBackend.MATH)

    def turn(self, batches: Sequence[Batch]) -> Parts:
        """Return the seconds of each part."""
        self.student.train()
        with sdpa_kernel(list(self.attention)):
            steps = [self._step(batch) for batch in batches][1:]
        return {part: sum(step[part] for step in steps) for part in steps[0]}

    def _step(self, batch: Batch) -> Parts:
        parts: Parts = {}
        began = time.perf_counter()

        def ended(part: str) -> None:
            nonlocal began
            now = time.perf_counter()
            parts[part] = parts.get(part, 0.0) + now - began
            began = now

        pairs = self._pairs()
        if pairs:
            with torch.no_grad():
                torch._foreach_copy_([own for own, _ in pairs], [kept for _, kept in pairs])
            ended("cast")
        with autocast(self.student.device, self.dtype):
            logits = self.student(batch.ids, batch.mask)
        loss = nn.functional.cross_entropy(logits, batch.gold)
        ended("forward")
        loss.backward()
        ended("backward")
        if pairs:
            for own, kept in pairs:
                kept.grad = None if own.grad is None else own.grad.to(kept.dtype)
            ended("cast")
        if self.optimizer is not None:
            nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
            ended("clip")
            self.optimizer.step()
            ended("optimizer")
        self.student.zero_grad()
        return parts

    def _pairs(self) -> list[tuple[nn.Parameter, nn.Parameter]]:
        """Return the parameters that are cast, each with that in float32."""
        if self.weights is None:
            return []
        both = zip(self.student.parameters(), self.weights.parameters(), strict=True)
        return [(own, kept) for own, kept in both if own.dtype != kept.dtype and own.requires_grad]


def main() -> None:
    """Measure at each length, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of Parquet files")
    parser.add_argument("--steps", type=int, default=13, help="in a turn; the first is not timed")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS / "token_rate.json")
    given = parser.parse_args()
    result = {
        "question": __doc__.partition("\n")[0],
        "steps": given.steps - 1,
        "turns": given.turns,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        **surroundings(),
    }
    student, encoder = start()
    lengths = []
    for tokens in TOKENS:
        rows = cut_rows(given.data, tokens, given.steps, encoder)
        lengths.append(measured(student, rows, given.turns) | {"load_average": os.getloadavg()[0]})
        written = write_result(given.out, result | {"lengths": lengths})
    print(written)  # noqa: T201 # the result of a program


def start() -> tuple[Student, TextEncoder]:
    """Return a student of the included model's shape, on the CPU, without dropout like it."""
    seed_everything(0)
    pretrained = find_pretrained()
    vocabulary = Tokenizer.from_buffer(pretrained.tokenizer_json()).get_vocab_size()
    encoder = TextEncoder(
        pretrained.tokenizer_json(), max_tokens=MAX_TOKENS, truncation="head-tail"
    )
    student = new_student("minilm-l6", pretrained, SENTIMENTS, vocabulary=vocabulary, dropout=0.0)
    return student, encoder


def cut_rows(data: Path, tokens: int, steps: int, encoder: TextEncoder) -> Rows:
    """Return rows for *steps* full batches, cut at half to one and a half times *tokens*."""
    draw = random.Random(0)
    words = (tokens - 2) / TOKENS_OF_A_WORD  # two tokens mark the ends
    count = steps * CONFIG.batch_rows
    long = [text.split() for text in read_reviews(data, 8 * count)]
    chosen = [text for text in long if len(text) > 1.5 * words][:count]
    examples = [
        Example(
            id=str(i),
            text=" ".join(text[: round(words * draw.uniform(0.5, 1.5))]),
            label=draw.choice(SENTIMENTS),
            source="cut",
        )
        for i, text in enumerate(chosen)
    ]
    rows, refused = tokenise(examples, encoder, SENTIMENTS)
    assert not refused, f"{len(refused)} rows cannot be read"
    return rows


def measured(student: Student, rows: Rows, turns: int) -> dict[str, Any]:
    """Return tokens a second of every arm, ratios to `bare`, and milliseconds a step by part."""
    plan = list(
        plan_epoch(
            rows.lengths(),
            batch_tokens=CONFIG.batch_tokens,
            batch_rows=CONFIG.batch_rows,
            rng=np.random.default_rng(CONFIG.seed),
        )
    )
    batches = [
        Batch(*to_tensors(student, rows, chosen), torch.from_numpy(rows.gold[chosen]))
        for chosen in plan
    ]
    timed = [int(batch.mask.sum()) for batch in batches[1:]]
    arms: dict[str, Callable[[], Parts]] = {"loop": partial(loop_turn, frozen(student), rows)}
    arms |= {name: partial(arm.turn, batches) for name, arm in bare_arms(student).items()}
    found: dict[str, list[Parts]] = {name: [] for name in arms}
    for number in range(turns + 1):
        for name in list(arms) if number % 2 else reversed(arms):
            parts = arms[name]()
            if number:  # the first turn warms up
                found[name].append(parts)
    seconds = {name: [sum(parts.values()) for parts in each] for name, each in found.items()}
    return {
        "tokens_of_a_row": float(rows.lengths().mean()),
        "tokens_of_a_step": sum(timed) / len(timed),
        "backward_of_forward": median(one["backward"] / one["forward"] for one in found["bare"]),
        "arms": {
            name: {
                "tokens_per_second": median(sum(timed) / one for one in seconds[name]),
                "of_bare": compared(seconds[name], seconds["bare"]),
                "ms_of_a_step": {
                    part: 1000 * median(one[part] for one in each) / len(timed) for part in each[0]
                },
            }
            for name, each in found.items()
        },
        "embeddings_of_optimizer": compared(seconds["embeddings"], seconds["optimizer"]),
    }


def compared(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    """Return how much faster *ours* is than *theirs* in each turn, from seconds."""
    ratios = [their / our for our, their in zip(ours, theirs, strict=True)]
    return {"times_as_fast": median(ratios), "each": ratios}


def frozen(student: Student) -> Student:
    """Return a copy of *student* that is trained as `train` trains it."""
    copy = deepcopy(student)
    freeze_embeddings(copy)
    return copy


def bare_arms(student: Student) -> dict[str, Bare]:
    """Return the arms that are not `fit`; those that cast, where bfloat16 is faster."""
    dtype = fast_dtype(student.device)
    plain, stepping, whole = frozen(student), frozen(student), deepcopy(student)
    dropping = frozen(student)
    for module in dropping.encoder.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.1
    arms = {
        "bare": Bare(student=plain, dtype=dtype),
        "optimizer": Bare(student=stepping, dtype=dtype, optimizer=adamw(stepping)),
        "embeddings": Bare(student=whole, dtype=dtype, optimizer=adamw(whole)),
        "math_attention": Bare(student=plain, dtype=dtype, attention=(SDPBackend.MATH,)),
        "dropout": Bare(student=dropping, dtype=dtype),
    }
    if dtype is not None:
        linear, encoder = frozen(student), frozen(student)
        for module in linear.encoder.modules():
            if isinstance(module, nn.Linear):
                module.to(dtype)
        nn.Module.to(encoder.encoder, dtype)
        arms["cast_linear"] = Bare(student=linear, dtype=dtype, weights=plain)
        arms["cast_encoder"] = Bare(student=encoder, dtype=None, weights=plain)
    return arms


def adamw(student: Student) -> torch.optim.Optimizer:
    """Return the optimizer of the loop at a rate that hardly moves the weights."""
    return new_optimizer(student, 1e-6, CONFIG.head_factor)


def loop_turn(student: Student, rows: Rows) -> Parts:
    """Return the seconds between the ends of the first and the last step of `fit`."""
    ends: list[float] = []
    held_out = rows.take(np.arange(CONFIG.batch_rows))
    fit(student, rows, held_out, CONFIG, lambda progress: ends.append(time.perf_counter()))
    return {"step": ends[-2] - ends[0]}  # the last call is the one at the end of the epoch


if __name__ == "__main__":
    main()
