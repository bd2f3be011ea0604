"""`sentimill token`: a token for one caller of a server."""

from __future__ import annotations

from typing import Annotated

import typer


def token(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of the caller: not secret, no blanks.")
    ],
    *,
    texts_per_second: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            help="Quota of the caller at one server; its --workers share it.",
            show_default="no quota",
        ),
    ] = None,
) -> None:
    """Make a token for one caller.

    The token goes to stdout. Its line for the file of `serve --tokens` goes to stderr.
    """
    from sentimill.server.access.auth import new_token

    made, line = new_token(name, texts_per_second)
    typer.echo(made)
    # Not the console: it would wrap a long line, and each line of the file is one caller.
    typer.echo(line, err=True)
