"""What does `sentimill score` cost for each row, apart from the engine, and in which stage?

An engine that answers at once replaces the real one. The remaining time has a lower bound: tokie's
own time, and the time that pyarrow needs to read the table and to write it with more columns. The
reviews are made from the starter set, with about 500 characters each, as Parquet and as CSV. Stages
and bounds are measured in turn, in CPU time of one process. Then whole jobs run in one process and
in several, and their CPU time and rate are compared: without an engine, and over fewer rows with
the real engine on all cores. Only a quiet machine shows how a job scales.

    python -m benchmarks.scoring.stages --out benchmarks/results/scoring-stages.json

With --against, the CPU time in one process is measured in turn here and in another checkout.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from multiprocessing import active_children
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.record import ROOT, surroundings, write_result
from sentimill.classifier import Classifier
from sentimill.engine.base import EngineInfo
from sentimill.engine.hardware import usable_cores
from sentimill.scoring.answer_columns import AnswerSchema
from sentimill.scoring.formats.table import Layout, Position
from sentimill.scoring.job import Score
from sentimill.scoring.output_format import OutputFormat
from sentimill.scoring.planning import open_table, plan
from sentimill.scoring.scorers import LocalScorer, ProcessScorer, Scorer
from sentimill.text.cleaning import tidy
from sentimill.text.emoji_names import name_emoji
from sentimill.text.fast_tokenizer import read_tokie
from sentimill.text.language import foreign_language

FORMATS: Final = ("parquet", "csv")
_CHARACTERS: Final = 500
_BATCH_TOKENS: Final = 32_768
"""The default on a GPU."""


def main() -> None:
    """Measure, and write JSON to --out and to stdout."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, default=ROOT / "bundles" / "reference")
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--engine-rows", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--processes", type=int, nargs="*", default=[2])
    parser.add_argument("--against", type=Path, help="another checkout, such as a git worktree")
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    if chosen.against:
        found = against(chosen.against, chosen.rows, chosen.repeats)
        sys.stdout.write(write_result(chosen.out, {**surroundings(), **found}) + "\n")
        return
    with tempfile.TemporaryDirectory(prefix="stages-") as folder:
        found = measure(Path(folder), chosen)
    made = {**surroundings(), "pyarrow": pa.__version__, **found}
    sys.stdout.write(write_result(chosen.out, made) + "\n")


def against(other: Path, rows: int, repeats: int) -> dict[str, object]:
    """Return microseconds of CPU a row in *other* and in this checkout, in processes of their own.

    The medians of all turns, and of the ratios of a turn to the one before it.
    """
    spent: dict[str, list[dict[str, float]]] = {"before": [], "after": []}
    options = ["--rows", str(rows), "--repeats", "1", "--engine-rows", "8", "--processes"]
    for _ in range(repeats):
        for name, checkout in (("before", other.resolve()), ("after", ROOT)):
            path = os.pathsep.join(str(checkout / half) for half in ("serve", "train"))
            command = [sys.executable, "-m", "benchmarks.scoring.stages", *options]
            done = subprocess.run(
                command,
                cwd=checkout,
                env={**os.environ, "PYTHONPATH": path},
                stdout=subprocess.PIPE,
                check=True,
            )
            spent[name].append(json.loads(done.stdout)["cpu_us_a_row"])
    stages = spent["after"][0]
    medians = {
        name: {stage: statistics.median(turn[stage] for turn in turns) for stage in stages}
        for name, turns in spent.items()
    }
    pairs = list(zip(spent["before"], spent["after"], strict=True))
    ratios = {
        stage: statistics.median(old[stage] / new[stage] for old, new in pairs) for stage in stages
    }
    return {"rows": rows, "repeats": repeats, **medians, "times_as_fast": ratios, "all": spent}


