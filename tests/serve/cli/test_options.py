"""How an annotated parameter becomes an option of a command."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from sentimill.cli import options as opt
from sentimill.errors import UsageError

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
        CliRunner().invoke(app, ["show", *flags])
        for flags in ([], ["--dry-run"], ["--named", "--dry-run"])
    ]

    assert [run.output for run in runs] == ["False False\n", "True False\n", "True True\n"]
    assert CliRunner().invoke(app, ["show", "--no-dry-run"]).exit_code == 2
    assert CliRunner().invoke(app, ["show", "--other"]).exit_code == 2


@app.command()
@opt.with_groups
def model(
    context: typer.Context, *, bundle: opt.BundleOption = None, server: opt.ServerOption = None
) -> None:
    """Print which model is used."""
    found = opt.one_model(context, bundle, server)
    typer.echo(" ".join(str(one) for one in found))


@pytest.mark.parametrize(
    ("flags", "variables", "used"),
    [
        ("", "", "None None"),
        ("", "bundle", "here None"),
        ("", "server", "None there:1"),
        ("", "bundle server", "None there:1"),
        ("bundle", "", "here None"),
        ("server", "", "None there:1"),
        ("bundle", "server", "here None"),
        ("server", "bundle", "None there:1"),
        ("bundle", "bundle server", "here None"),
        ("server", "bundle server", "None there:1"),
    ],
)
def test_a_model_on_the_command_line_goes_before_one_from_a_variable(
    flags: str, variables: str, used: str
) -> None:
    """Whichever of the two it is; of two variables the server counts."""
    values = {"bundle": "here", "server": "there:1"}
    names = {"bundle": "SENTIMILL_BUNDLE", "server": "SENTIMILL_MODEL_SERVER"}
    given = [f"--{name}={values[name]}" for name in flags.split()]
    env = {names[name]: values[name] for name in variables.split()}

    found = CliRunner().invoke(app, ["model", *given], env=env, auto_envvar_prefix="SENTIMILL")

    assert (found.exit_code, found.output) == (0, f"{used}\n")


@pytest.mark.parametrize("variables", [{}, {"SENTIMILL_BUNDLE": "other"}])
def test_two_models_on_the_command_line_are_refused(variables: dict[str, str]) -> None:
    """Nobody can know which is meant."""
    given = ["model", "--bundle=here", "--server=there:1"]

    found = CliRunner().invoke(app, given, env=variables)

    assert isinstance(found.exception, UsageError)
    assert found.exception.reason == "NO_MODEL"


@pytest.mark.parametrize("escape", ["n", "o", "e", '"', "\\"])
def test_the_word_none_forbids_no_escape(escape: str) -> None:
    """`none` is no quote character, so neither its letters nor the default quote are taken."""
    table = opt.TableOptions(quote="none", escape=escape)

    assert (table.quote_mark, table.escape) == (None, escape)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"escape": '"'}, "BAD_ESCAPE"),
        ({"quote": "'", "escape": "'"}, "BAD_ESCAPE"),
        ({"quote": "none", "delimiter": ";", "escape": ";"}, "BAD_ESCAPE"),
        ({"quote": "none", "escape": "\n"}, "BAD_ESCAPE"),
        ({"quote": "\n"}, "BAD_QUOTE"),
        ({"quote": ";", "delimiter": ";"}, "BAD_QUOTE"),
        ({"delimiter": '"'}, "BAD_DELIMITER"),
    ],
)
def test_one_character_has_one_meaning(given: dict[str, str], reason: str) -> None:
    """A line end has its own already."""
    with pytest.raises(UsageError) as refused:
        opt.TableOptions(**given)  # type: ignore[arg-type] # one of them is a list of texts

    assert refused.value.reason == reason


def test_an_output_replaces_neither_an_input_nor_another_output(tmp_path: Path) -> None:
    """By whatever name, also where it is not there yet; a device would become a file."""
    reviews, other, pipe = tmp_path / "r.csv", tmp_path / "o.csv", tmp_path / "pipe"
    reviews.write_text("text\ngood\n")
    (tmp_path / "link").symlink_to(reviews)
    os.mkfifo(pipe)
    opt.check_outputs([other, None], [str(reviews), None, "starter"])

    for outputs, inputs, why in (
        ([reviews], [reviews], "is an input too"),
        ([tmp_path / "link"], [str(reviews)], "is an input too"),
        ([other, tmp_path / "." / "o.csv"], [], "is another output too"),
        ([pipe], [], "is a device or a pipe"),
        ([Path("/dev/stdout")], [], "is a device or a pipe"),
    ):
        with pytest.raises(UsageError, match=why):
            opt.check_outputs(outputs, inputs)
