"""Runs the pipeline of `train`: read, split, train, export, calibrate, evaluate, write."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol

from tokenizers import Tokenizer

from sentimill.bundle.reader import Bundle
from sentimill.bundle.writer import check_writable, write_bundle
from sentimill.errors import UsageError
from sentimill.text.language import languages_of
from sentimill_train.calibration.abstention import Abstention
from sentimill_train.calibration.temperature import calibrate
from sentimill_train.data.splits import Parted
from sentimill_train.data.tokenized import Refused, join_rows
from sentimill_train.evaluation.regression_gate import Verdict
from sentimill_train.evaluation.report import Epoch
from sentimill_train.evaluation.result import Judgement, SetResult
from sentimill_train.evaluation.training_evaluation import (
    Evaluated,
    evaluate_draft,
    load_for_evaluation,
)
from sentimill_train.export.onnx import export_fp32, graph_logits
from sentimill_train.model.lora import add_adapters, check_lora, merge_adapters
from sentimill_train.model.student import (
    Student,
    freeze_embeddings,
    new_student,
    pad_id_of,
    positions_of,
    predict,
    save_student,
    to_device,
)
from sentimill_train.packaging.bundle_contents import BundleContents, golden_of
from sentimill_train.pipeline.config import TrainConfig
from sentimill_train.pipeline.facts import checkpoint_of, training_facts
from sentimill_train.pipeline.inputs import Inputs, check_labels, continues, read_inputs
from sentimill_train.training.distributed import current_process, leave_process_group
from sentimill_train.training.loop import Fit, Progress, fit, seed_everything
from sentimill_train.training.state import weights_of
from sentimill_train.training.targets import mix_shares
from sentimill_train.training.weight_interpolation import interpolate

_ANCHOR_SHARE: Final = 0.5
"""The weight of the base's answer in the target of a replayed row that has soft labels."""


class Watcher(Protocol):
    """Follows a training. Either method may raise to stop it; then no bundle is written."""

    def stage(self, name: str) -> None:
        """Receive the name of the stage that begins now."""
        ...

    def progress(self, progress: Progress) -> None:
        """Receive the progress of the training loop, after each step and epoch."""
        ...