def measure(folder: Path, chosen: argparse.Namespace) -> dict[str, object]:
    """Return microseconds of CPU a row by stage, and rates of whole jobs by processes."""
    rows, bundle = chosen.rows, chosen.bundle
    texts = reviews(rows)
    for path, count in ((folder / "in", rows), (folder / "few", chosen.engine_rows)):
        table = pa.table({"id": range(count), "text": texts[:count]})
        pq.write_table(table, path.with_suffix(".parquet"), row_group_size=50_000)
        pa.csv.write_csv(table, path.with_suffix(".csv"))
    spent: dict[str, list[float]] = defaultdict(list)
    rates: dict[str, list[float]] = defaultdict(list)
    with ExitStack() as stack:
        one, *several = _scorers(partial(instant_scorer, bundle), chosen.processes, stack)
        real = _scorers(partial(LocalScorer.load, bundle), chosen.processes, stack)
        for turn in range(chosen.repeats + 1):  # the first turn warms up
            costs = _tokenising(bundle, texts)
            for kind in FORMATS:
                costs |= _stages(folder, kind, one[1]) | _pyarrow(folder, kind)
                for name, scorer in (one, *several):
                    seconds, cpu = _job(folder / f"in.{kind}", scorer, Layout())
                    costs[f"{kind}: whole job, {name}"] = cpu
                    rates[f"{kind}, {name}"].append(rows / seconds)
            for name, scorer in real:
                seconds, _ = _job(folder / "few.csv", scorer, Layout(window_bytes=100_000))
                rates[f"with the engine, {name}"].append(chosen.engine_rows / seconds)
            for name, cpu in costs.items() if turn else ():
                spent[name].append(cpu / rows * 1e6)
    return {
        "rows": rows,
        "characters": statistics.mean(map(len, texts)),
        "repeats": chosen.repeats,
        "cpu_us_a_row": {name: statistics.median(costs) for name, costs in spent.items()},
        "rows_per_second": {name: statistics.median(found[1:]) for name, found in rates.items()},
        # Ratios within one turn: a slow minute of the machine then slows both.
        "times_one_process": {
            f"{what}, {name}": statistics.median(
                many / single
                for many, single in zip(
                    rates[f"{what}, {name}"][1:], rates[f"{what}, {one[0]}"][1:], strict=True
                )
            )
            for what in (*FORMATS, "with the engine")
            for name, _ in several
        },
        "all": {name: sorted(costs) for name, costs in spent.items()},
    }


