"""What all commands share: help that fits into 80 columns, variables, and no repeated options.

Every option can also be set by an environment variable. The name of the variable follows from the
command and the flag: `--threads` of `classify` is `SENTIMILL_CLASSIFY_THREADS`. The help states
this rule once, because a variable next to each option would not fit.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Final, Protocol

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

HEADINGS: Final = ("Use a model", "Make a model", "Plan and watch", "Set up and check")
"""The headings under which `sentimill --help` lists the commands, in this order."""

_EXIT_CODES: Final = (
    "Exit codes: 0 success, 1 failure, 2 wrong usage, 3 some rows have no answer, 4 bad input or"
    " bundle, 5 the texts have drifted (`drift`)."
)
_PLACEHOLDERS: Final = {
    "int": "N",
    "int range": "N",
    "float": "X",
    "float range": "X",
    "str": "TEXT",
    "path": "PATH",
}
"""Typer's names of types, and what the help shows in their place."""


class _Formatter(Protocol):
    def section(self, name: str) -> AbstractContextManager[None]: ...
    def write_dl(self, rows: Sequence[tuple[str, str]]) -> None: ...


class Command(TyperCommand):
    """A command whose options have variables, are given once, and are listed in groups."""

    # Typer keeps the base class of its Context private, so the type here is the public subclass.
    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Parse *args*. Refuse an option given twice that takes one value, or a missing output.

        Typer takes a single argument as the output, and would say that the input is missing.
        """
        self.epilog = _name_variables(self.params, str(ctx.auto_envvar_prefix)) + _EXIT_CODES
        if not ctx.resilient_parsing:
            values, _, order = self.make_parser(ctx).parse_args(list(args))
            arguments = [param for param in self.params if isinstance(param, TyperArgument)]
            if len(arguments) > 1 and arguments[0].nargs == -1 and arguments[-1].required:
                given = values.get(str(arguments[-1].name))
                if given and not values.get(str(arguments[0].name)):
                    why = f"it is missing. Give it after the input: {ctx.command_path} {given} ..."
                    raise typer.BadParameter(why, ctx=ctx, param=arguments[-1])
            for param, count in Counter(order).items():
                if isinstance(param, TyperOption) and count > 1 and not param.multiple:
                    why = f"it takes one value and is given {count} times. Give it once."
                    raise typer.BadParameter(why, ctx=ctx, param=param)
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        """Return the words of the usage line in the usual style: INPUT... OUTPUT."""
        shown = [p for p in self.params if isinstance(p, TyperArgument) and not p.hidden]
        names = [(p.metavar or str(p.name).upper(), p.required) for p in shown]
        return ["[OPTIONS]", *(n if needed or "[" in n else f"[{n}]" for n, needed in names)]

    def format_options(self, ctx: typer.Context, formatter: _Formatter) -> None:  # type: ignore[override]
        """List arguments and options under the headings that they name."""
        _write_parameters(self, ctx, formatter)


class Group(TyperGroup):
    """A group whose commands are listed under the headings that they name."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Parse the arguments that stand before the command."""
        self.epilog = _name_variables(self.params, str(ctx.auto_envvar_prefix)) + _EXIT_CODES
        return super().parse_args(ctx, args)

    def format_options(self, ctx: typer.Context, formatter: _Formatter) -> None:  # type: ignore[override]
        """List the commands, and then the options."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for name, command in self.commands.items():
            heading = getattr(command, "rich_help_panel", None) or "Commands"
            sections.setdefault(heading, []).append((name, command.get_short_help_str(200)))
        order = [*HEADINGS, *sections]
        _write({name: sections[name] for name in sorted(sections, key=order.index)}, formatter)
        _write_parameters(self, ctx, formatter)


class ShortGroup(Group):
    """A group that runs its first command if none is named."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Parse the arguments, after adding the name of the first command if it is left out."""
        first, *others = self.commands
        if args and args[0] not in (first, *others, "--help", "-h"):
            args = [first, *args]
        return super().parse_args(ctx, args)


def _name_variables(params: Sequence[object], prefix: str) -> str:
    """Name the variable of each option that has none, and return the sentence for the help."""
    examples: list[str] = []
    for option in params:
        if not isinstance(option, TyperOption):
            continue
        flag = max(option.opts, key=len)
        if option.envvar is None:
            variable = f"{prefix}_{flag.lstrip('-').replace('-', '_')}".upper()
            # The first version named it after the Python parameter; that name still works.
            option.envvar = list(dict.fromkeys([variable, f"{prefix}_{option.name}".upper()]))
        option.show_envvar = False
        variable = option.envvar if isinstance(option.envvar, str) else option.envvar[0]
        examples.append(f"{flag} by {variable}")
    if not examples:
        return ""
    return f"Each option can also be set by a variable: {', '.join(examples[:2])}.\n\n"


def _write_parameters(
    command: TyperCommand | TyperGroup, ctx: typer.Context, formatter: _Formatter
) -> None:
    sections: dict[str, list[tuple[str, str]]] = {}
    for param in command.get_params(ctx):
        record = param.get_help_record(ctx)
        if record is not None:
            kind = "Options" if isinstance(param, TyperOption) else "Arguments"
            heading = getattr(param, "rich_help_panel", None) or kind
            sections.setdefault(heading, []).append(_shortened(*record))
    for last in ("Advanced", "Options"):  # --help is an option of every command
        if last in sections:
            sections[last] = sections.pop(last)
    _write(sections, formatter)


def _shortened(names: str, text: str) -> tuple[str, str]:
    """Return a row of the help with a short placeholder for the value of an option."""
    names, _, kind = names.removesuffix(">").partition(" <")
    kind = kind.removeprefix("list[").removesuffix("]")
    text, _, facts = text.partition("  [")
    facts = re.sub(r"default: \((.*)\)", r"default: \1", facts)
    if "|" in kind:
        text = f"{text} One of: {kind.replace('|', ', ')}."
        kind = "name"
    if not names.startswith("-"):
        names = names.upper()
    elif kind:
        names = f"{names} {_PLACEHOLDERS.get(kind, kind.upper())}"
    return names, f"{text}  [{facts}" if facts else text


def _write(sections: dict[str, list[tuple[str, str]]], formatter: _Formatter) -> None:
    for heading, rows in sections.items():
        with formatter.section(heading):
            formatter.write_dl(rows)
