"""`sentimill export`. It imports its packages when it runs, so that `--help` stays quick."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

from sentimill.bundle.reference import reference_bundle
from sentimill.cli import options as opt
from sentimill.cli.terminal import say
from sentimill.errors import BundleError, UsageError
from sentimill_train.cli.table_options import LabelColumn, columns_of
from sentimill_train.optional_packages import needed_for

if TYPE_CHECKING:
    from sentimill_train.export.precisions import Exported


@opt.with_groups
def export(
    folders: Annotated[
        list[Path],
        opt.InputArgument(
            metavar="[BUNDLE] OUT",
            help="Bundle from train (default: the model that comes with Sentimill), and the folder"
            " to write the new bundle to. Files for --on may follow.",
        ),
    ],
    on: Annotated[
        list[str],
        opt.Input(
            metavar="FILE...",
            help="At least 300 reviews that the model has not learnt, for the gate; labels help.",
        ),
    ],
    *,
    table: opt.TableOptions,
    label_column: LabelColumn = None,
    overwrite: opt.OverwriteOption = False,
    precision: Annotated[
        list[str] | None,
        opt.Model(
            help="int8 for CPUs, fp16 for GPUs, bf16 for CPUs that have it; may be repeated.",
            show_default="int8",
        ),
    ] = None,
    compact: Annotated[
        bool, opt.Model(help="For shipping: only int8, and the weights for training in fp16.")
    ] = False,
    float_values: Annotated[
        bool,
        opt.Model(
            help="If int8 fails its gate: compute attention's values in float32, a little slower."
        ),
    ] = False,
    exporter: Annotated[
        Literal["default", "optimum"],
        opt.Advanced(
            "--exporter",
            "--lane",
            help="Keep the fp32 graph of train, or export with optimum (extra `optimum`).",
        ),
    ] = "default",
) -> None:
    """Add int8, fp16 or bf16 to a bundle, if they give the answers of fp32.

    A precision that fails is left out: the model card and the report say why, and the exit code is
    4. bf16 can only be tested on a CPU that has it. With --compact nothing is written if int8
    fails, because such a bundle has no other precision.
    """
    with needed_for("exporting"):
        from sentimill_train.export.precisions import Export, LowPrecision
    known: tuple[LowPrecision, ...] = get_args(LowPrecision)
    wanted = precision or ["int8"]
    for name in wanted:
        if name not in known:
            raise UsageError(
                f"unknown precision {name!r}: use {', '.join(known[:-1])} or {known[-1]}",
                reason="UNKNOWN_PRECISION",
            )
    bundle, out, more = _parted(folders)
    made = Export(
        bundle=bundle,
        out=out,
        on=(*on, *more),
        columns=columns_of(table, label_column),
        precisions=tuple(each for each in known if each in wanted),
        compact=compact,
        float_values=float_values,
        exporter=exporter,
        overwrite=overwrite,
    ).run(say)
    _report(out, made)


def _parted(given: list[Path]) -> tuple[Path, Path, list[str]]:
    """Return the bundle, the folder to write, and the further files for --on."""
    folders = [path for path in given if not path.is_file()]
    if not 1 <= len(folders) <= 2:
        raise UsageError(
            f"{len(folders)} folders ({', '.join(map(str, folders))}): name the bundle and the"
            " folder to write, or only the folder to write; other files of --on must exist",
            reason="BAD_FOLDERS",
        )
    bundle = folders[0] if len(folders) == 2 else reference_bundle()
    return bundle, folders[-1], [str(path) for path in given if path.is_file()]


def _report(out: Path, made: Exported) -> None:
    """Print the checks that passed; raise BundleError PRECISION_REFUSED for those that did not."""
    failed = [check for check in made.checks if not check.passed]
    for check in made.checks:
        if check.passed:
            say(check.sentence())
    size = sum(file.size_bytes for file in made.bundle.manifest.files.values())
    say(f"{out}: {size / 1e6:.1f} MB")
    if failed:
        hint = "; try --float-values" if any(c.precision == "int8" for c in failed) else ""
        sentences = " ".join(check.sentence() for check in failed)
        raise BundleError(
            f"{sentences} {out} was written without {', '.join(c.precision for c in failed)}{hint}",
            reason="PRECISION_REFUSED",
        )
