"""`sentimill drift` from its options to its exit code."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
from msgspec.structs import replace
from typer.testing import CliRunner

from sentimill.bundle.manifest import Manifest
from sentimill.classifier import Classifier
from sentimill.errors import InputError
from sentimill_train.cli.drift import drift
from sentimill_train.data.schema import Example
from sentimill_train.data.tokenized import tokenise
from sentimill_train.model.student import load_student, predict
from sentimill_train.monitoring.drift import Drift, DriftJob, find_drift
from sentimill_train.monitoring.observations import embeddings, observe
from tiny_bundle import write_tiny_bundle
from tiny_bundle_with_weights import write_weighted_bundle

app = typer.Typer()
app.command()(drift)
MIX = {"negative": 0.4, "neutral": 0.2, "positive": 0.4}


def texts(rows: int, *, seed: int, positive: float = 0.4, strange: float = 0.1) -> list[str]:
    """Return texts of the tiny bundle's words, a share of them positive, some words unknown."""
    chance = random.Random(seed)
    found = []
    for _ in range(rows):
        rest = ("bad", "fine") if chance.random() < 2 / 3 else ("fine", "fine")
        word = "good" if chance.random() < positive else rest[0]
        fill = ["zebra" if chance.random() < strange else "the" for _ in range(chance.randrange(9))]
        found.append(" ".join([word, "battery", *fill]))
    return found


def write(path: Path, rows: list[str]) -> str:
    """Write *rows* as JSON lines, and one that no model can read."""
    path.write_text("\n".join(json.dumps({"text": text}) for text in [*rows, " "]))
    return str(path)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bundle that knows its mix of labels."""

    def change(manifest: Manifest) -> Manifest:
        return replace(manifest, label_mix=MIX, training={"rows_test": 500})

    return write_tiny_bundle(tmp_path_factory.mktemp("drift") / "mixed", change=change).path


@pytest.fixture(scope="module")
def weighted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bundle with the weights of an encoder."""
    return write_weighted_bundle(tmp_path_factory.mktemp("drift") / "weighted")


def by_name(found: Drift) -> dict[str, bool]:
    """Return which tests say that something moved, of those that could be made."""
    return {shift.name: shift.moved for shift in found.shifts if shift.value is not None}


def test_what_has_not_moved_is_left_alone(mixed: Path, tmp_path: Path) -> None:
    """Two draws of the same texts differ in no test, and the exit code is 0."""
    old, new = (write(tmp_path / f"{seed}.jsonl", texts(400, seed=seed)) for seed in (1, 2))
    out = tmp_path / "out.json"

    done = CliRunner().invoke(
        app, ["--reference", str(mixed), "--on", new, "--against", old, "--json", str(out)]
    )

    assert done.exit_code == 0, done.output
    found = json.loads(out.read_bytes())
    assert [shift["moved"] for shift in found["shifts"]] == [False] * 5
    assert found["recent"] == {"rows_in_file": 401, "drawn": 401, "unreadable": 1}
    assert "Nothing that was tested has moved. Not tested: embedding" in done.stdout
    assert "battery" not in out.read_text()


def test_each_test_sees_its_own_shift(mixed: Path, tmp_path: Path) -> None:
    """More praise moves the mix, new words the vocabulary, and longer texts the length."""
    old = write(tmp_path / "old.jsonl", texts(400, seed=1))
    praise = write(tmp_path / "praise.jsonl", texts(400, seed=2, positive=0.9))
    strange = write(tmp_path / "strange.jsonl", texts(400, seed=3, strange=0.6))
    long = write(tmp_path / "long.jsonl", [f"{t} the the the" for t in texts(400, seed=4)])
    classifier = Classifier.load(mixed, threads=1)

    moved = {
        name: {
            test
            for test, says in by_name(
                find_drift(classifier, DriftJob(on=source, against=old))
            ).items()
            if says
        }
        for name, source in (("praise", praise), ("strange", strange), ("long", long))
    }

    assert "label mix" in moved["praise"]
    assert moved["strange"] == {"out of vocabulary"}
    assert "length" in moved["long"]
    assert "label mix" not in moved["long"]


