"""How an annotated parameter becomes an option of a command."""

from __future__ import annotations

from typing import Annotated

import typer
from typer.testing import CliRunner

from sentimill.cli import options as opt

app = typer.Typer()


@app.command()
@opt.with_groups
def show(
    *,
    dry_run: Annotated[bool, opt.Output(help="Do nothing.")] = False,
    other: Annotated[bool, opt.Output("--named", help="Has a flag of its own.")] = False,
) -> None:
    """Print what was given."""
    typer.echo(f"{dry_run} {other}")


def test_a_boolean_option_has_the_flag_of_its_name_unless_it_names_one() -> None:
    """There is no `--no-` form, which Typer would add by itself."""
    runs = [
        CliRunner().invoke(app, flags) for flags in ([], ["--dry-run"], ["--named", "--dry-run"])
    ]

    assert [run.output for run in runs] == ["False False\n", "True False\n", "True True\n"]
    assert CliRunner().invoke(app, ["--no-dry-run"]).exit_code == 2
    assert CliRunner().invoke(app, ["--other"]).exit_code == 2
