"""`sentimill train`, as a person types it."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from cli_in_process import Sentimill
from sentimill.bundle.reader import open_bundle
from sentimill.bundle.reference import find_reference
from sentimill.errors import SentimillError, UsageError
from sentimill_train.cli.curate import curate
from sentimill_train.cli.train import train
from sentimill_train.cli.train_progress import ProgressDisplay
from sentimill_train.data.schema import SENTIMENTS
from sentimill_train.pipeline import Train
from sentimill_train.training import state
from train_parts import write_base

app = typer.Typer(context_settings={"auto_envvar_prefix": "SENTIMILL"})
app.command("train")(train)


def run(*args: str | Path, **environment: str) -> Result:
    """Run the command."""
    return CliRunner().invoke(app, [str(arg) for arg in args], env=environment)


@pytest.fixture
def tiny(tmp_path: Path) -> list[str | Path]:
    """Return options for a run of seconds, but for the reviews and --out."""
    base = write_base(tmp_path / "base")
    return ["--base", base, "--preset", "tiny", "--epochs", "1", "--learning-rate", "5e-3"]


def write_csv(path: Path, rows: int = 300) -> Path:
    """Write reviews under other column names, a few of which are not to be used."""
    words = ("lovely", "broken", "fine")
    lines = [f"item {i} was {words[i % 3]},{('pos', 'neg', 'neu')[i % 3]}" for i in range(rows)]
    path.write_text("\n".join(["review,verdict", *lines, "no verdict,", " ,pos"]))
    return path


def test_a_bundle_is_written_and_the_next_command_is_said(
    tmp_path: Path, tiny: list[str | Path]
) -> None:
    """All of it on stderr, and stdout stays free for data."""
    reviews = write_csv(tmp_path / "r.csv")
    columns = ["--text-column", "review", "--label-column", "verdict"]

    found = run("--reviews", reviews, *columns, "--out", tmp_path / "my model", *tiny)

    assert (found.exit_code, found.stdout) == (0, "")
    assert open_bundle(tmp_path / "my model").manifest.name == "my model"
    for says in (
        "epoch 1: loss ",
        "left out 1 rows without a label",
        "left out r-302 of ",
        "the text is empty",
        "test, ",
        "The bundle ",
        "MB, trained on ",
        f"sentimill classify \"Works as promised.\" --bundle '{tmp_path / 'my model'}'",
        f"sentimill serve --bundle '{tmp_path / 'my model'}'",
    ):
        assert says in found.stderr


def test_the_next_command_that_curate_names_works(
    tmp_path: Path, tiny: list[str | Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It trains on what was written, whatever columns and labels the input had."""
    monkeypatch.chdir(tmp_path)
    words = (("lovely", "good"), ("broken", "bad"))
    lines = [f"item {i} was {words[i % 2][0]};{words[i % 2][1]}" for i in range(200)]
    Path("my reviews.csv").write_text("\n".join(["review;verdict", *lines]))
    columns = ["--text-column", "review", "--label-column", "verdict", "--labels", "bad,good"]
    filters = ["--near", "1", "--no-label-errors"]
    curating = typer.Typer()
    curating.command()(curate)

    found = CliRunner().invoke(curating, ["my reviews.csv", "my set.jsonl", *columns, *filters])
    named = re.findall("next: sentimill train (.*)", found.stderr)
    done = run(*shlex.split(named[0]), *tiny)

    assert done.exit_code == 0, done.output
    assert open_bundle(Path("bundles/mine")).manifest.labels == ("bad", "good")


def test_no_text_is_ever_shown(tmp_path: Path, tiny: list[str | Path]) -> None:
    """Not even of a row that was left out."""
    reviews = tmp_path / "r.csv"
    write_csv(reviews)
    reviews.write_text(reviews.read_text() + "\n" + "secret" * 200_000 + ",pos\n")
    columns = ["--text-column", "review", "--label-column", "verdict"]

    found = run("--reviews", reviews, *columns, "--out", tmp_path / "b", *tiny)

    assert found.exit_code == 0
    assert "secret" not in found.output
    assert "lovely" not in found.output


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--reviews", "none.csv"], "there is no file none.csv"),
        (["--reviews", "starter", "--labels", "positive"], "give two or more different ones"),
        (["--reviews", "starter", "--learning-rate", "0"], "--learning-rate 0.0 is not above 0"),
        (["--reviews", "starter", "--base", "nowhere"], "there is no folder nowhere"),
        (["--reviews", "starter", "--text-column", "review"], "no column 'review'"),
    ],
)
def test_what_cannot_be_is_said(tmp_path: Path, args: list[str], says: str) -> None:
    """As an error of ours, which the program turns into one line and an exit code."""
    found = run(*args, "--out", tmp_path / "b")

    assert isinstance(found.exception, SentimillError)
    assert says in str(found.exception)
    assert not (tmp_path / "b").exists()


def test_labels_to_be_found_in_a_file_without_any(tmp_path: Path) -> None:
    """More names of labels would not help: the column is missing."""
    (tmp_path / "r.csv").write_text("text\n" + "".join(f"item {i}\n" for i in range(50)))

    found = run("--reviews", tmp_path / "r.csv", "--labels", "found", "--out", tmp_path / "b")

    assert isinstance(found.exception, SentimillError)
    assert found.exception.reason == "NO_LABELS"
    assert "name its column with --label-column" in str(found.exception)


