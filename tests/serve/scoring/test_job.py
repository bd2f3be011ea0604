"""The job: from addresses to finished outputs, and what it refuses to begin with."""

from __future__ import annotations

import gzip
import io
import json
import os
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cli_in_process import Sentimill
from scoring_jobs import SMALL_WINDOW_BYTES, job, score
from sentimill.classifier import Classifier, Prediction
from sentimill.errors import EngineError, SentimillError, TableError, UsageError
from sentimill.scoring.answer_columns import Answers
from sentimill.scoring.formats.table import Layout
from sentimill.scoring.job import Score
from sentimill.scoring.runner import Progress
from sentimill.scoring.scorers import LocalScorer, Model, Texts
from sentimill.scoring.summary import try_out
from tiny_bundle import graph, write_tiny_bundle

TEXTS = ["good", "bad bad", "the battery", "good " * 30, "fine"] * 20
CSV = ("id,text\n" + "".join(f"{i},{text}\n" for i, text in enumerate(TEXTS))).encode()
JSONL = "".join(json.dumps({"id": i, "text": t}) + "\n" for i, t in enumerate(TEXTS)).encode()
SMALL = Layout(window_bytes=SMALL_WINDOW_BYTES)


def unpacked(data: bytes, name: str) -> bytes:
    """Return *data* as it was before it was packed for a file called *name*."""
    if name.endswith(".gz"):
        return gzip.decompress(data)
    if name.endswith(".zst"):
        with pa.CompressedInputStream(pa.BufferReader(data), "zstd") as stream:
            return bytes(stream.read())
    return data


