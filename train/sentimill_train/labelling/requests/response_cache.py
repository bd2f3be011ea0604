"""The answer store: a SQLite file with every raw reply, on disk before it is parsed.

A row is a call. It is written before the call is sent, with the most that the call can cost, and
completed when the reply arrives. So the incomplete rows of a killed run are exactly the calls whose
cost is unknown, and the next run counts the most that they can cost.

No text is kept, only its hash; replies hold letters, whose meaning only the question gives.
"""

from __future__ import annotations

import asyncio
import fcntl
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from sentimill.errors import InputError, UsageError
from sentimill_train.labelling.requests.messages import Key

_VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE call (
    id INTEGER PRIMARY KEY,
    teacher TEXT NOT NULL, prompt TEXT NOT NULL, text TEXT NOT NULL, vote INTEGER NOT NULL,
    reserved INTEGER NOT NULL,  -- picodollars, at worst
    outcome TEXT,               -- NULL while under way, REPLY, or the reason of a failure
    spent INTEGER NOT NULL DEFAULT 0,
    at_risk INTEGER NOT NULL DEFAULT 0,
    raw TEXT,
    batch TEXT
);
CREATE INDEX call_key ON call (text, vote, prompt, teacher) WHERE raw IS NOT NULL;
CREATE INDEX call_open ON call (id) WHERE outcome IS NULL;
CREATE INDEX call_batch ON call (batch) WHERE batch IS NOT NULL;
CREATE TABLE batch (
    part TEXT PRIMARY KEY,      -- our name for it
    teacher TEXT NOT NULL,
    remote TEXT,                -- the provider's name, NULL until it is known
    done INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE fact (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


_Statement = tuple[str, Sequence[object]]


@dataclass(frozen=True, slots=True)
class Totals:
    """Picodollars booked in a store, and how many calls got a reply."""

    spent: int
    at_risk: int
    replies: int


@dataclass(frozen=True, slots=True)
class Batch:
    """A part that was submitted to a provider's batch API."""

    part: str
    teacher: str
    remote: str | None


class ResponseCache:
    """An open store. Only one process may open it; its methods belong to one event loop."""

    def __init__(self, path: Path) -> None:
        self._lock = _lock(path)
        try:
            self._read = _connect(path)
            self._write = _connect(path)
        except sqlite3.DatabaseError as error:
            self._lock.close()
            raise InputError(
                f"{path} is not an answer store ({error}): name another with --store",
                reason="BAD_STORE",
            ) from error
        self._next_id = 1 + self._one("SELECT coalesce(max(id), 0) FROM call")
        self._waiting: list[_Statement] = []
        self._writing: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None

    def close(self) -> None:
        """Close the files. Every write that was awaited is on disk."""
        self._read.close()
        self._write.close()
        self._lock.close()

    def replies(self, key: Key) -> list[str]:
        """Return the stored bodies for a question, oldest first."""
        rows = self._read.execute(
            "SELECT raw FROM call WHERE text = ? AND vote = ? AND prompt = ? AND teacher = ?"
            " AND raw IS NOT NULL ORDER BY id",
            (key.text, key.vote, key.prompt, key.teacher),
        )
        return [raw for (raw,) in rows]

    def totals(self) -> Totals:
        """Return what all runs on this store have booked."""
        row = self._read.execute(
            "SELECT coalesce(sum(spent), 0), coalesce(sum(at_risk), 0), count(raw) FROM call"
        ).fetchone()
        return Totals(*map(int, row))

    def fact(self, name: str) -> str | None:
        """Return a remembered fact, such as the mode of a teacher."""
        row = self._read.execute("SELECT value FROM fact WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    async def remember(self, name: str, value: str) -> None:
        """Keep a fact."""
        await self._run(("INSERT OR REPLACE INTO fact VALUES (?, ?)", (name, value)))

    async def settle_lost(self) -> int:
        """Book the calls of a killed run at the most they can cost, and return how many there are.

        Calls in a batch are not lost: the provider still has them.
        """
        lost = self._one("SELECT count(*) FROM call WHERE outcome IS NULL AND batch IS NULL")
        query = "UPDATE call SET outcome = 'LOST', at_risk = reserved"
        await self._run((f"{query} WHERE outcome IS NULL AND batch IS NULL", ()))
        return lost

    async def begin(self, key: Key, reserved: int) -> int:
        """Write a call that is about to be sent, and return its number once it is on disk."""
        number = self.number()
        await self._run(_begin(number, key, reserved, None))
        return number

    async def begin_all(self, calls: Sequence[tuple[int, Key, int]], batch: Batch) -> None:
        """Write a part of a batch and its calls (number, key, reserved), all or nothing."""
        part = ("INSERT INTO batch (part, teacher) VALUES (?, ?)", (batch.part, batch.teacher))
        await self._run(part, *(_begin(*call, batch.part) for call in calls))

    async def finish(
        self, number: int, outcome: str, *, spent: int = 0, at_risk: int = 0, raw: str | None = None
    ) -> None:
        """Complete a call; returns once it is on disk."""
        query = "UPDATE call SET outcome = ?, spent = ?, at_risk = ?, raw = ? WHERE id = ?"
        await self._run((query, (outcome, spent, at_risk, raw, number)))

    async def name_batch(self, part: str, remote: str | None, *, done: bool = False) -> None:
        """Store the provider's name of a part, and whether all its results are collected."""
        query = "UPDATE batch SET remote = coalesce(?, remote), done = ? WHERE part = ?"
        await self._run((query, (remote, int(done), part)))

    def open_batches(self, teacher: str) -> list[Batch]:
        """Return the parts that are not collected yet."""
        rows = self._read.execute(
            "SELECT part, teacher, remote FROM batch WHERE NOT done AND teacher = ? ORDER BY rowid",
            (teacher,),
        )
        return [Batch(*row) for row in rows]

    def remote_batches(self) -> frozenset[str]:
        """Return the providers' names of all parts that have one."""
        rows = self._read.execute("SELECT remote FROM batch WHERE remote IS NOT NULL")
        return frozenset(str(remote) for (remote,) in rows)

    def open_calls(self, part: str) -> dict[int, int]:
        """Return the reservation of each call of a part without an outcome, by its number."""
        rows = self._read.execute(
            "SELECT id, reserved FROM call WHERE batch = ? AND outcome IS NULL ORDER BY id", (part,)
        )
        return dict(rows.fetchall())

    def number(self) -> int:
        """Return a fresh call number."""
        self._next_id += 1
        return self._next_id - 1

    def reserved_in_batches(self) -> int:
        """Return the most that all open calls in batches can cost, in picodollars."""
        return self._one(
            "SELECT coalesce(sum(reserved), 0) FROM call"
            " WHERE outcome IS NULL AND batch IS NOT NULL"
        )

    def _one(self, query: str) -> int:
        (value,) = self._read.execute(query).fetchone()
        return int(value)

    async def _run(self, *statements: _Statement) -> None:
        """Execute statements in one transaction and return when they are on disk.

        All statements that arrive while the disk is busy share the next transaction, so a thousand
        callers need few fsyncs.
        """
        self._waiting += statements
        if self._next is None:
            self._next = asyncio.create_task(self._write_after(self._writing))
        await asyncio.shield(self._next)

    async def _write_after(self, earlier: asyncio.Task[None] | None) -> None:
        if earlier is not None and not earlier.done():
            await asyncio.wait([earlier])
        self._writing, self._next = self._next, None
        batch, self._waiting = self._waiting, []
        await asyncio.to_thread(self._commit, batch)

    def _commit(self, statements: list[_Statement]) -> None:
        with self._write:
            for query, values in statements:
                self._write.execute(query, values)


def _begin(number: int, key: Key, reserved: int, batch: str | None) -> _Statement:
    return (
        "INSERT INTO call (id, teacher, prompt, text, vote, reserved, batch)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (number, *key, reserved, batch),
    )


def _lock(path: Path) -> IO[bytes]:
    """Lock the store for this process; the system unlocks it when the process ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.with_name(path.name + ".lock").open("wb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise UsageError(
            f"{path} is in use by another run: wait for it, or name another with --store",
            reason="STORE_BUSY",
        ) from None
    return file


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, check_same_thread=False, timeout=30)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")  # an answer survives a power failure
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == 0:
        connection.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;")
    elif version != _VERSION:
        raise sqlite3.DatabaseError(f"version {version}, this program knows {_VERSION}")
    return connection
