"""Makes a bundle of a student that was trained elsewhere, by the steps of `train` and `export`.

    python -m benchmarks.reference.package_weights --weights student.safetensors \
        --base bundles/reference --reviews learnt.jsonl held-out.jsonl --facts facts.json \
        --notes benchmarks/reference/CARD.md --target-error 0.1 --out bundles/reference

Nothing is trained: the weights are exported, calibrated on the validation rows, judged on the test
rows, and made compact behind the usual gate. `--facts` is a JSON object that says how the weights
came about; it takes the place of the settings of `train` in the manifest and on the card. The
second generation of the reference student was packaged so, since its training ran partly on a GPU
machine and partly here (benchmarks/reference/README.md).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from safetensors.torch import load_file

from sentimill_train.evaluation.training_evaluation import EvaluationConfig
from sentimill_train.export.precisions import Export
from sentimill_train.model.pretrained import find_pretrained
from sentimill_train.model.student import Preset, Student
from sentimill_train.packaging.bundle_contents import BundleContents
from sentimill_train.pipeline.inputs import Inputs
from sentimill_train.pipeline.train import Train, Watcher
from sentimill_train.training.loop import Fit

Facts = dict[str, str | int | float | bool | None]


@dataclass(frozen=True, kw_only=True)
class PackageWeights(Train):
    """A run of `train` whose student is trained already.

    weights: a safetensors file with the names of `Student`, in any float type. facts: how they were
    trained. made_from: the encoder that the training started from, see `find_pretrained`.
    """

    weights: Path
    facts: Facts
    made_from: str

    def fit_student(self, inputs: Inputs, watcher: Watcher) -> tuple[Student, Fit]:
        """Return the student with the given weights."""
        student = self._student(inputs)
        state = {name: tensor.float() for name, tensor in load_file(self.weights).items()}
        missing, unknown = student.load_state_dict(state, strict=False)
        missing = [name for name in missing if not name.endswith("position_ids")]
        if missing or unknown:
            raise SystemExit(f"{self.weights} lacks {missing} and has unknown {unknown}")
        student.train(mode=False)
        fitted = Fit(
            epochs=1,
            best_epoch=1,
            steps=0,
            nll=0.0,
            macro_f1=0.0,
            seconds=0.0,
            device="see the facts",
            autocast="bfloat16",
            threads=0,
            processes=1,
            curve=(),
        )
        return student, fitted

    def _started_from_base(self) -> bool:
        return False  # `base` is there for its tokenizer; the training began with `made_from`

    def _export(self, student: Student, inputs: Inputs, fitted: Fit, work: Path) -> BundleContents:
        made = super()._export(student, inputs, fitted, work)
        origin = find_pretrained(self.made_from)
        base = replace(
            made.pretrained,
            name=origin.name,
            sha256=origin.sha256,
            revision=origin.revision,
            sources=(),
            base=None,
        )
        return replace(made, training=self.facts, pretrained=base)


def main() -> None:
    """Write the bundle, and print the result of its gate."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--base", required=True, help="where tokenizer and configuration come from")
    parser.add_argument("--made-from", default="all-MiniLM-L6-v2", help="what they began as")
    parser.add_argument("--preset", default="minilm-l6", choices=["minilm-l6", "minilm-l3"])
    parser.add_argument("--reviews", nargs="+", required=True)
    parser.add_argument("--facts", type=Path, required=True)
    parser.add_argument("--notes", type=Path, required=True)
    parser.add_argument("--target-error", type=float, default=0.1)
    parser.add_argument("--name", default="reference")
    parser.add_argument("--int8-values", action="store_true", help="not --float-values of export")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    preset: Preset = given.preset
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "fp32"
        trained = PackageWeights(
            reviews=tuple(given.reviews),
            out=whole,
            name=given.name,
            base=given.base,
            preset=preset,
            train_embeddings=True,
            dropout=0.0,
            interpolate=False,
            replay=False,
            target_error=given.target_error,
            evaluation=EvaluationConfig(baselines=False),
            notes=given.notes.read_text(encoding="utf-8"),
            weights=given.weights,
            made_from=given.made_from,
            facts=json.loads(given.facts.read_text(encoding="utf-8")),
        ).run()
        print(trained.abstention)  # noqa: T201 # what the program is for
        made = Export(
            bundle=whole,
            out=given.out,
            on=(given.reviews[-1],),
            compact=True,
            float_values=not given.int8_values,
            overwrite=True,
        ).run(lambda step: print(step, flush=True))  # noqa: T201
    for check in made.checks:
        print(check.sentence())  # noqa: T201


if __name__ == "__main__":
    main()
