"""`sentimill export`: adds the precisions of a bundle that pass their gate."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

import msgspec

from sentimill.bundle.manifest import Manifest, Precision
from sentimill.bundle.reader import WEIGHTS, Bundle, open_bundle
from sentimill.bundle.writer import check_writable, write_bundle
from sentimill.errors import BundleError, UsageError
from sentimill_train.data.schema import Columns
from sentimill_train.export.acceptance import NotJudged, Outcome, PrecisionCheck, check_row_count
from sentimill_train.export.acceptance_rows import GateRows, read_gate_rows
from sentimill_train.export.comparison import Comparison
from sentimill_train.export.onnx import FP32_FILE, open_graph
from sentimill_train.export.optimum import export_with_optimum
from sentimill_train.export.packed_graph import pack_graph
from sentimill_train.export.precision_report import COMPACT, card_with, report_with
from sentimill_train.export.quantization.fp16 import fp16_graph, round_to_fp16, weights_to_fp16
from sentimill_train.export.rebuilt_fp32 import with_fp32
from sentimill_train.optional_packages import check_installed

LowPrecision = Literal["int8", "fp16", "bf16"]
"""A precision other than fp32."""
Exporter = Literal["default", "optimum"]
"""The source of the fp32 graph: that of training, or a new export with optimum."""

_FP32: Final = "fp32"
_INT8: Final = "int8"
_PACKED: Final = "onnx/fp16-packed.onnx"


@dataclass(frozen=True, slots=True)
class Exported:
    """The bundle that was written, and the result of each precision that was tried."""

    bundle: Bundle
    checks: tuple[Outcome, ...]


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write *bundle* to *out*, with those of *precisions* that pass their gate.

    A compact bundle has no fp32 graph to compare with, so it is rebuilt from the weights, and kept.

    on: files that the model has not learned from, 300 rows or more in all, with or without labels.
    Of a file with splits, or that the model was trained on, the gate uses the test rows, and
    temperatures are fitted on the validation rows. precisions: int8 for CPUs, fp16 for GPUs, bf16
    for CPUs that have it; bf16 can only be tested on such a CPU. Other precisions of the bundle
    stay, unless fp32 is replaced. compact: for shipping, with only int8, word vectors in int8 too,
    and weights for further training in fp16. float_values: see `int8_graph`. exporter: `optimum`
    exports fp32 again, with `export_with_optimum`, and makes int8 and fp16 from it.
    """

    bundle: Path
    out: Path
    on: tuple[str, ...]
    columns: Columns = field(default_factory=Columns)
    precisions: tuple[LowPrecision, ...] = (_INT8,)
    compact: bool = False
    float_values: bool = False
    exporter: Exporter = "default"
    overwrite: bool = False

    def run(self, say: Callable[[str], None] = lambda stage: None) -> Exported:
        """Make, test and write the precisions. say: called with the name of each step.

        Raises:
            UsageError: *out* exists; *compact* with another precision than int8; or the exporter
                optimum with bf16, or without its package.
            TableError, InputError: too few rows to test on.
            BundleError: *bundle* is not valid, or has neither fp32 nor weights; or int8 cannot
                be made from its graph; or a compact bundle, or optimum's fp32, did not pass.
        """
        self._check_options()
        opened = open_bundle(self.bundle)
        say("reading reviews")
        rows = read_gate_rows(opened, self.on, self.columns)
        check_row_count(len(rows.judged))
        opened.verify()
        if _FP32 in opened.manifest.precisions:
            return self._run(opened, rows, say)
        say("making fp32 of the weights")
        with tempfile.TemporaryDirectory(prefix="sentimill-") as work:
            return self._run(with_fp32(opened, Path(work, "bundle")), rows, say)

    def _run(self, opened: Bundle, rows: GateRows, say: Callable[[str], None]) -> Exported:
        gate = Comparison(opened, rows, say)
        checks: list[Outcome] = []
        entries, graphs = dict(opened.manifest.precisions), dict[str, bytes]()
        if self.exporter == "optimum":
            say("exporting with optimum")
            graph = export_with_optimum(opened.path)
            checks.append(again := gate.check(_FP32, graph.run))
            if not again.passed:
                raise BundleError(
                    f"{again.sentence()} No bundle was written", reason="PRECISION_REFUSED"
                )
            gate = Comparison(opened, rows, say, graph.data)
            entries = {_FP32: graph.precision(again.temperature)}
            graphs[FP32_FILE] = graph.data
        tried = [self._try(gate, each) for each in dict.fromkeys(self.precisions)]
        checks += [outcome for outcome, _ in tried]
        if self.compact:
            checks.append(gate.check("fp16", open_graph(round_to_fp16(gate.fp32))))
            _refuse_failed(checks)
            entries, graphs = {}, {}
        elif self.exporter == "optimum":
            checks += _outdated(opened.manifest, checks)
        for outcome, made in tried:
            entries.pop(outcome.precision, None)
            if isinstance(outcome, PrecisionCheck) and outcome.passed:
                entries[outcome.precision] = _entry(opened.manifest, outcome, made)
                graphs |= made
        return Exported(self._write(opened, entries, graphs, checks), tuple(checks))

    def _check_options(self) -> None:
        check_writable(self.out, overwrite=self.overwrite)
        if self.compact and self.precisions != (_INT8,):
            raise UsageError(
                f"--compact writes only int8, but --precision asks for"
                f" {', '.join(self.precisions)}: leave one of the two out",
                reason="COMPACT_IS_INT8",
            )
        if self.exporter == "optimum":
            if "bf16" in self.precisions:
                raise UsageError(
                    "bf16 is tested by loading a bundle, but with --exporter optimum there is none"
                    " yet: leave bf16 out, and add it to the new bundle with --precision bf16",
                    reason="EXPORTER_WITHOUT_BF16",
                )
            check_installed("--exporter optimum", "optimum", extra="optimum")

    def _try(self, gate: Comparison, precision: LowPrecision) -> tuple[Outcome, dict[str, bytes]]:
        """Return the result for *precision*, and its graphs by their file names in the bundle."""
        if precision == "bf16":
            return gate.check_bf16(), {}
        if precision == _INT8:
            data = gate.make_int8(small=self.compact, float_values=self.float_values)
        else:
            data = fp16_graph(gate.fp32)
        graphs = {f"onnx/{precision}.onnx": data}
        packed = pack_graph(data) if precision == "fp16" else None
        if packed is not None:
            graphs[_PACKED] = packed
        return gate.check(precision, open_graph(data)), graphs

    def _write(
        self,
        opened: Bundle,
        entries: dict[str, Precision],
        graphs: dict[str, bytes],
        checks: list[Outcome],
    ) -> Bundle:
        manifest = opened.manifest
        before, after = (
            {file for entry in each.values() for file in entry.graphs}
            for each in (manifest.precisions, entries)
        )
        files: dict[str, bytes | Path] = {
            name: opened.read(name)
            for name in manifest.files
            if name not in before - after and opened.has(name)
        }
        files |= self._documents(opened, checks)
        if self.compact and WEIGHTS in files:
            files[WEIGHTS] = weights_to_fp16(opened.read(WEIGHTS))
        now = datetime.now(UTC)
        dated = msgspec.structs.replace(
            manifest,
            version=now.strftime("%Y.%m.%d.%H%M%S"),
            created=now.isoformat(timespec="seconds"),
            precisions=entries,
        )
        return write_bundle(self.out, {**files, **graphs}, dated, overwrite=self.overwrite)

    def _documents(self, opened: Bundle, checks: list[Outcome]) -> dict[str, bytes]:
        """Return the model card and the report with the results of the gate."""
        card, report = opened.text("README.md"), opened.text("report.html")
        documents = {
            "README.md": card_with(card, checks, COMPACT if self.compact else None).encode()
        }
        if report:
            documents["report.html"] = report_with(report, checks, small=self.compact).encode()
        return documents