def _scorers(
    load: Callable[..., LocalScorer], processes: Sequence[int], stack: ExitStack
) -> list[tuple[str, Scorer]]:
    """Return scorers of one process and of several, which share the cores."""
    cores = usable_cores()
    found: list[tuple[str, Scorer]] = [("1 process", load(threads=cores))]
    for count in processes:
        made = ProcessScorer(partial(load, threads=max(1, cores // count)), count)
        found.append((f"{count} processes", stack.enter_context(closing(made))))
    return found


def reviews(rows: int) -> list[str]:
    """Return *rows* texts of about 500 characters, of starter reviews in random order."""
    path = ROOT / "train" / "sentimill_train" / "resources" / "starter.jsonl"
    starter = [json.loads(line)["text"] for line in path.read_text("utf-8").splitlines()]
    chance = random.Random(5)
    texts = []
    for _ in range(rows):
        text = chance.choice(starter)
        while len(text) < _CHARACTERS - 50:
            text += " " + chance.choice(starter)
        texts.append(text[: _CHARACTERS + 50])
    return texts


class Instant:
    """An engine that answers at once, as a GPU of 100,000 reviews a second nearly does."""

    info = EngineInfo(engine="instant", provider="cuda", precision="fp32", threads=1)

    def run(
        self, ids: NDArray[np.int64], mask: NDArray[np.int64], *, other_calls: int = 0
    ) -> NDArray[np.float32]:
        """Return different logits for different texts."""
        first = ids[:, 1:3].astype(np.float32) % 7
        return np.concatenate([first, first[:, :1] * 0], axis=1)


def instant_scorer(bundle: Path, threads: int) -> LocalScorer:
    """Return a scorer over *bundle* whose engine answers at once."""
    classifier = Classifier.load(bundle, threads=threads)
    classifier.engine = Instant()
    return LocalScorer(classifier, batch_tokens=_BATCH_TOKENS)


@contextmanager
def _timed(costs: dict[str, float], name: str) -> Iterator[None]:
    began = time.process_time()
    yield
    costs[name] = time.process_time() - began


def _tokenising(bundle: Path, texts: Sequence[str]) -> dict[str, float]:
    costs: dict[str, float] = {}
    classifier = Classifier.load(bundle, threads=1)
    encoder = classifier.new_encoder()
    encoder.encode(texts[:100])
    with _timed(costs, "clean"):
        tidied = [tidy(text) for text in texts]
        cleaned = [name_emoji(text) for text in tidied]
    with _timed(costs, "detect the language"):
        for text in tidied:
            foreign_language(text, encoder.languages)
    with _timed(costs, "clean, detect and tokenise"):
        encoder.encode(texts)
    tokie = read_tokie(classifier.bundle.read("tokenizer.json").decode())
    with _timed(costs, "bound: tokie"):
        for text in cleaned:
            tokie.encode(text, False)
    return costs


def _stages(folder: Path, kind: str, scorer: Scorer) -> dict[str, float]:
    """Return the CPU time of each stage, each over all windows before the next begins."""
    costs: dict[str, float] = {}
    (unit,) = plan([str(folder / f"in.{kind}")], str(folder / f"stages.{kind}"))
    model = scorer.model()
    columns = AnswerSchema(model.labels, model.threshold, "sentiment_", with_probs=False)
    with open_table(unit, Layout(), columns) as table:
        form = OutputFormat(unit, table, Layout(), columns)
        with _timed(costs, f"{kind}: read"):
            windows = list(table.windows(Position()))
        prepared = [scorer.prepare(window.texts) for window in windows]
        with _timed(costs, f"{kind}: order"):
            answers = [answer() for answer in prepared]
        with _timed(costs, f"{kind}: join"):
            data = [
                form.render(window, columns.add(found))
                for window, found in zip(windows, answers, strict=True)
            ]
        with _timed(costs, f"{kind}: write"):
            path = folder / f"{kind}.data"
            with path.open("wb") as file:
                file.write(form.head())
                file.writelines(data)
            form.finish(path, lambda: None)
    return costs


def _pyarrow(folder: Path, kind: str) -> dict[str, float]:
    """Return what pyarrow alone takes to read the table and write it with the answers."""
    costs: dict[str, float] = {}
    source, out = folder / f"in.{kind}", folder / f"pyarrow.{kind}"
    added = pq.read_table(folder / "parquet.parquet").select(range(2, 8))
    with _timed(costs, f"{kind}: bound: read by pyarrow"):
        table = pq.read_table(source) if kind == "parquet" else pa.csv.read_csv(source)
    with _timed(costs, f"{kind}: bound: written by pyarrow"):
        for name, column in zip(added.column_names, added.columns, strict=True):
            table = table.append_column(name, column)
        if kind == "parquet":
            pq.write_table(table, out)
        else:
            pa.csv.write_csv(table, out)
    return costs


def _job(source: Path, scorer: Scorer, layout: Layout) -> tuple[float, float]:
    """Return seconds and CPU seconds of a job."""
    target = source.with_name(f"out-{source.name}")
    job = Score(sources=(str(source),), target=str(target), layout=layout, overwrite=True)
    before = time.process_time() + _children_s()
    seconds = job.run(scorer).seconds
    return seconds, time.process_time() + _children_s() - before


def _children_s() -> float:
    """Return the CPU time that the running child processes have taken so far."""
    ticks = 0
    for child in active_children():
        # The name of the program, in brackets, may contain blanks.
        fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