def test_without_earlier_texts_only_the_mix_is_tested(mixed: Path, tmp_path: Path) -> None:
    """The exit code says that it moved, the table what was not tested and why."""
    new = write(tmp_path / "new.jsonl", texts(300, seed=1, positive=1.0))

    done = CliRunner().invoke(app, ["--reference", str(mixed), "--on", new])

    assert done.exit_code == 5
    assert "Moved: label mix. Not tested: confidence, length, out of vocabulary" in done.stdout
    assert "--against FILE" in done.stdout


def test_a_bundle_without_a_mix_is_compared_with_the_earlier_texts(
    bundle: Path, tmp_path: Path
) -> None:
    """And has nothing to compare without them."""
    old = write(tmp_path / "old.jsonl", texts(300, seed=1))
    new = write(tmp_path / "new.jsonl", texts(300, seed=2, positive=1.0))
    classifier = Classifier.load(bundle, threads=1)

    compared = find_drift(classifier, DriftJob(on=new, against=old))
    alone = find_drift(classifier, DriftJob(on=new))

    assert by_name(compared)["label mix"]
    assert compared.shifts[0].against == "earlier"
    assert by_name(alone) == {}


def test_too_few_texts_are_refused(mixed: Path, tmp_path: Path) -> None:
    """A distribution of ten says nothing."""
    new = write(tmp_path / "new.jsonl", texts(10, seed=1))

    with pytest.raises(InputError, match="10 texts that can be read, but a test needs 50") as said:
        find_drift(Classifier.load(mixed, threads=1), DriftJob(on=new))

    assert said.value.reason == "TOO_FEW_ROWS"


def test_words_without_a_token_of_their_own_are_counted(bundle: Path) -> None:
    """Unknown ones and those taken apart alike, before anything is cut to max_tokens."""
    classifier = Classifier.load(bundle, threads=1)  # reads at most 16 tokens

    seen = observe(classifier, ["good zebra", "", "the " * 30])

    assert seen.kept.tolist() == [0, 2]
    assert seen.words.tolist() == [2, 30]
    assert seen.oov.tolist() == [0.5, 0]
    assert seen.counts(classifier.labels) == {"negative": 0, "neutral": 1, "positive": 1}


def test_embeddings_that_moved_are_noticed(weighted: Path, tmp_path: Path) -> None:
    """Another word that is known as well shows in nothing else."""
    classifier = Classifier.load(weighted, threads=1)
    old = write(tmp_path / "old.jsonl", texts(120, seed=1))
    poisoned = [text.replace("battery", "poison") for text in texts(120, seed=2)]
    new = write(tmp_path / "new.jsonl", poisoned)
    same = write(tmp_path / "same.jsonl", texts(120, seed=3))

    found = find_drift(classifier, DriftJob(on=new, against=old))
    again = find_drift(classifier, DriftJob(on=same, against=old))

    assert by_name(found)["embedding"]
    assert not by_name(again)["embedding"]
    assert not by_name(found)["out of vocabulary"]  # the words themselves are known


def test_an_embedding_is_what_the_head_reads(weighted: Path) -> None:
    """Padding is left out of the mean, and the head makes the student's logits of it."""
    classifier = Classifier.load(weighted, threads=1)
    texts = ["the battery is good", "bad"]
    rows, _ = tokenise(
        [Example(id=text, text=text, label="neutral", source="made") for text in texts],
        classifier.encoder,
        classifier.labels,
    )
    student = load_student(weighted)

    found = embeddings(classifier, texts)

    assert found is not None
    head = student.head.weight.detach().numpy(), student.head.bias.detach().numpy()
    np.testing.assert_allclose(found @ head[0].T + head[1], predict(student, rows), atol=1e-5)


def test_a_bundle_without_weights_has_no_embeddings(
    bundle: Path, weighted: Path, tmp_path: Path
) -> None:
    """As one made by other means may have none, and `reference-small` comes without its own."""
    light = shutil.copytree(weighted, tmp_path / "light")
    (light / "model.safetensors").unlink()

    for folder in (bundle, light):
        assert embeddings(Classifier.load(folder, threads=1), ["good"]) is None


def test_the_command_is_light_to_import() -> None:
    """`sentimill --help` loads the command, and so must not load what it needs to run."""
    code = "import sys, sentimill_train.cli.drift; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "sklearn", "datasets", "numpy", "scipy"} & set(done.stdout.split())