def _entry(manifest: Manifest, check: PrecisionCheck, graphs: dict[str, bytes]) -> Precision:
    return Precision(
        file=f"onnx/{check.precision}.onnx" if graphs else manifest.precision(_FP32).file,
        temperature=check.temperature,
        max_logit_difference=check.max_logit_difference,
        parity_rows=check.rows,
        agreement=check.agreement,
        macro_f1_drop=None if check.macro_f1_drop is None else check.macro_f1_drop.value,
        ece_change=None if check.ece_change is None else check.ece_change.value,
        threshold=check.threshold,
        packed=_PACKED if _PACKED in graphs else None,
    )


def _outdated(manifest: Manifest, checks: list[Outcome]) -> list[Outcome]:
    """Return an outcome for each precision that was made from the replaced fp32 graph."""
    tried = {check.precision for check in checks}
    why = "it was made of the fp32 that was replaced; add it again with --precision"
    return [NotJudged(precision=name, why=why) for name in manifest.precisions if name not in tried]


def _refuse_failed(checks: list[Outcome]) -> None:
    """Raise BundleError PRECISION_REFUSED if a check failed: a compact bundle needs all of them."""
    failed = [check.sentence() for check in checks if not check.passed]
    if failed:
        raise BundleError(
            f"no compact bundle was written: {' '.join(failed)} Try"
            " --float-values, or ship the fp32 bundle",
            reason="PRECISION_REFUSED",
        )
