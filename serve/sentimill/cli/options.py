"""The options that several commands share, each declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from sentimill.cli.server_access import TOKEN_VARIABLE
from sentimill.engine.base import EngineName, Precision, Provider
from sentimill.errors import UsageError

__all__ = [
    "ADVANCED",
    "INPUT",
    "MODEL",
    "OUTPUT",
    "PERFORMANCE",
    "SECURITY",
    "BatchTokensOption",
    "BundleOption",
    "EngineOption",
    "NoDetectLanguageOption",
    "PrecisionOption",
    "ProviderOption",
    "ServerOption",
    "ThreadsOption",
    "TlsCaOption",
    "TlsCertOption",
    "TlsKeyOption",
    "TlsOption",
    "TokenFileOption",
    "one_model",
]

# The headings under which `--help` lists options.
INPUT: Final = "Input"
OUTPUT: Final = "Output"
MODEL: Final = "Model"
PERFORMANCE: Final = "Performance"
SECURITY: Final = "Secured server"
ADVANCED: Final = "Advanced"

BundleOption = Annotated[
    Path | None,
    typer.Option(
        "--bundle",
        envvar="SENTIMILL_BUNDLE",
        help="Model folder that `train` wrote.",
        show_default="the model that comes with Sentimill",
        rich_help_panel=MODEL,
    ),
]
ServerOption = Annotated[
    str | None,
    typer.Option(help="Ask the server at HOST:PORT instead.", rich_help_panel=MODEL),
]
PrecisionOption = Annotated[
    Precision,
    typer.Option(
        help="auto takes the fastest that bundle and machine have.", rich_help_panel=PERFORMANCE
    ),
]
EngineOption = Annotated[
    EngineName,
    typer.Option(help="auto takes the fastest installed one.", rich_help_panel=PERFORMANCE),
]
ProviderOption = Annotated[
    Provider,
    typer.Option(help="auto takes a CUDA GPU where it can.", rich_help_panel=PERFORMANCE),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="CPU threads of the engine.",
        show_default="all cores",
        rich_help_panel=PERFORMANCE,
    ),
]
NoDetectLanguageOption = Annotated[
    bool,
    typer.Option(
        "--no-detect-language",
        help="Do not abstain on texts in a language that the model was not made for.",
        rich_help_panel=MODEL,
    ),
]
BatchTokensOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Padded tokens (rows x longest) in one engine call.",
        show_default="512 on a CPU, 32,768 on a GPU",
        rich_help_panel=PERFORMANCE,
    ),
]
TlsOption = Annotated[
    bool,
    typer.Option(
        "--tls",
        help="Use TLS and verify the server against the system's CA certificates.",
        rich_help_panel=SECURITY,
    ),
]
TlsCaOption = Annotated[
    Path | None,
    typer.Option(
        help="Use TLS and verify the server against these CA certificates (PEM).",
        rich_help_panel=SECURITY,
    ),
]
TlsCertOption = Annotated[
    Path | None,
    typer.Option(help="Client certificate for mutual TLS (PEM).", rich_help_panel=SECURITY),
]
TlsKeyOption = Annotated[
    Path | None,
    typer.Option(help="Its key, not encrypted (PEM).", rich_help_panel=SECURITY),
]
TokenFileOption = Annotated[
    Path | None,
    typer.Option(
        help="File that holds the token.",
        show_default=f"${TOKEN_VARIABLE}",
        rich_help_panel=SECURITY,
    ),
]


def one_model(context: typer.Context, bundle: Path | None, server: str | None) -> Path | None:
    """Return the bundle that the options name, or None where they name a server or nothing.

    Raises:
        UsageError: NO_MODEL, both are given as options. A bundle that a variable names gives way
            to a server that an option names.
    """
    if server is None:
        return bundle
    origin = context.get_parameter_source("bundle")
    if bundle is not None and (origin is None or origin.name != "ENVIRONMENT"):
        why = "name one model: either --bundle FOLDER or --server HOST:PORT"
        raise UsageError(why, reason="NO_MODEL")
    return None
