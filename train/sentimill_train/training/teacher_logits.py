"""A file of a teacher's logits by text, so that later trainings need not run the teacher again.

One Parquet file: `text_sha256`, the first eight bytes of the SHA-256 of the text that cleaning
version 1 gives (UTF-8), and one float16 column of logits for each label, under the label's name.
Other columns are not read.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sentimill.errors import UsageError
from sentimill_train.data.splits import cleaned

_KEY: Final = "text_sha256"
_KEY_BYTES: Final = 8
_CLEANING: Final = 1  # never changes: another version would not find the old answers


def text_keys(texts: Sequence[str]) -> list[bytes]:
    """Return the key of each text; a text that no model can read has an empty key."""
    read = (cleaned(text, _CLEANING) for text in texts)
    return [hashlib.sha256(t.encode()).digest()[:_KEY_BYTES] if t else b"" for t in read]


def find_logits(path: Path, keys: Sequence[bytes], labels: Sequence[str]) -> NDArray[np.float32]:
    """Return the logits (keys, labels) in the file at *path*, NaN for a key that it lacks.

    The file is read in batches of rows, so it may be larger than memory.

    Raises:
        UsageError: TEACHER_LOGITS_UNREADABLE, LABELS_DIFFER.
    """
    places: dict[bytes, list[int]] = {}
    for i, key in enumerate(keys):
        places.setdefault(key, []).append(i)
    found = np.full((len(keys), len(labels)), np.nan, dtype=np.float32)
    try:
        with pq.ParquetFile(path) as file:
            missing = [name for name in (_KEY, *labels) if name not in file.schema_arrow.names]
            if missing:
                raise UsageError(
                    f"--teacher-logits {path} has no column {', '.join(missing)}: it needs {_KEY}"
                    " and one column of logits for each label",
                    reason="LABELS_DIFFER",
                )
            for batch in file.iter_batches(columns=[_KEY, *labels]):
                keys_read, *columns = (column.to_pylist() for column in batch.columns)
                for key, *logits in zip(keys_read, *columns, strict=True):
                    found[places.get(key, [])] = logits
    except (pa.ArrowException, OSError) as error:
        raise UsageError(
            f"--teacher-logits {path} cannot be read ({error}): give a Parquet file that"
            " `sentimill train` wrote, or a new name",
            reason="TEACHER_LOGITS_UNREADABLE",
        ) from error
    return found


def write_logits(
    path: Path, keys: Sequence[bytes], logits: NDArray[np.float32], labels: Sequence[str]
) -> None:
    """Add *logits* (keys, labels) to the file at *path*, which is replaced atomically."""
    table = pa.table(
        {_KEY: pa.array(keys, pa.binary(_KEY_BYTES))}
        | {label: logits[:, i].astype(np.float16) for i, label in enumerate(labels)}
    )
    if path.exists():
        before = pq.read_table(path, columns=table.column_names).cast(table.schema)
        table = pa.concat_tables([before, table])
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    pq.write_table(table, part, compression="zstd")
    os.replace(part, path)
