"""The commands of this room as a process of their own, for tests that kill it."""

from __future__ import annotations

import sys

import typer

from sentimill.errors import SentimillError, outcome
from sentimill_train.cli.curate import curate
from sentimill_train.cli.label import label

app = typer.Typer()
app.command()(label)
app.command()(curate)

if __name__ == "__main__":
    try:
        app(standalone_mode=False)
    except SentimillError as error:
        sys.stderr.write(f"{error.reason}: {error}\n")
        sys.exit(outcome(error).exit)
