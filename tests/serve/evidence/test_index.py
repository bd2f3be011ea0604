"""An index of labelled reviews: what it finds, how it changes, and what it refuses."""

from __future__ import annotations

import json
import shutil
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner, Result

from cli_in_process import Sentimill
from sentimill import Classifier, Prediction
from sentimill.cli.main import add_command
from sentimill.errors import BundleError, InputError, SentimillError, UsageError
from sentimill.evidence.index import Index
from sentimill.evidence.states import with_states
from tiny_bundle import graph
from tiny_index import REVIEWS, write_state_bundle


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bundle whose graph has states."""
    return write_state_bundle(tmp_path_factory.mktemp("model") / "bundle")


def run(*args: str | Path) -> Result:
    """Run `sentimill index` in this process; its own errors are raised."""
    app = typer.Typer()
    add_command(app, EntryPoint("index", "sentimill_train.cli.index:index", "sentimill.commands"))
    app.command()(lambda: None)
    result = CliRunner().invoke(app, ["index", *map(str, args)])
    if isinstance(result.exception, SentimillError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def write_reviews(path: Path, rows: list[tuple[str, str, str]] = REVIEWS) -> Path:
    """Write labelled reviews as JSON lines."""
    names = ("id", "text", "label")
    lines = [json.dumps(dict(zip(names, row, strict=True))) for row in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def folder(tmp_path: Path, model: Path) -> Path:
    """Return an index of `REVIEWS`, with texts."""
    reviews = write_reviews(tmp_path / "reviews.jsonl")
    run(reviews, tmp_path / "mine.index", "--bundle", model, "--keep-texts")
    return tmp_path / "mine.index"


def nearest(model: Path, folder: Path, text: str) -> list[str]:
    """Return the ids of the neighbours of *text*, the nearest first."""
    (answer,) = Classifier.load(model, index=folder, threads=1).classify([text])
    assert isinstance(answer, Prediction)
    return [one.id for one in answer.neighbours]


def test_an_answer_carries_its_nearest_reviews(model: Path, folder: Path) -> None:
    """With label, similarity and text; a text that is in the index is its own nearest."""
    answers = Classifier.load(model, index=folder, threads=1).classify([r[1] for r in REVIEWS])

    for (name, text, label), answer in zip(REVIEWS, answers, strict=True):
        assert isinstance(answer, Prediction)
        first, *rest = answer.neighbours
        assert (first.id, first.label, first.text) == (name, label, text)
        assert first.similarity == pytest.approx(1.0, abs=1e-3)
        assert len(rest) == 4
        assert all(
            a.similarity >= b.similarity for a, b in zip(answer.neighbours, rest, strict=False)
        )


@pytest.mark.parametrize("engine", ["onnx", "openvino"])
def test_an_index_changes_no_bit_of_an_answer(model: Path, folder: Path, engine: str) -> None:
    """Neither do batch mates change a neighbour."""
    texts = [row[1] for row in REVIEWS]
    plain = Classifier.load(model, engine=engine, threads=1)  # type: ignore[arg-type]
    indexed = Classifier.load(model, engine=engine, threads=1, index=folder)  # type: ignore[arg-type]

    together = indexed.classify(texts)

    for text, ours, theirs in zip(texts, plain.classify(texts), together, strict=True):
        assert isinstance(ours, Prediction)
        assert isinstance(theirs, Prediction)
        assert ours.probs == theirs.probs
        assert indexed.classify([text]) == [theirs]
    indexed.probe()


def test_the_same_rows_make_the_same_index(model: Path, folder: Path, tmp_path: Path) -> None:
    """To the byte."""
    run(tmp_path / "reviews.jsonl", tmp_path / "again", "--bundle", model, "--keep-texts")

    for name in ("manifest.json", "rows.json", "states.usearch"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_rows_come_and_go(model: Path, folder: Path, tmp_path: Path) -> None:
    """A removed row is not found again, and its id may be used anew."""
    assert nearest(model, folder, "good battery")[0] == "a"

    run("remove", folder, "a", "c")
    assert "a" not in nearest(model, folder, "good battery")

    more = write_reviews(tmp_path / "more.jsonl", [("a", "good battery", "negative")])
    assert "6 reviews" in run("add", more, folder, "--bundle", model).output
    assert nearest(model, folder, "good battery")[0] == "a"
    assert Index.open(folder).nearest(np.ones((1, 32), np.float32))[0]


def test_a_removed_row_leaves_no_trace(model: Path, folder: Path, tmp_path: Path) -> None:
    """The folder is the one that rows without it make, to the byte: no state of it is left."""
    others = [row for row in REVIEWS if row[0] not in ("a", "c")]
    run(
        write_reviews(tmp_path / "others.jsonl", others),
        tmp_path / "x",
        "--bundle",
        model,
        "--keep-texts",
    )

    run("remove", folder, "a", "c")

    for name in ("manifest.json", "rows.json", "states.usearch"):
        assert (tmp_path / "x" / name).read_bytes() == (folder / name).read_bytes()


def test_texts_are_kept_only_where_asked(model: Path, tmp_path: Path) -> None:
    """The folder holds ids, labels and states alone."""
    reviews = write_reviews(tmp_path / "reviews.jsonl")
    run("add", reviews, tmp_path / "mine.index", "--bundle", model)

    assert all(b"battery" not in file.read_bytes() for file in (tmp_path / "mine.index").iterdir())


def test_rows_without_label_or_text_are_left_out(model: Path, tmp_path: Path) -> None:
    """They can be nobody's evidence."""
    rows = [("a", "good", "positive"), ("b", "  ", "neutral"), ("c", "bad", "")]
    reviews = write_reviews(tmp_path / "reviews.jsonl", rows)

    assert "1 reviews" in run(reviews, tmp_path / "x", "--bundle", model).output


