"""The loop learns, repeats itself from a seed, and its loss is the one that is written down."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from sentimill_train.model import autocast
from sentimill_train.model.autocast import fast_dtype, training_attention
from sentimill_train.model.student import Student, predict
from sentimill_train.training import loop as fitting
from sentimill_train.training.loop import FitConfig, Progress, fit
from train_parts import reviews, rows_of, student

QUICK = FitConfig(epochs=4, learning_rate=5e-3, batch_tokens=1024)
TRAIN = rows_of(reviews(240))
VALIDATION = rows_of(reviews(40, seed=1))


def test_it_learns_which_of_two_words_decides(tmp_path: Path) -> None:
    """On reviews that it has not seen, in seconds."""
    made = student(tmp_path)

    found = fit(made, TRAIN, VALIDATION, QUICK)

    test = rows_of(reviews(100, seed=2))
    assert (predict(made, test).argmax(1) == test.gold).mean() == 1.0
    assert found.macro_f1 == 1.0
    assert not made.training


def test_it_learns_from_shares_alone(tmp_path: Path) -> None:
    """With soft_weight 1 the labels are not looked at, and the shares are matched."""
    made = student(tmp_path)
    train = rows_of(reviews(240, shares=True))
    config = FitConfig(epochs=8, learning_rate=5e-3, batch_tokens=1024, soft_weight=1, patience=8)

    fit(made, train, rows_of(reviews(40, seed=1)), config)

    logits = torch.from_numpy(predict(made, VALIDATION))
    assert F.softmax(logits, -1).max(-1).values.mean().item() == pytest.approx(0.9, abs=0.05)


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    """To the bit, so that a run can be repeated."""
    first, second, other = (student(tmp_path / str(i)) for i in range(3))
    short = FitConfig(epochs=1, learning_rate=5e-3, batch_tokens=1024)

    runs = [fit(made, TRAIN, VALIDATION, short) for made in (first, second)]
    fit(other, TRAIN, VALIDATION, FitConfig(epochs=1, learning_rate=5e-3, seed=1))

    assert (runs[0].macro_f1, runs[0].nll) == (runs[1].macro_f1, runs[1].nll)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name
    assert not torch.equal(first.head.weight, other.head.weight)


def test_accumulated_batches_make_the_step_of_one_large_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four of 8 rows against one of 32: the same weights but for float noise, in as many steps."""
    train = rows_of(reviews(200))
    found = []
    for tokens, accumulate in ((4096, 1), (1024, 4)):
        made = student(tmp_path / str(accumulate))
        without_dropout(made)
        monkeypatch.setattr(fitting, "plan_epoch", in_order)
        config = FitConfig(
            epochs=2,
            learning_rate=1e-3,
            batch_tokens=tokens,
            accumulate=accumulate,
            patience=9,
            bf16=False,
        )
        found.append((made, fit(made, train, VALIDATION, config)))

    (large, one), (small, four) = found
    assert one.steps == four.steps == 14
    for name, tensor in large.state_dict().items():
        torch.testing.assert_close(tensor, small.state_dict()[name], atol=2e-5, rtol=1e-4)


def without_dropout(made: Student) -> None:
    """Take the noise out, which differs with the shape of a batch."""
    for module in made.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0


def in_order(
    lengths: NDArray[np.int64], *, batch_tokens: int, batch_rows: int, rng: object
) -> Iterator[list[int]]:
    """Plan the rows as they come."""
    rows = list(range(len(lengths)))
    yield from (rows[start : start + batch_rows] for start in range(0, len(rows), batch_rows))


def losses(values: list[float]) -> Callable[..., float]:
    """Return a validation loss that is each of *values* in turn."""
    left = iter(values)
    return lambda logits, gold: next(left)