def test_options_can_come_from_the_environment(tmp_path: Path, tiny: list[str | Path]) -> None:
    """A flag goes before SENTIMILL_*, which goes before the default."""
    reviews = write_csv(tmp_path / "r.csv")

    found = run(
        *("--reviews", reviews, "--out", tmp_path / "b", "--label-column", "verdict", *tiny),
        SENTIMILL_TEXT_COLUMN="review",
        SENTIMILL_LABEL_COLUMN="nonsense",
    )

    assert found.exit_code == 0, found.output


def test_help_fits_on_a_page(sentimill: Sentimill, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under headings, what one needs first comes first; each option is there once, with help."""
    monkeypatch.setenv("COLUMNS", "80")

    lines = sentimill("train", "--help").out.splitlines()

    assert len(lines) < 100
    assert [line for line in lines if line.endswith(":") and line[0] != " "] == [
        *("Input:", "Output:", "Model:", "Training:", "Teacher:"),
        *("Performance:", "Advanced:", "Options:"),
    ]
    options = re.findall(r"^  (?:-h, )?--([a-z0-9-]+)", "\n".join(lines), re.MULTILINE)
    assert options[:2] == ["reviews", "text-column"]
    assert len(options) == len(set(options)) > 40


def test_the_command_line_is_quick_to_load() -> None:
    """`sentimill --help` finds this command, and must not wait for torch."""
    code = (
        "import sys, sentimill_train.cli.train;"
        "print(*({'torch', 'transformers', 'datasets', 'sklearn', 'onnxruntime', 'scipy'}"
        " & set(sys.modules)))"
    )

    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == ""


def test_a_missing_extra_is_named_with_the_command_that_installs_it(tmp_path: Path) -> None:
    """A server's installation has the command and not what it needs.

    In a process of its own: a package that is imported anew here would hide its old modules from
    the tests that come after.
    """
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from sentimill.cli.main import main\n"
        f"main(['train', '--reviews', 'starter', '--out', {str(tmp_path / 'b')!r}])"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode != 0
    assert "pip install 'sentimill[cpu,train]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("preset", "learns"), [("minilm-l3", True), ("minilm-l6", False)])
def test_half_a_student_learns_the_answers_of_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, preset: str, learns: bool
) -> None:
    """Half the layers answer worse until something tells them what the whole would have said."""
    asked: list[Train] = []

    def run_nothing(self: Train, watcher: object) -> None:
        asked.append(self)
        raise UsageError("enough", reason="ENOUGH")

    monkeypatch.setattr(Train, "run", run_nothing)

    run("--reviews", "starter", "--preset", preset, "--out", tmp_path / "b")

    (config,) = asked
    assert config.teacher_bundle == (find_reference() if learns else None)


def test_labels_that_are_found_have_the_defaults_of_what_is_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reference has these labels, so its head is not new and needs fewer epochs."""
    reviews = tmp_path / "r.csv"
    rows = "".join(f"item {i},{SENTIMENTS[i % 3]}\n" for i in range(30))
    reviews.write_text("text,label\n" + rows)
    asked: list[Train] = []
    monkeypatch.setattr(Train, "run", lambda self, watcher: asked.append(self))

    for labels in ((), ("--labels", "found"), ("--labels", "good,bad")):
        run("--reviews", reviews, *labels, "--out", tmp_path / "b")

    named, found, other = (config.fit for config in asked)
    assert named == found
    assert (found.epochs, other.epochs) == (3, 5)


class Clock:
    """A clock that tests move."""

    now = 0.0

    def __call__(self) -> float:
        """Return the time in seconds."""
        return self.now


def at(rows: int, *, epoch_ended: bool = False) -> state.Progress:
    """Return how far a training of two epochs of 1,000 rows is."""
    nll, macro_f1 = (0.4, 0.8) if epoch_ended else (None, None)
    return state.Progress(
        epoch=1,
        rows=rows,
        rows_total=2000,
        loss=0.5,
        nll=nll,
        macro_f1=macro_f1,
        epoch_ended=epoch_ended,
    )


def test_a_log_has_a_line_every_ten_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    """With rows, loss, rate and the time that is left, where stderr is no terminal."""
    clock = Clock()
    with ProgressDisplay(clock) as display:
        display.stage("training")
        for clock.now in range(26):
            display.progress(at(40 * int(clock.now)))
        display.progress(at(1000, epoch_ended=True))

    assert capsys.readouterr().err.splitlines() == [
        "training",
        "epoch 1: 400 of 2,000 rows, loss 0.500, 40 rows/s, at most 40 s left",
        "epoch 1: 800 of 2,000 rows, loss 0.500, 40 rows/s, at most 30 s left",
        "epoch 1: loss 0.500, validation NLL 0.400, macro-F1 0.800",
    ]


def test_a_slow_training_does_not_say_that_it_stands_still(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Less than half a row a second, as a crowded machine gives, is not 0 rows/s."""
    clock = Clock()
    with ProgressDisplay(clock) as display:
        for clock.now in (0, 20):
            display.progress(at(int(clock.now) // 5))

    assert "4 of 2,000 rows, loss 0.500, 0.2 rows/s" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ("--labels-of=starter", "BAD_PAIR"),
        ("--weight-of=starter=-1", "BAD_WEIGHT"),
        ("--weight-of=other.csv=2", "UNKNOWN_SOURCE"),
        ("--class-weights=neutral", "BAD_CLASS_WEIGHTS"),
        ("--teacher-logits=none.parquet", "NO_TEACHER"),
    ],
)
def test_an_option_that_says_nothing_is_refused(
    tmp_path: Path, tiny: list[str | Path], option: str, reason: str
) -> None:
    """Before anything is trained, with the name of the option."""
    found = run("--reviews", "starter", option, "--out", tmp_path / "b", *tiny)

    assert isinstance(found.exception, UsageError)
    assert found.exception.reason == reason
