"""`sentimill trim`. It imports its packages when it runs, so that `--help` stays quick."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from sentimill.cli import options as opt
from sentimill.cli.terminal import say
from sentimill.errors import UsageError
from sentimill_train.cli.table_options import columns_of
from sentimill_train.optional_packages import needed_for


@opt.with_groups
def trim(
    base: Annotated[
        str,
        opt.InputArgument(
            metavar="BASE",
            help="A bundle or a folder, hub:owner/name[@revision], or all-MiniLM-L6-v2.",
        ),
    ],
    out: Annotated[Path, opt.OutputArgument(metavar="OUT", help="Folder to write the encoder to.")],
    *,
    on: Annotated[
        list[str],
        opt.Input(metavar="FILE", help="Reviews whose words are counted; may be repeated."),
    ],
    keep: Annotated[int, opt.Output(help="Word pieces to keep, of about 30,000.")],
    table: opt.TableOptions,
) -> None:
    """Keep only the word pieces that reviews use, to get a smaller base for `train`.

    Word vectors are half of a small encoder. The answers change a little, so train from the
    result, and evaluate it.
    """
    with needed_for("trimming"):
        from sentimill_train.data.examples import stream_texts
        from sentimill_train.model.pretrained import find_pretrained
        from sentimill_train.model.vocabulary import trim_encoder
    if out.exists():
        raise UsageError(f"{out} exists: remove it, or name another folder", reason="OUTPUT_EXISTS")
    columns = columns_of(table)
    texts = [text for source in on for text, _ in stream_texts(source, columns)]
    pieces, share = trim_encoder(find_pretrained(base), out, texts, keep)
    say(
        f"{out}: {pieces} word pieces, {share:.1%} of those in {len(texts)} reviews\n"
        f"try: sentimill train --reviews FILE... --base {out} --out bundles/mine"
    )