def test_an_id_twice_is_refused(model: Path, folder: Path, tmp_path: Path) -> None:
    """In the index already, or in the file; the index stays as it was."""
    before = (folder / "manifest.json").read_bytes()
    for rows in ([("a", "bad", "negative")], [("x", "bad", "negative"), ("x", "good", "positive")]):
        more = write_reviews(tmp_path / "more.jsonl", rows)
        with pytest.raises(InputError, match="index remove") as refused:
            run("add", more, folder, "--bundle", model)
        assert refused.value.reason == "INDEX_ID_TWICE"

    assert (folder / "manifest.json").read_bytes() == before


def test_an_id_twice_is_refused_before_the_model_runs(
    model: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The states of many reviews take minutes; a row that has no text may have any id."""
    read: list[str] = []
    compute = Classifier.compute

    def counted(*given: Any, **options: Any) -> object:
        read.extend(given[1])
        return compute(*given, **options)

    more = write_reviews(
        tmp_path / "more.jsonl", [("x", "good", "positive"), ("x", " ", "neutral")]
    )
    twice = write_reviews(tmp_path / "twice.jsonl", [("y", "bad", "negative"), *REVIEWS])
    monkeypatch.setattr(Classifier, "compute", counted)
    run(more, folder, "--bundle", model)
    with pytest.raises(InputError, match="'a' is in the index"):
        run(twice, folder, "--bundle", model)

    assert "good" in read
    assert "bad" not in read


def test_an_unknown_or_removed_id_is_refused(folder: Path) -> None:
    """Nothing is changed then."""
    run("remove", folder, "b")
    for ids in (["nobody"], ["b"], ["c", "c"]):
        with pytest.raises(InputError) as refused:
            run("remove", folder, *ids)
        assert refused.value.reason == "INDEX_NO_SUCH_ID"

    assert len(Index.open(folder)) == len(REVIEWS) - 1


def test_an_index_is_never_empty(model: Path, folder: Path, tmp_path: Path) -> None:
    """The last row cannot be removed, and rows without text make no index."""
    with pytest.raises(UsageError, match="delete the folder"):
        run("remove", folder, *[row[0] for row in REVIEWS])
    with pytest.raises(UsageError) as refused:
        blank = write_reviews(tmp_path / "blank.jsonl", [("a", " ", "neutral")])
        run(blank, tmp_path / "x", "--bundle", model)

    assert refused.value.reason == "INDEX_EMPTY"
    assert len(Index.open(folder)) == len(REVIEWS)


def test_a_file_without_labelled_reviews_adds_nothing(
    model: Path, folder: Path, tmp_path: Path
) -> None:
    """Whether there is an index already or not; one that is there stays as it is."""
    before = (folder / "manifest.json").read_bytes()
    for rows in ([("x", "good", "")], [("x", " ", "neutral")]):
        more = write_reviews(tmp_path / "more.jsonl", rows)
        for path in (folder, tmp_path / "new"):
            with pytest.raises(
                UsageError, match=r"more\.jsonl has none: .*--label-column"
            ) as refused:
                run("add", more, path, "--bundle", model)
            assert refused.value.reason == "INDEX_EMPTY"

    assert (folder / "manifest.json").read_bytes() == before
    assert not (tmp_path / "new").exists()


def test_texts_cannot_be_kept_from_now_on(model: Path, tmp_path: Path) -> None:
    """The rows before would have none."""
    reviews = write_reviews(tmp_path / "reviews.jsonl")
    run(reviews, tmp_path / "x", "--bundle", model)
    more = write_reviews(tmp_path / "more.jsonl", [("z", "good", "positive")])

    with pytest.raises(UsageError, match="another index"):
        run(more, tmp_path / "x", "--bundle", model, "--keep-texts")


def test_an_index_of_another_bundle_is_refused(folder: Path, tmp_path: Path) -> None:
    """Its states mean something else."""
    other = write_state_bundle(tmp_path / "other", version="2")

    for attempt in (
        lambda: Classifier.load(other, index=folder),
        lambda: run("add", tmp_path / "reviews.jsonl", folder, "--bundle", other),
    ):
        with pytest.raises(BundleError, match="--bundle") as refused:
            attempt()
        assert refused.value.reason == "INDEX_OF_ANOTHER_BUNDLE"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("manifest.json", b"{}"),
        ("manifest.json", b'{"schema_version": 2}'),
        ("manifest.json", b'{"schema_version": 2, "bundle": "x", "texts": true, "files": {}}'),
        ("states.usearch", b"x"),
        ("rows.json", b"[]"),
        ("rows.json", None),
    ],
)
def test_a_damaged_index_is_refused(folder: Path, name: str, content: bytes | None) -> None:
    """With the file at fault and what to do."""
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)

    with pytest.raises(BundleError, match="sentimill index") as refused:
        Index.open(folder)

    assert refused.value.reason == "INDEX_DAMAGED"


@pytest.mark.parametrize("version", [1, 3])
def test_an_index_of_another_version_is_told_by_its_schema(
    model: Path, folder: Path, tmp_path: Path, version: int
) -> None:
    """It is whole, but of another program; whoever deletes it and builds it again can use it."""
    content = {"schema_version": version, "bundle": "x", "texts": True, "files": {"a": {"b": 1}}}
    (folder / "manifest.json").write_text(json.dumps(content))
    reviews = write_reviews(tmp_path / "reviews.jsonl")

    with pytest.raises(BundleError) as refused:
        run(reviews, folder, "--bundle", model)

    assert str(refused.value) == (
        f"{folder} is an index of schema version {version}, and this program reads 2: delete the"
        " folder and build it again from your reviews with `sentimill index`"
    )
    assert refused.value.reason == "INDEX_UNKNOWN_SCHEMA"

    shutil.rmtree(folder)
    run(reviews, folder, "--bundle", model)

    assert len(Index.open(folder)) == len(REVIEWS)


def test_what_is_no_index_is_not_to_be_deleted(model: Path, tmp_path: Path) -> None:
    """A bundle in the place of an index stays as it is, and so does a file; a name may be wrong."""
    reviews = write_reviews(tmp_path / "reviews.jsonl")
    for path in (model, reviews, tmp_path / "nowhere"):
        with pytest.raises(
            BundleError, match=r"is not a whole index .* name another folder; or, if"
        ):
            Classifier.load(model, index=path)
    for path in (model, reviews):
        with pytest.raises(BundleError, match="is not a whole index"):
            run(reviews, path, "--bundle", model)

    assert Classifier.load(model, threads=1).classify(["good"])
    assert reviews.read_text().count("\n") == len(REVIEWS)


def test_a_model_without_a_head_has_no_states(tmp_path: Path) -> None:
    """As the bag of words has none."""
    with pytest.raises(BundleError) as refused:
        with_states(graph())

    assert refused.value.reason == "BUNDLE_NO_STATES"


@pytest.mark.parametrize("package", ["usearch.index", "onnx"])
def test_a_missing_package_is_named(
    model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    """With what installs it."""
    monkeypatch.setitem(sys.modules, package, None)

    with pytest.raises(UsageError, match=r"pip install 'sentimill\[evidence\]'"):
        Classifier.load(model, index=folder)


def test_the_command_shows_neighbours(sentimill: Sentimill, model: Path, folder: Path) -> None:
    """As JSON where there is no terminal."""
    found = sentimill("classify", "good battery", "--bundle", model, "--index", folder, "--json")

    (first, *_) = json.loads(found.out)["neighbours"]
    assert (first["id"], first["label"], first["text"]) == ("a", "positive", "good battery")
