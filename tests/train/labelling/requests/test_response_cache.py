"""The answer store: durable, locked, keyed, and honest about calls whose cost is unknown."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from sentimill.errors import InputError, UsageError
from sentimill_train.labelling.requests.messages import Key
from sentimill_train.labelling.requests.response_cache import Batch, ResponseCache

KEY = Key("teacher", "prompt", "text", 0)


def test_reply_is_on_disk_when_finish_returns(tmp_path: Path) -> None:
    """Another connection sees it at once, as a later process would."""
    store = ResponseCache(tmp_path / "a.sqlite")

    async def scenario() -> None:
        number = await store.begin(KEY, 10)
        await store.finish(number, "REPLY", spent=7, raw="{}")
        with sqlite3.connect(tmp_path / "a.sqlite") as other:
            assert list(other.execute("SELECT outcome, spent, raw FROM call")) == [
                ("REPLY", 7, "{}")
            ]
        other.close()

    asyncio.run(scenario())
    store.close()


@pytest.mark.parametrize(
    "other",
    [
        KEY._replace(teacher="x"),
        KEY._replace(prompt="x"),
        KEY._replace(text="x"),
        KEY._replace(vote=1),
    ],
)
def test_replies_are_found_by_their_whole_key(tmp_path: Path, other: Key) -> None:
    """Another teacher, prompt, text or vote has no part in them."""
    store = ResponseCache(tmp_path / "a.sqlite")

    async def scenario() -> None:
        await store.finish(await store.begin(KEY, 1), "REPLY", raw="one")
        await store.finish(await store.begin(KEY, 1), "REPLY", raw="two")

    asyncio.run(scenario())

    assert store.replies(KEY) == ["one", "two"]
    assert store.replies(other) == []
    store.close()


def test_calls_of_a_killed_run_count_at_their_worst(tmp_path: Path) -> None:
    """Nobody knows what they cost, so the cap assumes the most; calls in a batch are not lost."""
    path = tmp_path / "a.sqlite"
    first = ResponseCache(path)

    async def before() -> None:
        await first.begin(KEY, 30)
        await first.begin_all([(first.number(), KEY, 5)], Batch("part", "teacher", None))

    asyncio.run(before())
    first.close()
    again = ResponseCache(path)

    assert asyncio.run(again.settle_lost()) == 1
    assert again.totals().at_risk == 30
    assert again.reserved_in_batches() == 5
    again.close()


def test_many_callers_share_a_transaction(tmp_path: Path) -> None:
    """A thousand begins wait for few fsyncs, and every number is its own."""
    store = ResponseCache(tmp_path / "a.sqlite")

    async def scenario() -> list[int]:
        return await asyncio.gather(*(store.begin(KEY._replace(vote=n), 1) for n in range(1000)))

    numbers = asyncio.run(scenario())

    assert len(set(numbers)) == 1000
    store.close()


def test_second_run_on_a_store_is_refused(tmp_path: Path) -> None:
    """Two runs would each believe in the whole budget."""
    store = ResponseCache(tmp_path / "a.sqlite")

    with pytest.raises(UsageError, match="in use"):
        ResponseCache(tmp_path / "a.sqlite")
    store.close()
    ResponseCache(tmp_path / "a.sqlite").close()


def test_file_that_is_no_store_is_refused(tmp_path: Path) -> None:
    """It is named, and left as it is."""
    path = tmp_path / "a.sqlite"
    path.write_bytes(b"id,text\n" * 500)

    with pytest.raises(InputError, match="not an answer store"):
        ResponseCache(path)

    assert path.read_bytes() == b"id,text\n" * 500
