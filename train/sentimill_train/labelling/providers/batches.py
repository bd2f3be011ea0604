"""The words of the batch APIs: a part, what is known of it, a line of its results, its provider."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from sentimill_train.labelling.requests.messages import Failure

__all__ = ["Batches", "Found", "Line", "Standing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a provider says of a part.

    status: in its own words, for the reason of calls that brought nothing. over: nothing more will
    come. files: where the results are. full: it took nothing, because too much is waiting there.
    refused: it takes nothing of the kind. gone: there were results, kept for so long and no longer.
    """

    status: str
    over: bool
    files: tuple[str, ...] = ()
    full: bool = False
    refused: bool = False
    gone: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """What became of one call. raw: the reply's body as it came, or None, and then why."""

    number: int
    raw: str | None
    failure: Failure | None


@dataclass(frozen=True, slots=True)
class Found:
    """The provider's names of parts by ours; unsure: parts that only time can tell of."""

    names: Mapping[str, str]
    unsure: Collection[str] = ()


class Batches(Protocol):
    """The batch API of one teacher. What it returns instead of raising is a `Failure`."""

    def request(self, part: str, number: int, body: Mapping[str, object]) -> bytes:
        """Return a call as it stands in a part."""

    async def hand_over(self, part: str, requests: Sequence[bytes]) -> str | Failure:
        """Give a part to the provider and return its name there.

        A failure that is `at_risk` may have handed it over all the same.
        """

    async def find(self, parts: Mapping[str, int], known: Collection[str]) -> Found | Failure:
        """Look for parts of which we know how many calls they have, but not the provider's name.

        known: the provider's names of parts that are none of these.
        """

    async def look(self, name: str) -> Standing | Failure:
        """Return what the provider says of a part."""

    async def fetch(self, file: str) -> str | Failure:
        """Return a file of results, a JSON document a line."""

    def read_line(self, text: str, body: Mapping[str, object]) -> Line:
        """Open a line. body: of any call of the part, empty where that is not known."""
