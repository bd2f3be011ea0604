"""Scores many files at once on a Ray cluster (extra `ray`).

Ray Data gives whole units of work (one input, one output) to a pool of actors. An actor scores its
unit as a local job would, and the output gets its name only when it is complete. So if an actor is
lost, Ray can give its unit to another one, and no row is written twice. `AnswerBatches`
adds the answers to any block of Ray Data, for your own pipelines.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import msgspec
import pyarrow as pa

from sentimill.bundle.reader import Bundle, open_bundle
from sentimill.bundle.reference import find_bundle, is_on_hub
from sentimill.engine.base import Precision, Provider
from sentimill.errors import SentimillError, TableError, TextError, UsageError
from sentimill.evidence.index import Index
from sentimill.installed_packages import from_extra
from sentimill.scoring.answer_columns import AnswerSchema
from sentimill.scoring.checkpoint import Done, RowCounts
from sentimill.scoring.job import Progress, Score, Summary
from sentimill.scoring.runner import errors_of
from sentimill.scoring.scorers import LocalScorer
from sentimill.scoring.storage import STANDARD, absolute, is_remote, local

_RETRIES: Final = 3
"""How often a unit whose actor died is given to another one."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Where actors run. address: of a running cluster (`auto` finds it); None starts one here.

    num_cpus, num_gpus: of one actor; with a fraction of a GPU several actors share a card. threads:
    CPU threads of one actor's engine; None means one for each of its CPUs.
    """

    bundle: Path
    address: str | None = None
    actors: int = 1
    num_cpus: float = 1.0
    num_gpus: float = 0.0
    precision: Precision = "auto"
    provider: Provider = "auto"
    threads: int | None = None
    batch_tokens: int | None = None
    detect_language: bool = True
    index: Path | None = None


class AnswerBatches:
    """Adds the answers to batches of a Ray dataset.

    ds.map_batches(AnswerBatches, fn_constructor_kwargs={"bundle": "/bundles/mine"},
                   batch_format="pyarrow", batch_size=4096, concurrency=8, num_gpus=0.5)
    """

    def __init__(
        self,
        bundle: str,
        *,
        text_column: str = "text",
        prefix: str = "sentiment_",
        probs: bool = False,
        precision: Precision = "auto",
        provider: Provider = "auto",
        threads: int | None = None,
    ) -> None:
        """Load the bundle, once per actor. threads: None means one for each CPU of the actor."""
        threads = threads or _assigned_cpus()
        self._scorer = LocalScorer.load(
            bundle, precision=precision, provider=provider, threads=threads
        )
        model = self._scorer.model()
        self._columns = AnswerSchema(model.labels, model.threshold, prefix, with_probs=probs)
        self._text_column = text_column

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return *batch* with the answers as its last columns, rows in the same order."""
        why = f"{self._text_column!r} is null"
        texts = [
            TextError(why, reason="MISSING_TEXT") if text is None else text
            for text in batch.column(self._text_column).to_pylist()
        ]
        added = self._columns.add(self._scorer.prepare(texts)())
        for name, array in zip(added.schema.names, added.columns, strict=True):
            batch = batch.append_column(name, array)
        return batch


