"""The index: the states of one's own labelled reviews, in one hashed folder like a bundle.

::

    mine.index/
      manifest.json     the digest of the bundle that the states are of, and the hash of each file
      states.usearch    the pooled states in fp16, in an approximate index (HNSW) by the cosine
      rows.json         key, id and label of each row, and its text if asked for

A key is never used twice, so a row that was removed is never found again.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from sentimill.atomic_write import new_folder, write_durably
from sentimill.bundle.manifest import MANIFEST, File
from sentimill.errors import BundleError, InputError, UsageError
from sentimill.types import NEIGHBOURS, Neighbour

_SCHEMA_VERSION: Final = 1
_STATES: Final = "states.usearch"
_ROWS: Final = "rows.json"


class _Row(msgspec.Struct, array_like=True, gc=False):
    key: int
    id: str
    label: str
    text: str = ""


class _Manifest(msgspec.Struct, kw_only=True):
    schema_version: int
    bundle: str
    next_key: int
    texts: bool
    files: dict[str, File]


class Index:
    """Labelled reviews by the states that the bundle with the digest *bundle* gives them.

    Any thread may search; adding and removing is for one. texts: keep the texts too.
    """

    def __init__(self, bundle: str, *, texts: bool = False) -> None:
        self.bundle = bundle
        self.texts = texts
        self.digest = ""  # of what was read, which two jobs compare
        self._next_key = 0
        self._rows: dict[int, _Row] = {}
        self._states: Any = None
        self._searching = Lock()  # the library lets go of the GIL, and its buffers are for one

    @classmethod
    def open(cls, path: Path | str, bundle: str | None = None) -> Index:
        """Read the folder *path* and check it. bundle: the digest that its states must be of.

        Raises BundleError where it is damaged, empty, or of another bundle.
        """
        folder, library = Path(path), _usearch()
        try:
            read = (folder / MANIFEST).read_bytes()
            manifest = msgspec.json.decode(read, type=_Manifest)
            if manifest.schema_version != _SCHEMA_VERSION:
                raise ValueError(f"its schema version is {manifest.schema_version}")
            data = {name: (folder / name).read_bytes() for name in (_STATES, _ROWS)}
            for name, content in data.items():
                if sha256(content).hexdigest() != manifest.files[name].sha256:
                    raise ValueError(f"{name} is not what the manifest says")
            rows = msgspec.json.decode(data[_ROWS], type=list[_Row])
            made = cls(manifest.bundle, texts=manifest.texts)
            made._states = library.Index.restore(data[_STATES])
            if not rows or len(rows) != len(made._states):
                raise ValueError(f"it has {len(rows)} rows and {len(made._states)} states")
        except (OSError, KeyError, ValueError, msgspec.MsgspecError) as error:
            why = f"the index {folder} cannot be used ({error}): delete it, and make it again with"
            why += " `sentimill index`"
            raise BundleError(why, reason="INDEX_DAMAGED") from error
        if bundle not in (None, made.bundle):
            why = f"the index {folder} is of the bundle {made.bundle[:12]}, and this is"
            why += f" {str(bundle)[:12]}, whose states mean something else: name that bundle with"
            why += " --bundle, or make another index"
            raise BundleError(why, reason="INDEX_OF_ANOTHER_BUNDLE")
        made.digest = sha256(read).hexdigest()
        made._rows = {row.key: row for row in rows}
        made._next_key = manifest.next_key
        return made

    def __len__(self) -> int:
        return len(self._rows)

    def add(
        self,
        ids: Sequence[str],
        labels: Sequence[str],
        texts: Sequence[str],
        states: NDArray[np.float32],
    ) -> None:
        """Add rows, with *states* (rows, hidden). Raises InputError for an id that is there."""
        known = {row.id for row in self._rows.values()}
        for one in ids:
            if one in known:
                why = f"the id {one!r} is in the index already: `sentimill index remove` it first,"
                raise InputError(
                    f"{why} or give each row an id of its own", reason="INDEX_ID_TWICE"
                )
            known.add(one)
        if self._states is None:
            self._states = _usearch().Index(ndim=states.shape[1], metric="cos", dtype="f16")
        keys = range(self._next_key, self._next_key + len(ids))
        # One thread: the same rows in the same order give the same file.
        self._states.add(np.array(keys, dtype=np.uint64), states, threads=1)
        kept = texts if self.texts else [""] * len(ids)
        self._rows |= dict(zip(keys, map(_Row, keys, ids, labels, kept), strict=True))
        self._next_key = keys.stop

    def remove(self, ids: Sequence[str]) -> None:
        """Remove rows. Raises InputError for an id that is not there."""
        keys = {row.id: key for key, row in self._rows.items()}
        for one in ids:
            if (key := keys.pop(one, None)) is None:
                why = f"the id {one!r} is not in the index, or was removed: nothing is changed"
                raise InputError(why, reason="INDEX_NO_SUCH_ID")
            self._states.remove(key)
            del self._rows[key]

    def nearest(
        self, states: NDArray[np.float32], count: int = NEIGHBOURS
    ) -> list[tuple[Neighbour, ...]]:
        """Return the rows that are most like each of *states* (rows, hidden), the nearest first."""
        with self._searching:
            # One by one: the library gives another type for one row of states than for several.
            matches = [self._states.search(one, count, threads=1).to_list() for one in states]
        return [tuple(self._neighbour(*match) for match in some) for some in matches]

    def _neighbour(self, key: int, distance: float) -> Neighbour:
        row = self._rows[key]
        return Neighbour(row.id, row.label, 1 - distance, row.text)

    def save(self, path: Path) -> None:
        """Write the folder *path*, in place of an index that is there."""
        if not self._rows:
            why = (
                "an index needs a labelled review that has text: give it one, or delete the folder"
            )
            raise UsageError(why, reason="INDEX_EMPTY")
        files = {
            _STATES: bytes(self._states.save()),
            _ROWS: msgspec.json.encode([*self._rows.values()]),
        }
        manifest = _Manifest(
            schema_version=_SCHEMA_VERSION,
            bundle=self.bundle,
            next_key=self._next_key,
            texts=self.texts,
            files={
                name: File(sha256=sha256(data).hexdigest(), size_bytes=len(data))
                for name, data in files.items()
            },
        )
        with new_folder(path) as work:
            for name, data in files.items():
                write_durably(work / name, data)
            write_durably(work / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest)))


def ids_json(neighbours: Sequence[Neighbour]) -> str | None:
    """Return the ids of *neighbours* as a cell of a table; None for none."""
    ids = [one.id for one in neighbours]
    return msgspec.json.encode(ids).decode() if ids else None


def _usearch() -> Any:
    try:
        import usearch.index
    except ImportError as error:
        why = f"an index needs the package usearch ({error}): pip install 'sentimill[evidence]'"
        raise UsageError(why, reason="EXTRA_MISSING") from error
    return usearch.index