def test_it_stops_when_validation_gets_no_better_and_keeps_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Patience 2 after the best epoch 2 stops at 4, with the weights of 2."""
    made = student(tmp_path)
    weights = []

    def watch(progress: Progress) -> None:
        if progress.epoch_ended:
            weights.append(made.head.weight.detach().clone())

    monkeypatch.setattr(fitting, "calibrated_nll", losses([0.5, 0.3, 0.3, 0.4]))
    config = FitConfig(epochs=9, learning_rate=1e-3, batch_tokens=1024, patience=2)

    found = fit(made, TRAIN, VALIDATION, config, watch)

    assert (found.epochs, found.best_epoch, found.nll) == (4, 2, 0.3)
    assert torch.equal(made.head.weight, weights[1])
    assert not torch.equal(made.head.weight, weights[3])


def test_progress_goes_from_the_first_row_to_the_last(tmp_path: Path) -> None:
    """A bar can be drawn of it; the score comes when an epoch ends."""
    told: list[Progress] = []

    fit(student(tmp_path), TRAIN, VALIDATION, FitConfig(epochs=2), told.append)

    rows = [progress.rows for progress in told]
    assert rows == sorted(rows)
    assert (rows[-1], told[-1].rows_total) == (480, 480)
    assert (told[0].macro_f1, told[0].nll) == (None, None)
    assert [p.epoch for p in told if p.epoch_ended] == [1, 2]
    assert None not in [each for p in told if p.epoch_ended for each in (p.macro_f1, p.nll)]


def test_whoever_watches_can_stop_it(tmp_path: Path) -> None:
    """An error in the watcher is not swallowed."""

    def stop(progress: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(student(tmp_path), TRAIN, VALIDATION, QUICK, stop)


def test_short_reviews_do_not_make_large_steps() -> None:
    """A step has one row for each 128 tokens of its budget, and at least one."""
    assert FitConfig(batch_tokens=2048).batch_rows == 16
    assert FitConfig(batch_tokens=1).batch_rows == 1


@pytest.fixture
def fast_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this CPU one that multiplies bfloat16 three times as fast as float32."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    monkeypatch.setattr(autocast, "bfloat16_speedup", lambda: 3.0)


@pytest.mark.parametrize(
    ("capabilities", "speedup", "expected"),
    [
        ({"avx512_bf16": True}, 3.1, torch.bfloat16),
        ({"amx_bf16": True}, 3.1, torch.bfloat16),
        ({"avx512_bf16": True}, 0.4, None),
        ({"avx512_f": True}, 3.1, None),
        ({}, 3.1, None),
    ],
)
def test_bfloat16_is_used_where_the_processor_is_faster_at_it(
    monkeypatch: pytest.MonkeyPatch,
    capabilities: dict[str, bool],
    speedup: float,
    expected: torch.dtype | None,
) -> None:
    """Emulated, it is slower than float32, and so it is on some processors that have it."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    monkeypatch.setattr(autocast, "bfloat16_speedup", lambda: speedup)

    assert fast_dtype(torch.device("cpu")) is expected


def test_the_speed_of_bfloat16_is_measured_once_in_a_process() -> None:
    """A training whose parts measured differently would not come out the same twice."""
    found = autocast.bfloat16_speedup()

    assert 0 < found < 1000
    assert autocast.bfloat16_speedup() == found


@pytest.mark.usefixtures("fast_bf16")
@pytest.mark.parametrize("bf16", [True, False])
def test_training_works_in_bfloat16_and_in_float32(tmp_path: Path, bf16: bool) -> None:
    """On any CPU: torch emulates bfloat16 where there is none. The record says which it was."""
    found = fit(student(tmp_path), TRAIN, VALIDATION, replace(QUICK, bf16=bf16))

    assert (found.autocast, found.macro_f1) == ("bfloat16" if bf16 else "float32", 1.0)


@pytest.mark.usefixtures("fast_bf16")
@pytest.mark.parametrize(("bf16", "fused"), [(True, False), (False, True)])
def test_short_rows_in_bfloat16_learn_without_the_fused_attention(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bf16: bool, fused: bool
) -> None:
    """It is slow backward there. Twice gives the same weights, and afterwards it is on again."""
    config = replace(QUICK, epochs=1, bf16=bf16)
    made, again = (student(tmp_path / str(i)) for i in range(2))
    read, found = made.read, []

    def read_and_look(ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found.append(torch.backends.cuda.flash_sdp_enabled())
        return read(ids, mask)

    monkeypatch.setattr(made, "read", read_and_look)
    fit(made, TRAIN, VALIDATION, config)
    fit(again, TRAIN, VALIDATION, config)

    assert found[0] is fused
    assert torch.backends.cuda.flash_sdp_enabled()
    assert all(
        torch.equal(a, b) for a, b in zip(made.parameters(), again.parameters(), strict=True)
    )


@pytest.mark.parametrize(
    ("device", "dtype", "tokens", "fused"),
    [
        ("cpu", torch.bfloat16, 128, False),
        ("cpu", torch.bfloat16, 129, True),
        ("cpu", None, 25, True),
        ("cuda", torch.bfloat16, 25, True),
    ],
)
def test_the_fused_attention_is_left_out_where_it_was_measured_to_be_slower(
    device: str, dtype: torch.dtype | None, tokens: int, fused: bool
) -> None:
    """Of long rows, of float32 and of a GPU it is the faster one."""
    with training_attention(torch.device(device), dtype, tokens):
        assert torch.backends.cuda.flash_sdp_enabled() is fused
