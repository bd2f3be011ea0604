"""Writes the proof's page, its part of README and docs/, and the rate of `sentimill cost`.

    python -m benchmarks.proof.readme_tables benchmarks/results/proof-cpu.json [proof-gpu.json ...]

Nothing is measured here, so it may be run again at any time. README, docs/when-to-use.md and
`sentimill cost` have the figures of the first file. README also has those of a file from a GPU.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import msgspec

from benchmarks.proof.page import cost_of, fastest, render
from benchmarks.proof.record import Proof, read_proof
from benchmarks.proof.tables import cost_part, gpu_part, readme_part, regenerate
from sentimill_train.cost.prices import MEASURED, Measured

_ROOT = Path(__file__).parents[2]


def main(arguments: Sequence[str] | None = None) -> None:
    """Write all four."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="JSON files of one run each")
    parser.add_argument("--out", type=Path, default=_ROOT / "benchmarks/results/proof.html")
    parser.add_argument("--results-page", type=Path, default=_ROOT / "docs/results.md")
    parser.add_argument("--guide", type=Path, default=_ROOT / "docs/when-to-use.md")
    parser.add_argument("--measured", type=Path, default=MEASURED)
    given = parser.parse_args(arguments)
    proofs = [read_proof(path) for path in given.runs]
    readme = regenerate(given.results_page.read_text(encoding="utf-8"), readme_part(proofs[0]))
    for proof in proofs[1:]:
        if proof.machine.gpu is not None:
            readme = regenerate(readme, gpu_part(proof), "gpu")
    costed = cost_part(proofs[0], cost_of(proofs[0]))
    guide = regenerate(given.guide.read_text(encoding="utf-8"), costed, "cost")
    given.out.write_text(render(proofs), encoding="utf-8")
    given.results_page.write_text(readme, encoding="utf-8")
    given.guide.write_text(guide, encoding="utf-8")
    measured = msgspec.json.encode(measured_of(proofs[0], given.runs[0]))
    given.measured.write_bytes(msgspec.json.format(measured) + b"\n")


def measured_of(proof: Proof, path: Path) -> Measured:
    """Return the student's rate as `sentimill cost` takes it."""
    speed = fastest(proof)
    return Measured(
        reviews_per_second=round(speed.rate, 1),
        machine="c7a.large",
        source=f"{speed.name} {speed.precision}, benchmarks/results/{path.name} at commit"
        f" {proof.machine.around['commit']}, on {proof.machine.name}, shared with other work;"
        " priced as c7a.large, which has such cores",
    )


if __name__ == "__main__":
    main()
