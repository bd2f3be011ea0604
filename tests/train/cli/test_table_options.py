"""The options that say how a table is written."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest

from sentimill.cli.options import TableOptions
from sentimill.cli.score import score
from sentimill_train.cli.curate import curate
from sentimill_train.cli.drift import drift
from sentimill_train.cli.evaluate import evaluate
from sentimill_train.cli.export import export
from sentimill_train.cli.index import add
from sentimill_train.cli.label import label
from sentimill_train.cli.sample import sample
from sentimill_train.cli.train import train
from sentimill_train.cli.trim import trim


@pytest.mark.parametrize(
    "command",
    [add, curate, drift, evaluate, export, label, sample, score, train, trim],
    ids=lambda c: c.__name__,
)
def test_every_command_reads_a_table_by_the_same_options(command: Callable[..., None]) -> None:
    """Whoever trains on a file of semicolons and latin-1 can judge and export with it too."""
    wanted = inspect.signature(TableOptions).parameters
    found = inspect.signature(command).parameters

    assert {"text_column", "delimiter", "quote", "escape", "encoding"} <= wanted.keys()
    for name, option in wanted.items():
        assert name in found, name
        assert found[name].default == option.default, name
