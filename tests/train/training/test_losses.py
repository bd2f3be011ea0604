"""The loss is the one that is written down, at any temperature."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from sentimill_train.data.tokenized import NO_LABEL
from sentimill_train.training.losses import distil_loss, hidden_loss, soften


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_the_loss_mixes_kl_and_cross_entropy_row_by_row(weight: float) -> None:
    """Against sums written out; a row without shares gets the cross-entropy alone."""
    logits = torch.tensor([[1.0, -1.0, 0.5], [0.2, 0.1, -2.0]])
    gold = torch.tensor([2, 0])
    soft = torch.tensor([[0.2, 0.0, 0.8], [0.0, 0.0, 0.0]])

    found = distil_loss(logits, gold, soft, weight).numpy()

    q = (logits.exp() / logits.exp().sum(-1, keepdim=True)).numpy().astype(np.float64)
    kl = 0.2 * np.log(0.2 / q[0, 0]) + 0.8 * np.log(0.8 / q[0, 2])
    expected = [weight * kl + (1 - weight) * -np.log(q[0, 2]), -np.log(q[1, 0])]
    assert found == pytest.approx(expected, rel=1e-5)


def test_the_loss_has_no_gradient_where_the_student_says_the_same() -> None:
    """With soft_weight 1 the shares are the optimum."""
    soft = torch.tensor([[0.2, 0.3, 0.5]])
    logits = soft.log().requires_grad_()

    (gradient,) = torch.autograd.grad(
        distil_loss(logits, torch.tensor([0]), soft, 1.0).sum(), logits
    )

    assert gradient.abs().max().item() < 1e-7


@pytest.mark.parametrize("temperature", [0.5, 2.0, 5.0])
def test_softened_shares_are_a_softmax_at_that_temperature(temperature: float) -> None:
    """Whatever constant the logits lost when they became shares."""
    logits = torch.tensor([[1.0, -1.0, 0.5], [3.0, 0.1, -2.0]])

    found = soften(logits.softmax(-1), temperature)

    torch.testing.assert_close(found, (logits / temperature).softmax(-1))


def test_a_row_without_shares_stays_without() -> None:
    """And at temperature 1 nothing changes, to the bit."""
    shares = torch.tensor([[0.2, 0.31, 0.5], [0.0, 0.0, 0.0]])

    assert soften(shares, 3.0)[1].tolist() == [0.0, 0.0, 0.0]
    assert torch.equal(soften(shares, 1.0), shares)


def test_the_temperature_divides_the_logits_of_the_student_too() -> None:
    """Times T squared; the cross-entropy with the label stays at temperature 1."""
    logits, gold = torch.tensor([[1.0, -1.0, 0.5]]), torch.tensor([2])
    shares_before = torch.tensor([[0.2, 0.1, 0.7]])
    shares = soften(shares_before, 2.0)

    found = distil_loss(logits, gold, shares_before, 0.25, (2.0,))

    kl = (shares * (shares.log() - (logits / 2).log_softmax(-1))).sum(-1)
    torch.testing.assert_close(found, 0.25 * 4 * kl + 0.75 * F.cross_entropy(logits, gold))


def test_several_temperatures_give_the_mean_loss() -> None:
    """A sharp and a soft view of the same shares."""
    logits, gold = torch.tensor([[1.0, -1.0, 0.5]]), torch.tensor([NO_LABEL])
    shares = torch.tensor([[0.2, 0.1, 0.7]])

    one, two = (distil_loss(logits, gold, shares, 1.0, (t,)) for t in (1.0, 2.0))

    torch.testing.assert_close(distil_loss(logits, gold, shares, 1.0, (1, 2)), (one + two) / 2)


def test_a_partial_label_says_nothing_about_labels_that_were_not_allowed() -> None:
    """The cross-entropy is between the two polar classes; neutral gets no gradient."""
    logits = torch.tensor([[1.0, 3.0, 0.5]], requires_grad=True)
    gold, soft = torch.tensor([2]), torch.zeros(1, 3)
    allowed = torch.tensor([[True, False, True]])

    loss = distil_loss(logits, gold, soft, 0.5, allowed=allowed)

    torch.testing.assert_close(loss, F.cross_entropy(logits[:, [0, 2]], torch.tensor([1]))[None])
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert gradient[0, 1] == 0
    assert gradient[0, 2] < 0 < gradient[0, 0]


def test_a_row_without_a_label_learns_from_shares_alone() -> None:
    """As if its soft_weight were 1."""
    logits, shares = torch.tensor([[1.0, -1.0]]), torch.tensor([[0.4, 0.6]])

    found = distil_loss(logits, torch.tensor([NO_LABEL]), shares, 0.25)

    torch.testing.assert_close(found, distil_loss(logits, torch.tensor([0]), shares, 1.0))


def test_the_difference_of_states_leaves_padding_out() -> None:
    """A mean over the tokens of a row, so that a long one counts no more."""
    states = torch.zeros(2, 3, 4)
    wanted = torch.ones(2, 3, 4)
    wanted[0, 0] = 3.0
    wanted[:, 2] = 9.0

    found = hidden_loss(states, wanted, torch.tensor([[1, 1, 0], [1, 0, 0]]))

    assert found.tolist() == [5.0, 1.0]
