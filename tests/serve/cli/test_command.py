"""What every command has: help that fits, a variable for each option, no option twice."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest
import typer.main

import sentimill as sentimill_package
from cli_in_process import Run, Sentimill
from sentimill.cli.main import add_command, app

COMMANDS = ("classify", "score", "serve", "token", "doctor", "bundle inspect", "bundle verify")
TRAINING = (
    "label", "curate", "train", "evaluate", "export", "trim", "index add", "index remove", "cost",
    "drift", "sample",
)  # fmt: skip
PROGRAM = (sys.executable, "-c", "from sentimill.cli.main import main; main()")


@pytest.mark.parametrize("command", ["", *COMMANDS, *TRAINING])
def test_help_fits_into_80_columns(
    sentimill: Sentimill, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """Nothing is cut, lines are short, and the page has fewer than 100 lines."""
    monkeypatch.setenv("COLUMNS", "80")

    lines = sentimill(*command.split(), "--help").out.splitlines()

    assert max(map(len, lines)) <= 80
    assert len(lines) < 100
    assert not any("…" in line for line in lines)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_the_variables_once_and_the_exit_codes(
    sentimill: Sentimill, command: str
) -> None:
    """A reader learns the rule from one example and finds what a script may test."""
    text = " ".join(sentimill(*command.split(), "--help").out.split())

    assert "env var" not in text
    assert text.count("can also be set by a variable") == (command != "bundle verify")
    assert "Exit codes: 0 success" in text


def test_flags_are_alike() -> None:
    """A flag turns something on or off in one way: none has a second name with `--no-`."""
    training = typer.Typer()
    for entry in entry_points(group="sentimill.commands"):
        add_command(training, entry)
    groups = [typer.main.get_group(app), typer.main.get_group(training)]
    commands = [command for group in groups for command in group.commands.values()]
    params = [each for command in commands for each in command.params]

    assert {"serve", "curate", "export"} <= {command.name for command in commands}
    assert [option for each in params for option in each.secondary_opts] == []


@pytest.mark.parametrize(
    ("command", "usage"),
    [
        ("classify", "[TEXT]..."),
        ("score", "INPUT... OUTPUT"),
        ("bundle inspect", "[BUNDLE]"),
        ("token", "NAME"),
    ],
)
def test_usage_is_written_as_other_programs_write_it(
    sentimill: Sentimill, command: str, usage: str
) -> None:
    """Brackets are for what may be left out, and nothing has braces."""
    first = sentimill(*command.split(), "--help").out.splitlines()[0]

    assert first == f"Usage: sentimill {command} [OPTIONS] {usage}"


def test_commands_and_options_are_listed_under_headings(sentimill: Sentimill) -> None:
    """What one does first comes first."""
    commands = re.findall(r"^(\w.*):$", sentimill("--help").out, re.MULTILINE)
    options = re.findall(r"^(\w.*):$", sentimill("classify", "--help").out, re.MULTILINE)

    assert commands == [
        "Use a model", "Make a model", "Plan and watch", "Set up and check", "Options",
    ]  # fmt: skip
    assert options == ["Input", "Output", "Model", "Performance", "Secured server", "Options"]


def test_an_option_that_takes_one_value_is_refused_twice(
    sentimill: Sentimill, bundle: Path
) -> None:
    """Exit code 2: of two values one would be lost without a word."""
    found = sentimill("classify", "good", "--bundle", bundle, "--bundle", bundle)

    assert (found.code, found.out) == (2, "")
    assert "'--bundle': it takes one value and is given 2 times" in found.err


def test_an_input_without_an_output_is_told_what_is_missing(sentimill: Sentimill) -> None:
    """Not the input, which is there; and without any name, the input is what is missing first."""
    found = sentimill("score", "reviews.csv", "--text-column", "body")

    assert (found.code, found.out) == (2, "")
    assert "'OUTPUT': it is missing" in found.err
    assert "sentimill score reviews.csv ..." in found.err
    assert "INPUT" in sentimill("score").err.splitlines()[-1]


@pytest.mark.parametrize("name", ["SENTIMILL_CLASSIFY_JSON", "SENTIMILL_CLASSIFY_AS_JSON"])
def test_a_variable_is_named_after_its_flag(
    sentimill: Sentimill, bundle: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The name of the first version, after the Python parameter, still works."""
    monkeypatch.setenv(name, "1")

    assert sentimill("classify", "good", "--bundle", bundle).out.startswith('{"text": "good"')


def test_version_is_printed(sentimill: Sentimill) -> None:
    """Name and version on stdout, for bug reports; a program reads `sentimill.__version__`."""
    assert sentimill_package.__version__ == version("sentimill")
    assert sentimill("--version") == Run(0, f"sentimill {version('sentimill')}\n", "")


@pytest.mark.parametrize(
    ("words", "expected"),
    [("sentimill cl", "classify"), ("sentimill classify --prec", "--precision")],
)
def test_the_shell_completes_commands_and_options(words: str, expected: str) -> None:
    """The program answers bash as the installed script asks it."""
    asked = {
        "_SENTIMILL_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    done = subprocess.run(
        PROGRAM, env={**os.environ, **asked}, capture_output=True, text=True, check=False
    )

    assert done.stdout.split() == [expected]


def test_completion_can_be_installed(tmp_path: Path) -> None:
    """`--install-completion` writes a script that the shell reads at its start."""
    home = {"HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    done = subprocess.run(
        [*PROGRAM, "--install-completion", "bash"],
        env={**os.environ, **home},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    script = tmp_path / ".bash_completions/sentimill.sh"
    assert "_SENTIMILL_COMPLETE=complete_bash" in script.read_text(encoding="utf-8")
    assert str(script) in (tmp_path / ".bashrc").read_text(encoding="utf-8")


def test_a_command_that_serves_does_not_import_the_training(bundle: Path) -> None:
    """It would take as long as all the rest of the start."""
    tell = "import atexit, sys; atexit.register(lambda: print('sentimill_train' in sys.modules))"
    program = f"{tell}; {PROGRAM[2]}"
    done = subprocess.run(
        [sys.executable, "-c", program, "classify", "good", "--bundle", bundle],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stdout.splitlines()[-1] == "False"
