"""Reviews in, a bundle out: one pass through the rooms of this package, in order."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Protocol

from tokenizers import Tokenizer

from sentimill.bundle.manifest import Source
from sentimill.bundle.reader import Bundle
from sentimill.bundle.reference import find_reference
from sentimill.bundle.writer import check_writable, write_bundle
from sentimill.errors import UsageError
from sentimill.text.tokenizer import TextEncoder, Truncation
from sentimill_train.calibration.abstention import Abstention
from sentimill_train.calibration.temperature import calibrate
from sentimill_train.data.examples import read_examples
from sentimill_train.data.readers import digest_of
from sentimill_train.data.schema import SENTIMENTS, Columns, Example, Split, label_set
from sentimill_train.data.splits import Parted, part
from sentimill_train.data.tokenized import Refused, Rows, tokenise
from sentimill_train.evaluation.regression_gate import Verdict
from sentimill_train.evaluation.report import Epoch
from sentimill_train.evaluation.result import Judgement, SetResult
from sentimill_train.evaluation.training_evaluation import (
    Exam,
    ExamConfig,
    Result,
    load_for_exam,
    read_exam,
    sit_exam,
)
from sentimill_train.export.onnx import export_fp32, graph_logits
from sentimill_train.model.lora import Lora, add_adapters, check_lora, merge_adapters
from sentimill_train.model.pretrained import Pretrained, find_pretrained
from sentimill_train.model.student import (
    Preset,
    Student,
    freeze_embeddings,
    goes_on,
    new_student,
    pad_id_of,
    positions_of,
    save_student,
    to_device,
)
from sentimill_train.packaging.bundle_contents import Made, golden_of
from sentimill_train.training.checkpoint import Checkpoint
from sentimill_train.training.distributed import here, leave
from sentimill_train.training.loop import Fit, FitConfig, Progress, fit, seed_everything
from sentimill_train.training.state import weights_of
from sentimill_train.training.teacher_model import Larger, load_larger
from sentimill_train.training.weight_interpolation import interpolate

__all__ = ["Quiet", "Train", "Trained", "Watcher", "starting_point"]


class Watcher(Protocol):
    """Who is told how training goes. Either method may raise to stop it; nothing is left then."""

    def stage(self, name: str) -> None:
        """Say what begins now."""
        ...

    def progress(self, progress: Progress) -> None:
        """Say where the loop is."""
        ...


class Quiet:
    """A watcher that says nothing."""

    def stage(self, name: str) -> None:
        """See `Watcher.stage`."""

    def progress(self, progress: Progress) -> None:
        """See `Watcher.progress`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What a run gave.

    judgement: its first set is the test split. abstention: None without a target error. verdict:
    None without a previous bundle. refused: rows whose text no model can read, and which were left
    out.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """All that was read and checked before training."""

    pretrained: Pretrained
    encoder: TextEncoder
    labels: tuple[str, ...]
    sources: tuple[Source, ...]
    parted: Parted
    rows: dict[str, Rows]
    refused: tuple[Refused, ...]
    exam: Exam
    larger: Larger | None


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train a student on *reviews* and write it as a bundle to *out*.

    reviews: files, `starter`, or `hub:owner/name[@revision]`. labels: the closed set in order;
    None takes those that occur. base: as for `find_pretrained`; None goes on from the reference
    student, where there is one and the preset does not ask for random weights. train_embeddings:
    also train the word vectors; a few thousand reviews show most words too seldom to learn from.
    train_tokens: cuts the reviews of train shorter than max_tokens, by the same rule, which trains
    faster. dropout: of the encoder; None keeps that of *base*. target_error: chooses the threshold
    below which the bundle abstains. notes: Markdown that goes into the model card. teacher_bundle:
    a fine-tuned larger classifier, whose answers take the place of shares, also for rows without a
    label; see `load_larger`. checkpoint: the folder in which a killed run leaves what the same one
    goes on from; written every checkpoint_minutes, after each epoch, and on SIGINT and SIGTERM.
    lora: learns adapters of the encoder in place of its weights, and merges them. interpolate: a
    student that goes on from one with these labels moves back towards it to where validation is
    best, and so forgets less; see `interpolate`.
    """

    reviews: tuple[str, ...]
    out: Path
    name: str | None = None
    columns: Columns = field(default_factory=Columns)
    labels: tuple[str, ...] | None = SENTIMENTS
    base: str | None = None
    preset: Preset = "minilm-l6"
    train_embeddings: bool = False
    max_tokens: int = 256
    train_tokens: int | None = None
    dropout: float | None = None
    truncation: Truncation = "head-tail"
    fit: FitConfig = field(default_factory=FitConfig)
    target_error: float | None = None
    notes: str = ""
    exam: ExamConfig = field(default_factory=ExamConfig)
    overwrite: bool = False
    teacher_bundle: Path | None = None
    checkpoint: Path | None = None
    checkpoint_minutes: float = 10
    lora: Lora | None = None
    interpolate: bool = True

    def run(self, watcher: Watcher | None = None) -> Trained:
        """Do it. The folder *out* appears at the very end, whole, or not at all.

        Raises:
            UsageError: an option that cannot be, or *out* is taken; before anything is trained.
            TableError: the reviews cannot be used. BundleError: the export is not good enough, or
            it is worse than the bundle of the gate.
        """
        watcher = watcher or Quiet()
        started = time.perf_counter()
        check_writable(self.out, overwrite=self.overwrite)
        if self.labels is not None:
            _check_labels(self.labels)
        if self.lora is not None:
            check_lora(self.preset, train_embeddings=self.train_embeddings)
        watcher.stage("reading reviews")
        read = self._read()
        watcher.stage("training")
        student, fitted = self._fitted(read, watcher)
        with tempfile.TemporaryDirectory(prefix="sentimill-") as folder:
            watcher.stage("exporting and calibrating")
            made = self._made(student, read, fitted, Path(folder))
            watcher.stage("judging")
            bundle, result = self._examine(made, read, Path(folder))
        if self.checkpoint is not None:
            self._checkpoint(self.checkpoint, read).remove()
        return Trained(
            bundle=bundle,
            judgement=result.judgement,
            abstention=made.calibration.abstention,
            verdict=result.verdict,
            fit=fitted,
            parted=read.parted,
            refused=read.refused,
            seconds=time.perf_counter() - started,
        )

    def assist(self) -> None:
        """Train beside the process of rank 0, which does `run` and all the rest."""
        self._fitted(self._read(), Quiet())

    def _fitted(self, read: _Read, watcher: Watcher) -> tuple[Student, Fit]:
        student = self._student(read)
        start = weights_of(student) if self._can_move_back(read) else None
        adapters = None if self.lora is None else add_adapters(student, self.lora)
        fitted = fit(
            student,
            read.rows["train"],
            read.rows["validation"],
            self.fit,
            watcher.progress,
            checkpoint=self._checkpoint(self.checkpoint, read) if self.checkpoint else None,
            larger=read.larger,
        )
        if adapters is not None:
            merge_adapters(adapters)
        first = here().rank == 0
        leave()  # no library may wait for the others while this one exports and judges
        if start is not None and first:
            watcher.stage("moving back towards the base")
            share = interpolate(student, start, read.rows["validation"])
            fitted = replace(fitted, interpolated_share=share)
        return student, fitted

    def _can_move_back(self, read: _Read) -> bool:
        """Say whether training begins with a model that answers: half of one, say, does not."""
        whole = self.preset == "minilm-l6" and goes_on(read.pretrained, read.labels)
        return self.interpolate and whole

    def _checkpoint(self, folder: Path, read: _Read) -> Checkpoint:
        run = {f"--{name.replace('_', '-')}": value for name, value in asdict(self.fit).items()}
        run |= {
            "the weights of --base": read.pretrained.sha256,
            "the weights of --teacher-bundle": read.larger.source.sha256 if read.larger else None,
            "--labels": ",".join(read.labels),
            "--preset": self.preset,
            "--train-embeddings": self.train_embeddings,
            "--max-tokens": self.max_tokens,
            "--train-tokens": self.train_tokens,
            "--truncation": self.truncation,
            "--dropout": self.dropout,
            "--lora-rank": None if self.lora is None else self.lora.rank,
            "--lora-alpha": None if self.lora is None else self.lora.alpha,
            "the tokens of the reviews": "".join(
                read.rows[split].sha256() for split in ("train", "validation")
            ),
            "processes": here().count,
        }
        return Checkpoint(folder, run, minutes=self.checkpoint_minutes)

    def _read(self) -> _Read:
        pretrained = starting_point(self.base, self.preset)
        sources, examples = self._reviews()
        labels = self.labels if self.labels is not None else label_set(examples)
        _check_labels(labels)
        parted = part(examples, labels, spare=self.teacher_bundle is not None)
        encoder = self._encoder(pretrained, self.max_tokens)
        shorter = self._encoder(pretrained, self._learnt_tokens)
        rows, refused = _tokenise(
            parted, {"train": shorter, "validation": encoder, "test": encoder}, labels
        )
        return _Read(
            pretrained=pretrained,
            encoder=encoder,
            labels=labels,
            sources=sources,
            parted=parted,
            rows=rows,
            refused=refused,
            larger=self._larger(labels, parted, refused),
            exam=read_exam(
                self.exam,
                parted,
                labels,
                columns=self.columns,
                trained_on=(sources, pretrained.sources),
            ),
        )

    def _larger(
        self, labels: tuple[str, ...], parted: Parted, refused: Sequence[Refused]
    ) -> Larger | None:
        if self.teacher_bundle is None:
            if self.fit.hidden_weight > 0:
                raise UsageError(
                    f"--hidden-weight {self.fit.hidden_weight} needs a --teacher-bundle",
                    reason="NO_TEACHER",
                )
            return None
        left_out = {id(each.example) for each in refused}
        return load_larger(
            self.teacher_bundle,
            labels,
            [e for e in (*parted.train, *parted.spare) if id(e) not in left_out],
            max_tokens=self._learnt_tokens,
            truncation=self.truncation,
        )

    @property
    def _learnt_tokens(self) -> int:
        """How many tokens of a review of train are read."""
        return min(self.max_tokens, self.train_tokens or self.max_tokens)

    def _encoder(self, pretrained: Pretrained, max_tokens: int) -> TextEncoder:
        return TextEncoder.from_bytes(
            pretrained.tokenizer_json(), max_tokens=max_tokens, truncation=self.truncation
        )

    def _reviews(self) -> tuple[tuple[Source, ...], list[Example]]:
        sources, examples = [], []
        for review in self.reviews:
            found = read_examples(review, columns=self.columns, labels=self.labels)
            # The name alone: where a file lay is nobody's business.
            name = Path(review).name if "/" in review and ":" not in review else review
            sources.append(Source(name=name, sha256=digest_of(review), rows=len(found)))
            examples += found
        return tuple(sources), examples

    def _made(self, student: Student, read: _Read, fitted: Fit, work: Path) -> Made:
        """Export and calibrate: the graph that will answer gives the logits for both."""
        save_student(student, work)
        graph = export_fp32(work, seed=self.fit.seed)
        pad_id = pad_id_of(student.config)
        held_out = read.rows["validation"]
        calibration = calibrate(
            graph_logits(graph.run, held_out, pad_id), held_out.gold, self.target_error
        )
        return Made(
            name=self.name or self.out.resolve().name,
            preset=self.preset,
            train_embeddings=self.train_embeddings or self.preset == "tiny",
            train_tokens=self.train_tokens,
            dropout=self.dropout,
            lora=self.lora,
            notes=self.notes,
            max_tokens=self.max_tokens,
            truncation=self.truncation,
            columns=self.columns,
            config=self.fit,
            pretrained=read.pretrained,
            labels=read.labels,
            sources=read.sources,
            parted=read.parted,
            refused=len(read.refused),
            larger=None if read.larger is None else read.larger.source,
            fitted=fitted,
            calibration=calibration,
            graph=graph,
            golden=golden_of(graph, read.encoder, pad_id, calibration.temperature),
            pad_id=pad_id,
        )

    def _examine(self, made: Made, read: _Read, work: Path) -> tuple[Bundle, Result]:
        """Judge the bundle as a draft, by what a user will load, and write it with its papers."""
        files = made.files(work)
        draft = write_bundle(work / "draft", files, made.manifest)
        abstention = made.calibration.abstention
        result = sit_exam(
            read.exam,
            load_for_exam(draft.path),
            read.pretrained.folder / "model.safetensors",
            curve=[_epoch(progress) for progress in made.fitted.curve],
            notes=[] if abstention is None else [abstention.sentence()],
        )
        bundle = write_bundle(
            self.out,
            {**files, **made.papers(result.judgement, result.report)},
            lambda listed: made.manifest(listed, result.judgement),
            overwrite=self.overwrite,
        )
        return bundle, result

    def _student(self, read: _Read) -> Student:
        seed_everything(self.fit.seed)
        pretrained = read.pretrained
        vocabulary = Tokenizer.from_buffer(pretrained.tokenizer_json()).get_vocab_size()
        student = new_student(
            self.preset, pretrained, read.labels, vocabulary=vocabulary, dropout=self.dropout
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
        if read.larger is not None and self.fit.hidden_weight > 0:
            read.larger.check_states(student, read.rows["train"])
        return student


def _epoch(progress: Progress) -> Epoch:
    score = progress.macro_f1 if progress.epoch_ended else None
    return Epoch(rows=progress.rows, train_loss=progress.loss, validation_macro_f1=score)


def starting_point(base: str | None, preset: Preset) -> Pretrained:
    """Return what training starts from: *base*, else the reference student, else the encoder.

    A preset of random weights takes no more than a tokenizer, and that of the encoder.
    """
    if preset == "tiny":
        return replace(find_pretrained(base), sources=())
    reference = find_reference()
    return find_pretrained(base or (str(reference) if reference else None))


def _check_labels(labels: Sequence[str]) -> None:
    if len(set(labels)) != len(labels) or len(labels) < 2:
        raise UsageError(
            f"{len(labels)} labels ({', '.join(labels)}): give two or more different ones with"
            " --labels",
            reason="BAD_LABELS",
        )


def _tokenise(
    parted: Parted, encoders: Mapping[Split, TextEncoder], labels: Sequence[str]
) -> tuple[dict[str, Rows], tuple[Refused, ...]]:
    rows: dict[str, Rows] = {}
    refused: list[Refused] = []
    for split, encoder in encoders.items():
        spare = parted.spare if split == "train" else ()
        rows[split], left_out = tokenise((*parted[split], *spare), encoder, labels)
        refused += left_out
    return rows, tuple(refused)
