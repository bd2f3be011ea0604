"""`sentimill index`: creates and changes an index of labelled reviews."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sentimill.cli import options as opt
from sentimill.cli.terminal import say
from sentimill.errors import UsageError
from sentimill_train.cli.table_options import LabelColumn, columns_of

index = typer.Typer(
    no_args_is_help=True,
    help="Index your labelled reviews, so that answers show the nearest: `index FILE INDEX`.",
)

Folder = Annotated[Path, opt.OutputArgument(metavar="INDEX", help="Folder of the index.")]


@index.command()
@opt.with_groups
def add(
    reviews: Annotated[
        str, opt.InputArgument(metavar="FILE", help="Labelled reviews, with a column id.")
    ],
    folder: Folder,
    *,
    table: opt.TableOptions,
    label_column: LabelColumn = None,
    bundle: opt.BundleOption = None,
    keep_texts: Annotated[
        bool, opt.Output(help="Keep the texts, so that answers can show them.")
    ] = False,
) -> None:
    """Add labelled reviews to an index, which is created if there is none."""
    from sentimill.classifier import Classifier
    from sentimill.evidence.index import Index
    from sentimill.text.tokenizer import Encoded
    from sentimill_train.data.examples import read_examples

    classifier = Classifier.load(bundle, states=True, index=folder if folder.exists() else None)
    made = classifier.index or Index(classifier.bundle.digest, texts=keep_texts)
    if keep_texts and not made.texts:
        why = f"{folder} was created without --keep-texts: leave it out, or create another index"
        raise UsageError(why, reason="INDEX_WITHOUT_TEXTS")
    columns = columns_of(table, label_column)
    rows = [r for r in read_examples(reviews, columns=columns, labels=classifier.labels) if r.label]
    made.check_new([row.id for row in rows if row.text.strip()])  # before minutes of work
    encoded, values = classifier.compute([row.text for row in rows], progress=True)
    read = [row for row, one in zip(rows, encoded, strict=True) if isinstance(one, Encoded)]
    if not read:
        why = f"an index needs labelled reviews with text, but {reviews} has none: check its"
        raise UsageError(
            f"{why} columns, or name that of the labels with --label-column", reason="INDEX_EMPTY"
        )
    states = values[:, len(classifier.labels) :]
    made.add([r.id for r in read], [str(r.label) for r in read], [r.text for r in read], states)
    made.save(folder)
    say(f"{len(made):,} reviews in {folder}")


@index.command()
def remove(
    folder: Folder,
    ids: Annotated[list[str], opt.InputArgument(metavar="ID...", help="Ids of the rows.")],
) -> None:
    """Remove rows from an index by their ids."""
    from sentimill.evidence.index import Index

    found = Index.open(folder)
    found.remove(ids)
    found.save(folder)
    say(f"{len(found):,} reviews in {folder}")