class _Units:
    """Scores whole units, one after the other, in an actor of its own."""

    def __init__(self, job: Score, cluster: Cluster) -> None:
        self._job = job
        self._scorer = LocalScorer.load(
            cluster.bundle,
            precision=cluster.precision,
            provider=cluster.provider,
            # Otherwise each actor on a machine would start threads for all of its cores.
            threads=cluster.threads or _assigned_cpus() or max(1, int(cluster.num_cpus)),
            detect_language=cluster.detect_language,
            batch_tokens=cluster.batch_tokens,
            explain=job.explain,
            index=cluster.index,
            neighbours=job.neighbours,
        )

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Score the unit of *row* and return what was done, or the error that ended it."""
        if not is_remote(row["target"]):
            local(row["target"]).parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="sentimill-") as work:
            job = replace(
                self._job,
                sources=(row["source"],),
                target=row["target"],
                # A lost actor may have left a part of the output, which is replaced.
                overwrite=True,
                restart=True,
                work=Path(work),
            )
            try:
                done = job.run(self._scorer)
            except SentimillError as error:
                # If it were raised here, Ray would retry the unit.
                found = _Outcome(row["number"], RowCounts(), error.reason, str(error))
            else:
                found = _Outcome(row["number"], done.counts)
        return {"outcome": msgspec.json.encode(found)}


class _Outcome(msgspec.Struct, frozen=True):
    """The result of a unit; `reason` is empty when it is done."""

    number: int
    counts: RowCounts
    reason: str = ""
    message: str = ""


def run_on_ray(
    job: Score, cluster: Cluster, *, report: Callable[[Progress], None] = lambda _: None
) -> Summary:
    """Score every unit of *job* on a Ray cluster; *report* is called after each.

    A checkpoint keeps the finished units, so a job that is run again does only the rest. If units
    fail, the others are finished, and then TableError is raised for the first that failed. Raises
    SentimillError when a unit has lost its actor too often.
    """
    ray = _import_ray()
    # A worker has a working directory of its own.
    job = replace(job, sources=tuple(map(absolute, job.sources)), target=absolute(job.target))
    cluster = replace(
        cluster,
        bundle=cluster.bundle if is_on_hub(cluster.bundle) else cluster.bundle.absolute(),
        index=cluster.index and cluster.index.absolute(),
    )
    began = time.monotonic()
    if STANDARD in (job.target, *job.sources):
        raise UsageError("--engine ray reads and writes files, not -", reason="NO_STREAMS_ON_RAY")
    units = job.plan()
    folder = find_bundle(cluster.bundle)
    bundle = open_bundle(folder)
    if is_on_hub(cluster.bundle) and "@" not in str(cluster.bundle):
        # The cache of the Hub names a folder by its commit, and every node has to get the same one.
        cluster = replace(cluster, bundle=Path(f"{cluster.bundle}@{Path(folder).name}"))
    header = job.header(units, bundle.digest, _engine(cluster, bundle))
    total_bytes = sum(entry.size_bytes for entry in header.inputs)
    with job.journal(header) as journal:
        done = {number: entry.counts for number, entry in journal.done.items()}
        resumed = sum(counts.rows for counts in done.values())
        waiting = [
            {"number": number, "source": unit.source, "target": unit.target}
            for number, unit in enumerate(units)
            if number not in done
        ]
        failure: _Outcome | None = None
        for outcome in _outcomes(ray, waiting, job, cluster):
            if outcome.reason:
                failure = failure or outcome
                continue
            done[outcome.number] = outcome.counts
            journal.append([Done(file=outcome.number, counts=outcome.counts)])
            counts = sum(done.values(), RowCounts())
            read = sum(header.inputs[k].size_bytes for k in done)
            seconds = time.monotonic() - began
            report(Progress(counts, counts.rows - resumed, read, total_bytes, seconds))
        if failure is not None:
            raise TableError(failure.message, reason=failure.reason)
    return Summary(
        counts=sum(done.values(), RowCounts()),
        resumed_rows=resumed,
        seconds=time.monotonic() - began,
        outputs=tuple(unit.target for unit in units),
        errors=tuple(errors_of(units[k].target) for k in sorted(done) if done[k].failed),
    )


def _engine(cluster: Cluster, bundle: Bundle) -> str:
    """Return what the answers depend on besides the bundle, as `LocalScorer.model` does."""
    engine = f"{cluster.precision} on ray"
    if cluster.detect_language and bundle.manifest.languages:
        engine += f" for {'+'.join(sorted(bundle.manifest.languages))}"
    if cluster.index:
        engine += f" with the index {Index.open(cluster.index, bundle.digest).digest[:12]}"
    return engine


def _outcomes(
    ray: Any, waiting: list[dict[str, Any]], job: Score, cluster: Cluster
) -> Iterator[_Outcome]:
    """Yield the results of the *waiting* units, in the order in which they end."""
    if not waiting:
        return
    began_here = not ray.is_initialized()
    if began_here:
        ray.init(address=cluster.address, log_to_driver=False)
    try:
        dataset = ray.data.from_items(waiting, override_num_blocks=len(waiting)).map(
            _Units,
            fn_constructor_args=(job, cluster),
            concurrency=min(cluster.actors, len(waiting)),
            num_cpus=None if cluster.num_gpus else cluster.num_cpus,
            num_gpus=cluster.num_gpus or None,
            # A dead actor is restarted, and so is its unit. But a unit that needs more memory than
            # there is would kill every actor, for ever.
            max_restarts=-1,
            max_task_retries=_RETRIES,
        )
        for row in dataset.iter_rows():
            yield msgspec.json.decode(row["outcome"], type=_Outcome)
    except ray.exceptions.RayError as error:
        why = f"an actor of Ray died {_RETRIES + 1} times on one file ({_first_line(error)}): give"
        why += " actors more memory, or split the file; finished files are saved: then run it again"
        raise SentimillError(why, reason="WORKER_LOST") from error
    finally:
        if began_here:
            ray.shutdown()


def _assigned_cpus() -> int | None:
    """Return how many CPUs Ray gave to this actor, None outside an actor or if it has a GPU."""
    ray = _import_ray()
    if not ray.is_initialized():
        return None
    assigned = ray.get_runtime_context().get_assigned_resources()
    return None if assigned.get("GPU") else max(1, int(assigned.get("CPU", 1)))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _import_ray() -> Any:
    with from_extra("ray", "--engine ray needs Ray"):
        import ray
        import ray.data
        import ray.exceptions
    return ray
