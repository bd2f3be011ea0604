"""`sentimill index`: builds and changes an index of labelled reviews."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sentimill_train.cli.table_options import LabelColumn, TextColumn, columns_of

__all__ = ["index"]


index = typer.Typer(
    no_args_is_help=True,
    help="Index your labelled reviews, so that answers show the nearest: `index FILE INDEX`.",
)

Reviews = Annotated[str, typer.Argument(metavar="FILE", help="Labelled reviews, with a column id.")]
Folder = Annotated[Path, typer.Argument(metavar="INDEX", help="Folder of the index.")]
BundleFolder = Annotated[
    Path | None,
    typer.Option(
        "--bundle",
        envvar="SENTIMILL_BUNDLE",
        help="Bundle whose states are compared.",
        show_default="the model that comes with Sentimill",
    ),
]


@index.command()
def build(
    reviews: Reviews,
    folder: Folder,
    *,
    bundle: BundleFolder = None,
    keep_texts: Annotated[
        bool, typer.Option("--keep-texts", help="Keep the texts, for answers to show.")
    ] = False,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
) -> None:
    """Build an index of labelled reviews."""
    from sentimill.errors import UsageError

    if folder.exists():
        why = f"{folder} exists: add to it with `sentimill index add`, or delete it first"
        raise UsageError(why, reason="OUTPUT_EXISTS")
    _add(reviews, folder, bundle, text_column, label_column, texts=keep_texts)


@index.command()
def add(
    reviews: Reviews,
    folder: Folder,
    *,
    bundle: BundleFolder = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
) -> None:
    """Add labelled reviews to an index."""
    _add(reviews, folder, bundle, text_column, label_column)


@index.command()
def remove(
    folder: Folder,
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of the rows.")],
) -> None:
    """Remove rows from an index by their ids."""
    from sentimill.evidence.index import Index

    found = Index.open(folder)
    found.remove(ids)
    found.save(folder)
    typer.echo(f"{len(found):,} reviews in {folder}", err=True)


def _add(
    reviews: str,
    folder: Path,
    bundle: Path | None,
    text_column: list[str] | None,
    label_column: str | None,
    *,
    texts: bool | None = None,
) -> None:
    """Embed the labelled rows of a file and write them. texts: of a new index, None for an old."""
    from sentimill.classifier import Classifier
    from sentimill.evidence.index import Index
    from sentimill.text.tokenizer import Encoded
    from sentimill_train.data.examples import read_examples

    if texts is None:
        classifier = Classifier.load(bundle, index=folder)
        made = classifier.index or Index(classifier.bundle.digest)
    else:
        classifier = Classifier.load(bundle, states=True)
        made = Index(classifier.bundle.digest, texts=texts)
    columns = columns_of(text_column, label_column)
    rows = [r for r in read_examples(reviews, columns=columns, labels=classifier.labels) if r.label]
    encoded, values = classifier.compute([row.text for row in rows], progress=True)
    read = [row for row, one in zip(rows, encoded, strict=True) if isinstance(one, Encoded)]
    states = values[:, len(classifier.labels) :]
    made.add([r.id for r in read], [str(r.label) for r in read], [r.text for r in read], states)
    made.save(folder)
    typer.echo(f"{len(made):,} reviews in {folder}", err=True)
