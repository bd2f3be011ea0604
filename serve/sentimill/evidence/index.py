"""The index: the states of the user's labelled reviews, in one hashed folder like a bundle.

::

    mine.index/
      manifest.json     the digest of the bundle that computed the states, a hash per file
      states.usearch    the pooled states in fp16, in an approximate index (HNSW) by the cosine
      rows.json         id and label of each row, and its text if asked for, in the order of states
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import Any, Final, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from sentimill.atomic_write import new_folder, write_durably
from sentimill.bundle.manifest import MANIFEST
from sentimill.errors import BundleError, InputError, UsageError
from sentimill.installed_packages import from_extra
from sentimill.types import NEIGHBOURS, Neighbour

_SCHEMA_VERSION: Final = 2
_STATES: Final = "states.usearch"
_ROWS: Final = "rows.json"

_Row: TypeAlias = tuple[str, str, str]  # id, label, text


class _Head(msgspec.Struct):
    """The fields that an index manifest has in every version; a bundle manifest lacks `bundle`."""

    schema_version: int
    bundle: str


class _Manifest(_Head):
    texts: bool
    files: dict[str, str]


class Index:
    """Labelled reviews and the states that the bundle with the digest *bundle* gave them.

    Any thread may search, but not during `add` or `remove`. texts: keep the texts too.
    """

    def __init__(self, bundle: str, *, texts: bool = False) -> None:
        self.bundle = bundle
        self.texts = texts
        self.digest = ""  # of the manifest that was read: a job resumes only with the same
        self._rows: list[_Row] = []
        self._states: Any = None
        self._searching = Lock()  # the library releases the GIL, and has one set of buffers

    @classmethod
    def open(cls, folder: Path | str, bundle: str | None = None) -> Index:
        """Read *folder* and check it. bundle: digest of the bundle that must have made the states.

        Raises BundleError where it is damaged, empty, of another bundle, or of another version.
        """
        with from_extra("evidence", "an index needs the package usearch"):
            from usearch.index import Index as States
        try:
            read = (Path(folder) / MANIFEST).read_bytes()
            version = msgspec.json.decode(read, type=_Head).schema_version
            if version != _SCHEMA_VERSION:
                why = f"{folder} is an index of schema version {version}, and this program reads"
                why += f" {_SCHEMA_VERSION}: delete the folder and build it again from your reviews"
                why += " with `sentimill index`"
                raise BundleError(why, reason="INDEX_UNKNOWN_SCHEMA")
            manifest = msgspec.json.decode(read, type=_Manifest)
            data = {name: (Path(folder) / name).read_bytes() for name in (_STATES, _ROWS)}
            for name, content in data.items():
                if sha256(content).hexdigest() != manifest.files[name]:
                    raise ValueError(f"{name} is not what the manifest says")
            found = cls(manifest.bundle, texts=manifest.texts)
            found.digest = sha256(read).hexdigest()
            found._rows = msgspec.json.decode(data[_ROWS], type=list[_Row])
            found._states = States.restore(data[_STATES])
            if not len(found) == len(found._states) > 0:
                raise ValueError(f"it has {len(found)} rows and {len(found._states)} states")
        except (OSError, KeyError, ValueError, RuntimeError, msgspec.MsgspecError) as error:
            why = f"{folder} is not a whole index ({error}): name another folder; or, if this was"
            why += " an index, delete it and make it again with `sentimill index`"
            raise BundleError(why, reason="INDEX_DAMAGED") from error
        if bundle not in (None, found.bundle):
            why = f"the index {folder} was made with the bundle {found.bundle[:12]}, and its states"
            why += f" mean nothing to {str(bundle)[:12]}: name that bundle with --bundle, or make"
            why += " another index"
            raise BundleError(why, reason="INDEX_OF_ANOTHER_BUNDLE")
        return found

    def __len__(self) -> int:
        return len(self._rows)

    def check_new(self, ids: Sequence[str]) -> None:
        """Raise InputError for an id that the index has, or that is twice among *ids*."""
        known = {name for name, _, _ in self._rows}
        for one in ids:
            if one in known:
                why = f"the id {one!r} is in the index already: `sentimill index remove` it first,"
                why += " or give each row an id of its own"
                raise InputError(why, reason="INDEX_ID_TWICE")
            known.add(one)

    def add(
        self,
        ids: Sequence[str],
        labels: Sequence[str],
        texts: Sequence[str],
        states: NDArray[np.floating[Any]],
    ) -> None:
        """Add rows, with *states* (rows, hidden). Raises InputError for an id that exists."""
        self.check_new(ids)
        kept = texts if self.texts else [""] * len(ids)
        self._put([*zip(ids, labels, kept, strict=True)], states)

    def remove(self, ids: Sequence[str]) -> None:
        """Remove rows without a trace. Raises InputError for an id that the index does not have."""
        places = {name: k for k, (name, _, _) in enumerate(self._rows)}
        for one in ids:
            if places.pop(one, None) is None:
                why = f"the id {one!r} is not in the index, or was removed: nothing is changed"
                raise InputError(why, reason="INDEX_NO_SUCH_ID")
        # Rebuilt: the library only marks a row as removed, and its file would keep the state.
        states = np.vstack(self._states.get(np.arange(len(self))))[[*places.values()]]
        rows, self._rows = [self._rows[k] for k in places.values()], []
        self._put(rows, states)

    def _put(self, rows: list[_Row], states: NDArray[np.floating[Any]]) -> None:
        with from_extra("evidence", "an index needs the package usearch"):
            from usearch.index import Index as States
        if not self._rows:
            self._states = States(ndim=states.shape[1], metric="cos", dtype="f16")
        keys = np.arange(len(self), len(self) + len(rows), dtype=np.uint64)
        # One thread: the same rows in the same order give the same file.
        self._states.add(keys, states, threads=1)
        self._rows += rows

    def nearest(
        self, states: NDArray[np.float32], count: int = NEIGHBOURS
    ) -> list[tuple[Neighbour, ...]]:
        """Return the rows that are most like each of *states* (rows, hidden), the nearest first."""
        with self._searching:
            # One by one: the library returns another type for one row of states than for several.
            matches = [self._states.search(one, count, threads=1).to_list() for one in states]
        return [tuple(self._neighbour(*match) for match in some) for some in matches]

    def _neighbour(self, key: int, distance: float) -> Neighbour:
        name, label, text = self._rows[key]
        return Neighbour(name, label, 1 - distance, text)

    def save(self, path: Path) -> None:
        """Write the folder *path*, and replace an index that exists there."""
        if not self._rows:
            why = "an index needs a labelled review that has text: give it one, or delete the"
            raise UsageError(f"{why} folder", reason="INDEX_EMPTY")
        files = {_STATES: bytes(self._states.save()), _ROWS: msgspec.json.encode(self._rows)}
        hashes = {name: sha256(data).hexdigest() for name, data in files.items()}
        manifest = _Manifest(_SCHEMA_VERSION, self.bundle, self.texts, hashes)
        files[MANIFEST] = msgspec.json.format(msgspec.json.encode(manifest))
        with new_folder(path) as work:
            for name, data in files.items():
                write_durably(work / name, data)


def ids_json(neighbours: Sequence[Neighbour]) -> str | None:
    """Return the ids of *neighbours* as a cell of a table; None for none."""
    ids = [one.id for one in neighbours]
    return msgspec.json.encode(ids).decode() if ids else None