def packed(data: bytes, name: str) -> bytes:
    """Return *data* as it is in a file called *name*, in two members where it is packed."""
    halves = data[: len(data) // 2], data[len(data) // 2 :]
    if name.endswith(".gz"):
        return b"".join(map(gzip.compress, halves)) + bytes(512)  # as tapes and blocks end
    if name.endswith(".zst"):
        skipped = b"\x50\x2a\x4d\x18\x04\0\0\0size"  # with which pzstd begins
        frames = [pa.Codec("zstd").compress(half, asbytes=True) for half in halves]
        return b"".join((skipped, frames[0], skipped, frames[1]))
    return data


def test_columns_are_what_the_classifier_says(
    bundle: Path, scorer: LocalScorer, tmp_path: Path
) -> None:
    """Every figure has the same bits as `Classifier.classify` gives."""
    classifier = Classifier.load(bundle, threads=1)
    data = io.BytesIO()
    pq.write_table(pa.table({"text": TEXTS}), data)
    files = {"source": "in.parquet", "target": "out.parquet"}
    _, out = score(tmp_path, scorer, data.getvalue(), layout=SMALL, probs=True, **files)
    rows = pq.read_table(io.BytesIO(out)).to_pylist()

    for row, expected in zip(rows, classifier.classify(TEXTS), strict=True):
        assert isinstance(expected, Prediction)
        names = ("label", "score", "confidence", "abstained", "abstain_reason")
        found = [row[f"sentiment_{name}"] for name in names]
        assert found == [getattr(expected, name) for name in names]
        probs = [row[f"sentiment_prob_{name}"] for name in classifier.labels]
        assert probs == list(astuple(expected)[1])


def test_figures_in_text_read_back_to_the_same_bits(tmp_path: Path, scorer: LocalScorer) -> None:
    """The shortest form of a float32 loses nothing."""
    _, out = score(tmp_path, scorer, JSONL, source="in.jsonl", target="out.jsonl", probs=True)
    direct = scorer.prepare(TEXTS)().probs

    for line, probs in zip(out.splitlines(), direct, strict=True):
        row = json.loads(line)
        found = [row[f"sentiment_prob_{name}"] for name in ("negative", "neutral", "positive")]
        assert np.array_equal(np.array(found, dtype=np.float32), probs)


@pytest.mark.parametrize("source", ["in.csv", "in.csv.gz", "in.csv.zst"])
@pytest.mark.parametrize("target", ["out.csv", "out.csv.gz", "out.csv.zst"])
def test_packing_is_chosen_by_the_names(
    tmp_path: Path, scorer: LocalScorer, source: str, target: str
) -> None:
    """Input and output may differ in it; the rows are the same."""
    _, plain = score(tmp_path, scorer, CSV)
    _, out = score(
        tmp_path, scorer, packed(CSV, source), source=source, target=target, layout=SMALL
    )

    assert unpacked(out, target) == plain


def test_a_pattern_fills_a_folder(tmp_path: Path, scorer: LocalScorer) -> None:
    """One output an input, under the same names below the folder that all have in common."""
    for name in ("a/one.csv", "a/two.csv", "b/one.csv"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(CSV)

    summary = job(tmp_path / "in/**/*.csv", f"{tmp_path}/out/").run(scorer)

    found = sorted(p.relative_to(tmp_path).as_posix() for p in (tmp_path / "out").rglob("*.*"))
    assert found == ["out/a/one.csv", "out/a/two.csv", "out/b/one.csv"]
    assert summary.rows == 300


def test_outputs_may_have_another_format(tmp_path: Path, scorer: LocalScorer) -> None:
    """The suffixes of the names follow; other dots in a name are part of it."""
    for name in ("sales.2025", "sales.2026"):
        (tmp_path / f"{name}.csv.gz").write_bytes(gzip.compress(CSV))

    job(tmp_path / "*.gz", f"{tmp_path}/out/", target_kind="parquet").run(scorer)

    assert sorted(os.listdir(tmp_path / "out")) == ["sales.2025.parquet", "sales.2026.parquet"]
    assert pq.read_table(tmp_path / "out/sales.2025.parquet").num_rows == 100


def test_stdin_and_stdout_make_a_pipe(sentimill: Sentimill, bundle: Path) -> None:
    """Rows go to stdout, everything else to stderr."""
    found = sentimill("score", "-", "-", "--format", "jsonl", "--bundle", bundle, stdin=JSONL)

    assert found.code == 0
    assert [json.loads(line)["id"] for line in found.out.splitlines()] == list(range(100))


def test_stdin_can_become_a_file(sentimill: Sentimill, bundle: Path, tmp_path: Path) -> None:
    """And a file can go to stdout, as the same bytes."""
    target = tmp_path / "out.csv"
    (tmp_path / "in.csv").write_bytes(CSV)

    assert (
        sentimill("score", "-", target, "--format", "csv", "--bundle", bundle, stdin=CSV).code == 0
    )
    shown = sentimill("score", tmp_path / "in.csv", "-", "--bundle", bundle)

    assert shown.out.encode() == target.read_bytes()


def test_progress_counts_rows_and_bytes(tmp_path: Path, scorer: LocalScorer) -> None:
    """At the end every row and every byte is done, and little was padding."""
    (tmp_path / "in.csv").write_bytes(CSV)
    seen: list[Progress] = []

    job(tmp_path / "in.csv", tmp_path / "out.csv", SMALL).run(scorer, report=seen.append)

    assert (seen[-1].counts.rows, seen[-1].read_bytes, seen[-1].total_bytes) == (
        100,
        len(CSV),
        len(CSV),
    )
    assert [one.counts.rows for one in seen] == sorted(one.counts.rows for one in seen)


def test_a_dry_run_estimates_and_writes_nothing(tmp_path: Path, scorer: LocalScorer) -> None:
    """It says how many rows there may be and how long they may take."""
    (tmp_path / "in.csv").write_bytes(CSV)

    found = try_out(job(tmp_path / "in.csv", tmp_path / "out.csv"), scorer)

    assert (found["rows"], found["estimated_rows"]) == (100, 100)
    assert os.listdir(tmp_path) == ["in.csv"]


@pytest.mark.parametrize(
    ("source", "target", "options", "reason"),
    [
        (
            "in.csv",
            "out.csv",
            {"prefix": "\u2713", "layout": Layout(encoding="latin-1")},
            "UNKNOWN_ENCODING",
        ),
        ("in.csv", "out.xlsx", {"layout": Layout(update=True)}, "NO_CONVERSION"),
        ("own.csv", "out.parquet", {}, "DUPLICATE_COLUMN"),
    ],
)
def test_a_dry_run_goes_through_writing(
    tmp_path: Path,
    scorer: LocalScorer,
    source: str,
    target: str,
    options: dict[str, object],
    reason: str,
) -> None:
    """What writing would refuse is refused there, and nothing is written."""
    (tmp_path / "in.csv").write_bytes(CSV)
    (tmp_path / "own.csv").write_bytes(b"text,sentiment_source\ngood,x\n")
    before = sorted(os.listdir(tmp_path))

    with pytest.raises(SentimillError) as caught:
        try_out(job(tmp_path / source, tmp_path / target, **options), scorer)  # type: ignore[arg-type]  # checked by replace

    assert caught.value.reason == reason
    assert sorted(os.listdir(tmp_path)) == before


def test_the_summary_and_metrics_are_files(
    sentimill: Sentimill, bundle: Path, tmp_path: Path
) -> None:
    """For schedulers and dashboards."""
    (tmp_path / "in.csv").write_bytes(CSV + b"1,\n")
    files = ("--summary", tmp_path / "s.json", "--metrics-textfile", tmp_path / "m.prom")

    found = sentimill(
        "score", tmp_path / "in.csv", tmp_path / "o.csv", "--bundle", bundle, "--strict", *files
    )

    summary = json.loads((tmp_path / "s.json").read_text())
    assert (found.code, summary["rows"], summary["failed"]) == (3, 101, 1)
    assert summary["errors"] == [f"{tmp_path}/o.csv.errors.jsonl"]
    assert "sentimill_job_rows 101.0" in (tmp_path / "m.prom").read_text()


def test_a_summary_that_has_no_folder_is_refused_before_the_job(
    sentimill: Sentimill, bundle: Path, tmp_path: Path
) -> None:
    """And not at hour twelve."""
    (tmp_path / "in.csv").write_bytes(CSV)
    lost = ("--summary", tmp_path / "absent" / "s.json")

    found = sentimill("score", tmp_path / "in.csv", tmp_path / "o.csv", "--bundle", bundle, *lost)

    assert (found.code, (tmp_path / "o.csv").exists()) == (2, False)
    assert "does not exist: create it first" in found.error


def test_too_many_errors_stop_the_job(tmp_path: Path, scorer: LocalScorer) -> None:
    """What is done is saved, and a higher limit goes on from there."""
    (tmp_path / "in.csv").write_bytes(b"text\n" + b"\n".join([b"good", b'""'] * 50))
    made = job(tmp_path / "in.csv", tmp_path / "out.csv", SMALL, max_errors=3)

    with pytest.raises(TableError, match="--max-errors allows 3") as caught:
        made.run(scorer)
    summary = job(tmp_path / "in.csv", tmp_path / "out.csv", SMALL, max_errors=50).run(scorer)

    assert caught.value.reason == "TOO_MANY_ERRORS"
    assert (summary.rows, summary.failed) == (100, 50)
    assert summary.resumed_rows > 0


def test_an_output_is_replaced_only_when_it_is_whole(tmp_path: Path, scorer: LocalScorer) -> None:
    """A job that fails leaves what was there, even with leave to replace it."""
    target = tmp_path / "out.csv"
    target.write_bytes(b"old")
    (tmp_path / "in.csv").write_bytes(b'text\ngood\n""\n')

    with pytest.raises(TableError):
        job(tmp_path / "in.csv", target, overwrite=True, max_errors=0).run(scorer)
    old = target.read_bytes()
    job(tmp_path / "in.csv", target, overwrite=True).run(scorer)

    assert old == b"old"
    assert target.read_bytes().startswith(b"text,sentiment_label")


def test_an_engine_that_fails_on_every_text_ends_the_job(tmp_path: Path) -> None:
    """It is broken, and a table full of errors would help nobody."""
    made = write_tiny_bundle(tmp_path / "tiny", model=graph(fail_on="poison"))
    scorer = LocalScorer(Classifier.load(made.path, threads=1))

    with pytest.raises(EngineError, match="the engine failed on 20 of 20 rows"):
        score(tmp_path, scorer, b"text\n" + b"poison\n" * 20)

    assert not (tmp_path / "out.csv").exists()


class Fails:
    """A scorer whose engine fails on every row of its calls from number *begin* to *end*."""

    ahead = 1

    def __init__(self, scorer: LocalScorer, begin: int, end: int) -> None:
        self._scorer = scorer
        self._bad = range(begin, end)
        self._calls = 0

    def model(self) -> Model:
        """Say what answers."""
        return self._scorer.model()

    def prepare(self, texts: Texts) -> Callable[[], Answers]:
        """Tokenise, and answer or fail on each row."""
        answer = self._scorer.prepare(texts)

        def call() -> Answers:
            self._calls += 1
            found = answer()
            if self._calls - 1 not in self._bad:
                return found
            error = EngineError("the engine failed", reason="ENGINE_FAILED")
            return Answers(
                np.full_like(found.probs, np.nan), dict.fromkeys(range(len(found.probs)), error)
            )

        return call


def test_a_dying_engine_publishes_nothing_and_no_failure_is_final(
    tmp_path: Path, scorer: LocalScorer
) -> None:
    """The next run answers every row on which the engine failed, and the bytes are the same."""
    (tmp_path / "in.csv").write_bytes(CSV)
    made = job(tmp_path / "in.csv", tmp_path / "out.csv", SMALL)
    job(tmp_path / "in.csv", tmp_path / "whole.csv", SMALL).run(scorer)

    with pytest.raises(EngineError, match="nothing is published"):
        made.run(Fails(scorer, 5, 99))
    assert not (tmp_path / "out.csv").exists()
    summary = made.run(scorer)

    assert (summary.failed, 0 < summary.resumed_rows < 30) == (0, True)
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_a_few_engine_failures_are_rows_with_an_error(tmp_path: Path, scorer: LocalScorer) -> None:
    """At most 16 rows, or one in a hundred, are texts that break the engine."""
    rows = 4000
    (tmp_path / "in.csv").write_bytes(b"text\n" + b"good\n" * rows)
    made = job(tmp_path / "in.csv", tmp_path / "out.csv", Layout(window_bytes=8000))

    summary = made.run(Fails(scorer, 180, 181))

    assert 16 < summary.counts.engine_failed == summary.failed <= rows // 100


@pytest.mark.parametrize(("strict", "code", "listed"), [(False, 0, False), (True, 3, True)])
def test_blank_cells_are_normal(
    sentimill: Sentimill, bundle: Path, tmp_path: Path, strict: bool, code: int, listed: bool
) -> None:
    """They keep their row and are counted; only --strict makes errors of them."""
    (tmp_path / "in.csv").write_bytes(b"id,text\n1,good\n2,\n3,  \n")
    options = ("--bundle", bundle, *(("--strict",) if strict else ()))

    found = sentimill("score", tmp_path / "in.csv", tmp_path / "out.csv", *options)

    rows = (tmp_path / "out.csv").read_text().splitlines()[1:]
    assert [row.rsplit(",", 1)[1] for row in rows] == ["", "EMPTY_TEXT", "EMPTY_TEXT"]
    assert (found.code, (tmp_path / "out.csv.errors.jsonl").exists()) == (code, listed)
    assert ("0 with an error, 2 blank" in found.err) == (not strict)


def test_an_output_that_appears_meanwhile_is_not_replaced(
    tmp_path: Path, scorer: LocalScorer
) -> None:
    """Existence is looked at again before publishing; with leave the job then ends."""
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_bytes(CSV)

    def write(_: Progress) -> None:
        target.write_bytes(b"other")

    with pytest.raises(UsageError, match="appeared while the job ran") as caught:
        job(source, target, SMALL).run(scorer, report=write)

    assert (caught.value.reason, target.read_bytes()) == ("OUTPUT_EXISTS", b"other")
    assert job(source, target, SMALL, overwrite=True).run(scorer).rows == 100
    assert target.read_bytes() != b"other"


def test_one_output_has_one_lock_however_it_is_spelt(tmp_path: Path, scorer: LocalScorer) -> None:
    """Through a link to its folder, and with another --work, it is the same output."""
    (tmp_path / "in.csv").write_bytes(CSV)
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    first = job(tmp_path / "in.csv", tmp_path / "real/out.csv", work=tmp_path / "a")
    others = [
        job(tmp_path / "in.csv", tmp_path / "link/out.csv", work=tmp_path / "b"),
        job(tmp_path / "in.csv", tmp_path / "real/../real/out.csv"),
    ]

    for other in others:
        with first.locked(), pytest.raises(UsageError, match="another job"):
            other.run(scorer)
    assert first.run(scorer).rows == 100
    assert os.listdir(tmp_path / "real") == ["out.csv"]


@pytest.mark.parametrize("place", ["folder", "folder/absent/s.json"])
def test_a_summary_that_cannot_be_written_is_refused_before_the_job(
    sentimill: Sentimill, bundle: Path, tmp_path: Path, place: str
) -> None:
    """A folder in its place, or no folder for it."""
    (tmp_path / "in.csv").write_bytes(CSV)
    (tmp_path / "folder").mkdir()
    options = ("--bundle", bundle, "--summary", tmp_path / place)

    found = sentimill("score", tmp_path / "in.csv", tmp_path / "o.csv", *options)

    assert (found.code, (tmp_path / "o.csv").exists()) == (2, False)


def test_a_pipe_that_closes_ends_the_job_in_one_line(
    tmp_path: Path, scorer: LocalScorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `| head` does; it does not promise that the rows are saved."""
    (tmp_path / "in.csv").write_bytes(CSV)
    with Path("/dev/full").open("wb", buffering=0) as closed:
        monkeypatch.setattr("sys.stdout", io.TextIOWrapper(closed, write_through=True))
        with pytest.raises(SentimillError, match="standard output was closed") as caught:
            job(tmp_path / "in.csv", "-").run(scorer)

    assert "saved" not in str(caught.value)


@pytest.mark.parametrize("model", [graph(fail_on="poison"), graph(infinite="poison")])
def test_one_text_that_breaks_the_engine_fails_alone(tmp_path: Path, model: bytes) -> None:
    """Its neighbours in the batch have their answers."""
    made = write_tiny_bundle(tmp_path / "tiny", model=model)
    scorer = LocalScorer(Classifier.load(made.path, threads=1))
    data = b"text\ngood\nbad\npoison\ngood\ngood\n"

    summary, out = score(tmp_path, scorer, data)

    assert [line.split(b",")[1] or line.split(b",")[-1] for line in out.splitlines()[1:]] == [
        b"positive",
        b"negative",
        b"ENGINE_FAILED",
        b"positive",
        b"positive",
    ]
    assert summary.failed == 1


def refusal(made: Score) -> SentimillError:
    """Return the error with which a job does not begin."""
    with pytest.raises(SentimillError) as caught:
        made.plan()
    return caught.value


@pytest.mark.parametrize(
    ("target", "overwrite", "reason"),
    [
        ("in.csv", True, "OUTPUT_IS_INPUT"),
        ("link.csv", True, "OUTPUT_IS_INPUT"),
        ("other.csv", False, "OUTPUT_EXISTS"),
        ("pipe.csv", True, "OUTPUT_IS_DEVICE"),
        ("absent/out.csv", False, "NO_SUCH_FOLDER"),
        ("out.jsonl", False, "NO_CONVERSION"),
        ("out.json", False, "NO_CONVERSION"),
    ],
)
def test_a_target_that_cannot_be_is_refused(
    tmp_path: Path, target: str, overwrite: bool, reason: str
) -> None:
    """Before anything is loaded or written."""
    source = tmp_path / "in.csv"
    source.write_bytes(b"text\ngood\n")
    (tmp_path / "link.csv").symlink_to(source)
    (tmp_path / "other.csv").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe.csv")

    error = refusal(job(source, tmp_path / target, overwrite=overwrite))

    assert (type(error), error.reason) == (UsageError, reason)


@pytest.mark.parametrize(
    ("names", "target"),
    [
        (("d/a.csv", "d/sub/a.csv"), "d/sub/"),
        (("d/a.csv", "d/sub/a.csv"), "link/sub/"),
        (("d/sub/a.csv.errors.jsonl",), "d/sub/a.csv"),
    ],
)
def test_no_output_replaces_any_of_the_inputs(
    tmp_path: Path, names: tuple[str, ...], target: str
) -> None:
    """Neither that of another output nor the list of errors does, even with --overwrite."""
    (tmp_path / "d/sub").mkdir(parents=True)
    (tmp_path / "link").symlink_to("d")
    for name in names:
        (tmp_path / name).write_bytes(b"text\ngood\n")
    sources = tuple(f"{tmp_path}/{name}" for name in names)
    made = job("", f"{tmp_path}/{target}", sources=sources, kind="csv", overwrite=True)

    error = refusal(made)

    assert (type(error), error.reason) == (UsageError, "OUTPUT_IS_INPUT")
    assert "is an input, which the job would replace" in str(error)
    assert all((tmp_path / name).read_bytes() == b"text\ngood\n" for name in names)


def test_a_suffix_that_promises_nothing_has_the_format_of_the_input(
    tmp_path: Path, scorer: LocalScorer
) -> None:
    """Such as `.txt`, or none."""
    for name in ("out.txt", "out", "sales.2026"):
        _, out = score(tmp_path, scorer, b"text\ngood\n", target=name)
        assert out.startswith(b"text,sentiment_label")


@pytest.mark.parametrize(
    ("source", "target", "options", "reason"),
    [
        ("absent.csv", "out.csv", {}, "FILE_NOT_FOUND"),
        ("absent*.csv", "out.csv", {}, "FILE_NOT_FOUND"),
        ("in.ods", "out.csv", {}, "UNKNOWN_FORMAT"),
        ("one.csv", "out.xls", {}, "UNKNOWN_FORMAT"),
        ("one.csv", "out.zip", {}, "UNKNOWN_FORMAT"),
        ("in.parquet.gz", "out.parquet", {}, "UNKNOWN_FORMAT"),
        ("*.csv", "out.csv", {}, "NOT_A_FOLDER"),
        (
            "one.csv",
            "out.csv",
            {"prefix": "te", "layout": Layout(text_columns=("tescore",))},
            "COLUMN_COLLISION",
        ),
        ("s3x://bucket/in.csv", "out.csv", {}, "UNKNOWN_ADDRESS"),
        ("folder.csv", "out.csv", {}, "FOLDER_AS_INPUT"),
        ("two.*", "./", {"target_kind": "parquet"}, "OUTPUT_COLLISION"),
    ],
)
def test_a_source_that_cannot_be_is_refused(
    tmp_path: Path, source: str, target: str, options: dict[str, object], reason: str
) -> None:
    """With an error that names it."""
    (tmp_path / "folder.csv").mkdir()
    for name in ("one.csv", "two.csv", "two.tsv", "in.ods", "in.parquet.gz"):
        (tmp_path / name).write_bytes(b"text\ngood\n")
    address = source if "://" in source else tmp_path / source

    assert refusal(job(address, f"{tmp_path}/{target}", **options)).reason == reason  # type: ignore[arg-type]  # checked by replace


def test_a_bad_packing_is_told(tmp_path: Path, scorer: LocalScorer) -> None:
    """What is no gzip, is packed twice, or ends too early is bad input; nothing is written."""
    packed = gzip.compress(CSV, mtime=0)
    for data, reason, why in (
        (b"text\ngood\n", "BAD_COMPRESSION", "let its name end in .csv, or"),
        (gzip.compress(packed), "BAD_COMPRESSION", "gzip inside its gzip: unpack it once"),
        (gzip.compress(b"PAR1"), "WRONG_FORMAT", "a Parquet file inside its gzip"),
        (packed[:-9], "TRUNCATED", "copy it again"),
    ):
        with pytest.raises(TableError, match=why) as caught:
            score(tmp_path, scorer, data, source="in.csv.gz")
        assert caught.value.reason == reason
    # The header of a frame with a window of 1 GiB, which `zstd --long=30` writes.
    frame = bytes.fromhex("28b52ffd 00 a0 41 00 00") + b"text\ngood\n"
    with pytest.raises(TableError, match="compress it again without --long"):
        score(tmp_path, scorer, frame, source="in.csv.zst")

    assert not (tmp_path / "out.csv").exists()
