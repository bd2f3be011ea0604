"""The model folder: written whole, read with suspicion."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import msgspec
import pytest
from onnx import TensorProto, helper

from sentimill.bundle import writer
from sentimill.bundle.reader import open_bundle
from sentimill.bundle.writer import check_writable, write_bundle
from sentimill.classifier import Classifier
from sentimill.errors import BundleError, UsageError
from tiny_bundle import write_tiny_bundle


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a tiny bundle that the test may spoil."""
    return write_tiny_bundle(tmp_path / "tiny").path


def refusal(path: Path) -> BundleError:
    """Return the error with which *path* does not verify."""
    with pytest.raises(BundleError, match="does not verify") as caught:
        open_bundle(path).verify()
    return caught.value


def edit_manifest(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change manifest.json in place."""
    file = path / "manifest.json"
    manifest = json.loads(file.read_bytes())
    change(manifest)
    file.write_text(json.dumps(manifest))


def list_file(path: Path, name: str) -> None:
    """Enter a file that lies in the folder into the manifest, hash and all."""
    data = (path / name).read_bytes()
    entry = {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
    edit_manifest(path, lambda manifest: manifest["files"].update({name: entry}))


def test_a_written_bundle_opens_and_verifies(folder: Path) -> None:
    """What was written is what is read, and the digest is that of manifest.json."""
    opened = open_bundle(folder)
    opened.verify()

    assert opened.manifest.name == "tiny"
    assert hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest() == opened.digest


def test_the_same_content_gives_the_same_digest(tmp_path: Path) -> None:
    """The digest names the model, not the folder."""
    one, two = (write_tiny_bundle(tmp_path / name) for name in ("one", "two"))

    assert one.digest == two.digest


def test_a_bundle_may_be_reached_through_a_link(folder: Path, tmp_path: Path) -> None:
    """The folder's own name may be a symlink, which is how a server changes models."""
    (tmp_path / "current").symlink_to(folder)

    open_bundle(tmp_path / "current").verify()


def flip_a_bit(path: Path) -> None:
    """Change one byte of the graph and keep its size."""
    file = path / "onnx/fp32.onnx"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def append_a_byte(path: Path) -> None:
    """Make the graph longer."""
    with (path / "onnx/fp32.onnx").open("ab") as file:
        file.write(b"\0")


def link_the_tokenizer(path: Path) -> None:
    """Replace the tokenizer by a symlink to the very same bytes."""
    file = path / "tokenizer.json"
    file.rename(path.parent / "elsewhere.json")
    file.symlink_to(path.parent / "elsewhere.json")


def link_the_graph_folder(path: Path) -> None:
    """Replace the folder of the graphs by a symlink to it."""
    (path / "onnx").rename(path.parent / "onnx")
    (path / "onnx").symlink_to(path.parent / "onnx")


def link_the_manifest(path: Path) -> None:
    """Replace the manifest by a symlink to the very same bytes."""
    file = path / "manifest.json"
    file.rename(path.parent / "manifest.json")
    file.symlink_to(path.parent / "manifest.json")


def hard_link_every_file(path: Path) -> None:
    """Give each file a second name, as uv and conda do."""
    for number, file in enumerate(sorted(each for each in path.rglob("*") if each.is_file())):
        os.link(file, path.parent / f"cache-{number}")


def as_hugging_face_caches_it(path: Path) -> None:
    """Replace each file by a symlink to a file that has its hash for a name."""
    blobs = path.parent / "blobs"
    blobs.mkdir()
    for file in sorted(each for each in path.rglob("*") if each.is_file()):
        blob = blobs / hashlib.sha256(file.read_bytes()).hexdigest()
        file.rename(blob)
        file.symlink_to(os.path.relpath(blob, file.parent))


def add_harmless_files(path: Path) -> None:
    """Add what file managers, git and the Hub leave in a folder."""
    for name in (".DS_Store", "Thumbs.db", ".gitattributes", "notes.md", "onnx/.DS_Store"):
        (path / name).write_text("hello")
    (path / ".cache").mkdir()
    os.mkfifo(path / "pipe.json")


@pytest.mark.parametrize(
    "change",
    [
        link_the_tokenizer,
        link_the_graph_folder,
        link_the_manifest,
        hard_link_every_file,
        as_hugging_face_caches_it,
        add_harmless_files,
    ],
)
def test_hashes_decide_and_not_how_files_came_to_lie_there(
    folder: Path, change: Callable[[Path], object]
) -> None:
    """Links and files that nobody reads are no reason to refuse a folder."""
    change(folder)

    opened = open_bundle(folder)
    opened.verify()
    assert Classifier.load(folder, threads=1).labels == opened.manifest.labels


def put_a_pipe_for_the_tokenizer(path: Path) -> None:
    """Put a named pipe where a file is listed, which would block a reader for ever."""
    (path / "tokenizer.json").unlink()
    os.mkfifo(path / "tokenizer.json")


def link_a_changed_graph(path: Path) -> None:
    """Link to a graph with other bytes."""
    flip_a_bit(path)
    (path / "onnx/fp32.onnx").rename(path.parent / "blob")
    (path / "onnx/fp32.onnx").symlink_to(path.parent / "blob")


def link_to_nothing(path: Path) -> None:
    """Link to a file that is not there."""
    (path / "tokenizer.json").unlink()
    (path / "tokenizer.json").symlink_to(path.parent / "gone")


def add_an_unlisted_pickle(path: Path) -> None:
    """Put a checkpoint of torch next to the weights, which other programs might load."""
    (path / "pytorch_model.bin").write_bytes(pickle.dumps({"a": 1}))


def add_a_listed_pickle(path: Path) -> None:
    """Put a pickle into the folder and list it with its right hash."""
    (path / "head.pkl").write_bytes(pickle.dumps({"a": 1}))
    list_file(path, "head.pkl")


def keep_weights_outside(path: Path) -> None:
    """Make the graph read its weights from another file, and list it with its right hash."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    graph = helper.make_graph([], "outside", [], [], [tensor])
    (path / "onnx/fp32.onnx").write_bytes(helper.make_model(graph).SerializeToString())
    list_file(path, "onnx/fp32.onnx")


@pytest.mark.parametrize(
    ("spoil", "reason", "why"),
    [
        (flip_a_bit, "WRONG_HASH", "onnx/fp32.onnx has sha256"),
        (append_a_byte, "WRONG_SIZE", "onnx/fp32.onnx has"),
        (lambda path: (path / "tokenizer.json").unlink(), "MISSING_FILE", "tokenizer.json"),
        (lambda path: (path / "manifest.json").unlink(), "MISSING_FILE", "manifest.json"),
        (link_a_changed_graph, "WRONG_HASH", "onnx/fp32.onnx has sha256"),
        (link_to_nothing, "MISSING_FILE", "tokenizer.json is listed in the manifest and absent"),
        (put_a_pipe_for_the_tokenizer, "NO_PLAIN_FILE", "tokenizer.json is not a regular file"),
        (add_an_unlisted_pickle, "FORBIDDEN_FILE", "pytorch_model.bin may be a pickle"),
        (add_a_listed_pickle, "FORBIDDEN_FILE", "head.pkl has a suffix that no bundle has"),
        (keep_weights_outside, "EXTERNAL_DATA", "keeps weights in another file"),
    ],
)
def test_a_spoilt_folder_is_refused(
    folder: Path, spoil: Callable[[Path], object], reason: str, why: str
) -> None:
    """Each way to spoil a folder has its reason, names the file and says what to do."""
    spoil(folder)

    error = refusal(folder)

    assert f"BUNDLE_{reason}" == error.reason
    assert why in str(error)
    assert "export it again" in str(error)


def test_an_unknown_schema_version_asks_for_an_update(folder: Path) -> None:
    """A manifest of another shape is judged by its version alone."""
    (folder / "manifest.json").write_text('{"schema_version": 2, "shape": "other"}')

    error = refusal(folder)

    assert error.reason == "BUNDLE_UNKNOWN_SCHEMA"
    assert "its schema version is 2, this program reads 1; update sentimill" in str(error)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{",
        b"\xff\xfe",
        b'{"schema_version": "1"}',
        b'{"schema_version": 1}',
        b" " * 2**21,
    ],
)
def test_a_manifest_that_is_none_is_refused(folder: Path, data: bytes) -> None:
    """Broken JSON, missing fields, wrong types and a huge file are one error of ours."""
    (folder / "manifest.json").write_bytes(data)

    assert refusal(folder).reason == "BUNDLE_BAD_MANIFEST"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda m: m.update(labels=["good", "good"]), "labels must be"),
        (lambda m: m.update(labels=["good"]), "labels must be"),
        (lambda m: m.update(precisions={}), "precisions must name"),
        (lambda m: m.update(golden=[]), "golden must hold"),
        (lambda m: m["golden"][0].update(probs=[1.0]), "golden must hold one prob per label"),
        (lambda m: m["golden"][0].update(label="negative"), "label must be the most probable one"),
        (lambda m: m["precisions"]["fp32"].update(threshold=-0.1), "threshold must be"),
        (lambda m: m["precisions"]["fp32"].update(file="x.onnx"), "must be listed under files"),
        (lambda m: m["files"].pop("tokenizer.json"), "tokenizer.json must be listed"),
        (lambda m: m["precisions"]["fp32"].update(temperature=0), "temperature must be"),
        (lambda m: m.update(threshold=1.5), "threshold must be"),
        (lambda m: m["files"].update({"../x.json": m["files"]["tokenizer.json"]}), "'../x.json'"),
        (lambda m: m["files"].update({"/x.json": m["files"]["tokenizer.json"]}), "'/x.json'"),
        (lambda m: m["files"].update({"a\\b.json": m["files"]["tokenizer.json"]}), "leaves the"),
        (lambda m: m["files"].update({"./a.json": m["files"]["tokenizer.json"]}), "'./a.json'"),
    ],
)
def test_a_manifest_of_impossible_values_is_refused(
    folder: Path, change: Callable[[dict[str, Any]], object], why: str
) -> None:
    """The message says which value is wrong."""
    edit_manifest(folder, change)

    error = refusal(folder)

    assert error.reason == "BUNDLE_BAD_MANIFEST"
    assert why in str(error)


CONFIG = {"id2label": {"0": "negative", "1": "neutral", "2": "positive"}}


@pytest.mark.parametrize(
    "labels", [("positive", "neutral", "negative"), ("negative", "neutral", "joyful")]
)
def test_labels_that_are_not_those_of_the_config_are_refused(
    tmp_path: Path, labels: tuple[str, ...]
) -> None:
    """Else "I love it" would be negative with 0.98, and every hash right."""
    more = {"config.json": json.dumps(CONFIG).encode()}
    folder = write_tiny_bundle(tmp_path / "tiny", more=more).path
    open_bundle(folder).verify()
    edit_manifest(folder, lambda manifest: manifest.update(labels=labels))

    error = refusal(folder)

    assert error.reason == "BUNDLE_LABELS_DIFFER"
    assert f"its labels are {', '.join(labels)}" in str(error)


def test_reversed_labels_are_refused_without_a_config(tmp_path: Path) -> None:
    """The golden texts name the label that they get."""
    folder = write_tiny_bundle(tmp_path / "tiny").path
    edit_manifest(folder, lambda m: m["golden"][0].update(label="positive"))
    open_bundle(folder).verify()
    edit_manifest(folder, lambda m: m.update(labels=m["labels"][::-1]))

    error = refusal(folder)

    assert "a golden text's label must be the most probable one" in str(error)


@pytest.mark.parametrize("config", [b"{", b'{"id2label": 3}', b"\xff"])
def test_a_config_that_is_none_is_refused(tmp_path: Path, config: bytes) -> None:
    """As a broken manifest is."""
    with pytest.raises(BundleError, match=r"config\.json is not valid") as caught:
        write_tiny_bundle(tmp_path / "tiny", more={"config.json": config})

    assert caught.value.reason == "BUNDLE_BAD_CONFIG"


def test_unknown_keys_are_ignored(folder: Path) -> None:
    """A manifest may say more than this program reads."""
    edit_manifest(folder, lambda manifest: manifest.update(colour="red"))

    assert open_bundle(folder).manifest.name == "tiny"


@pytest.mark.parametrize("name", ["absent", "tiny/tokenizer.json"])
def test_what_is_no_folder_is_refused(folder: Path, name: str) -> None:
    """Neither nothing nor a file is a bundle."""
    assert refusal(folder.parent / name).reason == "BUNDLE_NOT_FOUND"


def test_reading_checks_the_bytes_that_it_returns(folder: Path) -> None:
    """A file that changed after the folder was opened is caught at its use."""
    opened = open_bundle(folder)
    flip_a_bit(folder)

    with pytest.raises(BundleError, match="sha256"):
        opened.read("onnx/fp32.onnx")


def test_a_file_may_be_given_by_its_path(tmp_path: Path) -> None:
    """Large files are copied in from where they lie."""
    written = write_tiny_bundle(tmp_path / "tiny")
    card = tmp_path / "card.md"
    card.write_text("# Card")
    files = {name: written.path / name for name in written.manifest.files} | {"README.md": card}

    copied = write_bundle(tmp_path / "copy", files, written.manifest)

    assert copied.read("README.md") == b"# Card"


@pytest.fixture
def interrupted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a writer fail as late as it can, once there is a bundle."""
    monkeypatch.setattr(writer, "open_bundle", Mock(side_effect=KeyboardInterrupt))


@pytest.mark.usefixtures("interrupted")
def test_a_failed_write_leaves_nothing_behind(folder: Path, tmp_path: Path) -> None:
    """Neither the final name nor the temporary folder remains."""
    manifest = open_bundle(folder).manifest

    with pytest.raises(KeyboardInterrupt):
        write_bundle(tmp_path / "new", {"tokenizer.json": b"{}"}, manifest)

    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.usefixtures("interrupted")
def test_a_failed_overwrite_keeps_the_old_bundle(folder: Path) -> None:
    """The old bundle goes only when the new one is whole."""
    manifest = open_bundle(folder).manifest

    with pytest.raises(KeyboardInterrupt):
        write_bundle(folder, {"tokenizer.json": b"{}"}, manifest, overwrite=True)

    open_bundle(folder).verify()
    assert [folder] == list(folder.parent.iterdir())


def test_what_would_not_verify_is_not_written(tmp_path: Path) -> None:
    """A writer's mistake is found before the folder has its name."""
    with pytest.raises(BundleError, match="labels must be"):
        write_tiny_bundle(
            tmp_path / "tiny", change=lambda made: msgspec.structs.replace(made, labels=("one",))
        )

    assert list(tmp_path.iterdir()) == []


def test_overwriting_replaces_the_bundle_and_leaves_nothing_else(folder: Path) -> None:
    """With leave to overwrite, the new bundle takes the name."""
    old = open_bundle(folder)
    files: dict[str, bytes | Path] = {name: old.read(name) for name in old.manifest.files}
    manifest = msgspec.structs.replace(old.manifest, version="2")

    write_bundle(folder, files, manifest, overwrite=True)

    assert open_bundle(folder).manifest.version == "2"
    assert [folder] == list(folder.parent.iterdir())


def test_a_bundle_is_not_replaced_without_leave(folder: Path) -> None:
    """The message names the option that gives leave."""
    with pytest.raises(UsageError, match="already holds a bundle: add --overwrite"):
        check_writable(folder, overwrite=False)


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_bundle_is_never_replaced(tmp_path: Path, overwrite: bool) -> None:
    """A folder, a file or a dangling link of somebody else is safe."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "file").write_text("x")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")

    for path in list(tmp_path.iterdir()):
        with pytest.raises(UsageError, match="exists and is not a bundle"):
            check_writable(path, overwrite=overwrite)
