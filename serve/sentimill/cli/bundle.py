"""`sentimill bundle`: look at a model folder, or check it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, cast

import msgspec
import typer

from sentimill.bundle.reader import WEIGHTS, open_bundle
from sentimill.bundle.reference import find_bundle
from sentimill.classifier import Classifier
from sentimill.engine.base import Precision
from sentimill.errors import EngineError, UsageError

BundleArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="[BUNDLE]",
        envvar="SENTIMILL_BUNDLE",
        help="Model folder.",
        show_default="the model that comes with Sentimill",
        show_envvar=False,
    ),
]


def inspect(
    bundle: BundleArgument = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON.")] = False,
) -> None:
    """Show the manifest of a bundle. `verify` also checks the hashes."""
    opened = open_bundle(find_bundle(bundle))
    manifest = opened.manifest
    if as_json:
        found = {"digest": opened.digest, **msgspec.to_builtins(manifest)}
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    size = sum(file.size_bytes for file in manifest.files.values())
    facts: dict[str, object] = {
        "name": manifest.name,
        "version": manifest.version,
        "digest": opened.digest,
        "created": manifest.created,
        "labels": ", ".join(manifest.labels),
        "languages": ", ".join(manifest.languages) or "not stated",
        "max tokens": f"{manifest.max_tokens} ({manifest.truncation})",
        "threshold": "never abstains"
        if manifest.threshold is None
        else f"{manifest.threshold:.4f}",
        "base": manifest.base.name,
        "precisions": ", ".join(manifest.precisions),
        "size": f"{size / 1e6:.1f} MB in {len(manifest.files)} files",
        **{
            name.replace("_", " "): f"{value:.{4 if value % 1 else 0}f}"
            for name, value in manifest.metrics.items()
        },
    }
    width = max(map(len, facts))
    for name, value in facts.items():
        typer.echo(f"{name:<{width}}  {value}")


def verify(bundle: BundleArgument = None) -> None:
    """Hash every file, and replay the golden texts in every precision that runs here."""
    folder = find_bundle(bundle)
    opened = open_bundle(folder)
    opened.verify()
    for precision in opened.manifest.precisions:
        # A bundle may have precisions that this program does not know yet; load says so.
        try:
            classifier = Classifier.load(folder, precision=cast(Precision, precision))
        except (UsageError, EngineError) as error:
            # ENGINE_PROVIDER_FALLBACK: there is a package for the GPU, but no driver.
            if isinstance(error, EngineError) and error.reason != "ENGINE_PROVIDER_FALLBACK":
                raise
            typer.echo(f"{precision}: not replayed, {error}")
            continue
        provider = classifier.engine.info.provider
        typer.echo(f"{precision}: golden texts give the same probs on {provider}")
    files = [name for name in opened.manifest.files if opened.has(name)]
    if len(files) < len(opened.manifest.files):
        typer.echo(f"{WEIGHTS}: not here; the bundle answers, but no training can start from it")
    typer.echo(f"ok: {len(files)} files, digest {opened.digest}")