class Quiet:
    """A watcher that does nothing."""

    def stage(self, name: str) -> None:
        """See `Watcher.stage`."""

    def progress(self, progress: Progress) -> None:
        """See `Watcher.progress`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """The result of a run.

    judgement: its first set is the test split. abstention: None without a target error. verdict:
    None without a previous bundle. refused: rows left out because no model can read their text.
    """

    bundle: Bundle
    judgement: Judgement
    abstention: Abstention | None
    verdict: Verdict | None
    fit: Fit
    parted: Parted
    refused: tuple[Refused, ...]
    seconds: float

    @property
    def test(self) -> SetResult:
        """The figures on the test split."""
        return self.judgement.sets[0]


class Train(TrainConfig):
    """One training, with the settings of `TrainConfig`."""

    def run(self, watcher: Watcher | None = None) -> Trained:
        """Train, and write the bundle: the folder *out* appears at the end, complete or not at all.

        Raises:
            UsageError: an option is invalid, or *out* exists; raised before training.
            TableError: the reviews cannot be used. BundleError: the export is not good enough, or
            the bundle is worse than the previous one of the regression gate.
        """
        watcher = watcher or Quiet()
        started = time.perf_counter()
        check_writable(self.out, overwrite=self.overwrite)
        if self.labels is not None:
            check_labels(self.labels)
        if self.lora is not None:
            check_lora(self.preset, train_embeddings=self.train_embeddings)
        watcher.stage("reading reviews")
        inputs = read_inputs(self, watcher.stage)
        watcher.stage("training")
        student, fitted = self.fit_student(inputs, watcher)
        with tempfile.TemporaryDirectory(prefix="sentimill-") as folder:
            watcher.stage("exporting and calibrating")
            made = self._export(student, inputs, fitted, Path(folder))
            watcher.stage("evaluating")
            bundle, evaluated = self._evaluate(made, inputs, fitted, Path(folder))
        if self.checkpoint is not None:
            checkpoint_of(self, self.checkpoint, inputs).remove()
        return Trained(
            bundle=bundle,
            judgement=evaluated.judgement,
            abstention=made.calibration.abstention,
            verdict=evaluated.verdict,
            fit=fitted,
            parted=inputs.parted,
            refused=inputs.refused,
            seconds=time.perf_counter() - started,
        )

    def assist(self) -> None:
        """Train as a further process of a process group, in which the first one calls `run`."""
        self.fit_student(read_inputs(self, Quiet().stage), Quiet())

    def fit_student(self, inputs: Inputs, watcher: Watcher) -> tuple[Student, Fit]:
        """Train a student on *inputs*; return it and a record of the training."""
        student = self._student(inputs)
        train, validation = inputs.rows["train"], inputs.rows["validation"]
        start = weights_of(student) if continues(self, inputs.pretrained, inputs.labels) else None
        if (replay := inputs.replay) is not None and len(replay.train):
            answers = predict(student, replay.train)
            train = join_rows(train, mix_shares(replay.train, answers, _ANCHOR_SHARE))
        adapters = None if self.lora is None else add_adapters(student, self.lora)
        fitted = fit(
            student,
            train,
            validation,
            self.fit,
            watcher.progress,
            checkpoint=checkpoint_of(self, self.checkpoint, inputs) if self.checkpoint else None,
            teacher=inputs.teacher,
        )
        if adapters is not None:
            merge_adapters(adapters)
        first = current_process().rank == 0
        leave_process_group()  # else a library may wait for the others while this one exports
        if start is not None and self.interpolate and first:
            watcher.stage("blending with the weights of the base")
            others = replay.validation if replay is not None and len(replay.validation) else None
            share = interpolate(student, start, validation, others)
            fitted = replace(fitted, interpolated_share=share)
        return student, fitted

    def _export(self, student: Student, inputs: Inputs, fitted: Fit, work: Path) -> BundleContents:
        """Export the graph, and calibrate on its logits, since it is what will answer."""
        save_student(student, work)
        graph = export_fp32(work)
        pad_id = pad_id_of(student.config)
        held_out = inputs.rows["validation"]
        calibration = calibrate(
            graph_logits(graph.run, held_out, pad_id), held_out.gold, self.target_error
        )
        return BundleContents(
            name=self.name or self.out.resolve().name,
            notes=self.notes,
            max_tokens=self.max_tokens,
            truncation=self.truncation,
            pretrained=inputs.pretrained,
            labels=inputs.labels,
            sources=inputs.sources,
            training=training_facts(self, inputs, fitted),
            calibration=calibration,
            graph=graph,
            golden=golden_of(graph, inputs.encoder, pad_id, calibration.temperature, inputs.labels),
            pad_id=pad_id,
            languages=languages_of(example.text for example in inputs.parted.train),
        )

    def _evaluate(
        self, made: BundleContents, inputs: Inputs, fitted: Fit, work: Path
    ) -> tuple[Bundle, Evaluated]:
        """Evaluate the bundle as a draft, as a user will load it, and write it with its report."""
        files = made.files(work)
        draft = write_bundle(work / "draft", files, made.manifest())
        abstention = made.calibration.abstention
        evaluated = evaluate_draft(
            inputs.evaluation,
            load_for_evaluation(draft.path),
            inputs.pretrained.folder,
            started_from_base=self._started_from_base(),
            curve=[_epoch(progress) for progress in fitted.curve],
            notes=[] if abstention is None else [abstention.sentence()],
        )
        bundle = write_bundle(
            self.out,
            {**files, **made.documents(evaluated.judgement, evaluated.report)},
            made.manifest(evaluated.judgement),
            overwrite=self.overwrite,
        )
        return bundle, evaluated

    def _started_from_base(self) -> bool:
        """Say whether training started from the weights of `base`, which is then evaluated too."""
        return self.preset != "tiny"

    def _student(self, inputs: Inputs) -> Student:
        seed_everything(self.fit.seed)
        pretrained = inputs.pretrained
        vocabulary = Tokenizer.from_buffer(pretrained.tokenizer_json()).get_vocab_size()
        student = new_student(
            self.preset, pretrained, inputs.labels, vocabulary=vocabulary, dropout=self.dropout
        )
        longest = positions_of(student.config)
        if self.max_tokens > longest:
            raise UsageError(
                f"--max-tokens {self.max_tokens} is more than {pretrained.name} has positions"
                f" for: use at most {longest}",
                reason="MAX_TOKENS_TOO_LARGE",
            )
        if not self.train_embeddings and self.preset != "tiny":
            freeze_embeddings(student)
        to_device(student)
        if inputs.teacher is not None:
            inputs.teacher.check_states(student, inputs.rows["train"])
        return student


def _epoch(progress: Progress) -> Epoch:
    ended = progress.epoch_ended
    return Epoch(
        rows=progress.rows,
        train_loss=progress.loss,
        validation_loss=progress.nll if ended else None,
        validation_macro_f1=progress.macro_f1 if ended else None,
    )
