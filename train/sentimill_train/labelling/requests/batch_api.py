"""The interface of a provider's batch API, and of a teacher that has one.

A part is a number of requests that is submitted together; providers call it a batch.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from sentimill_train.labelling.requests.messages import Failure, Teacher


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchStatus:
    """The state of a part at the provider.

    status: the provider's word for it, which becomes the reason of requests without a result. over:
    no more results will come. files: where the results are. full: the provider refused the part
    because too much is queued. refused: the provider refused it for another reason. gone: the
    provider has deleted the results.
    """

    status: str
    over: bool
    files: tuple[str, ...] = ()
    full: bool = False
    refused: bool = False
    gone: bool = False


@dataclass(frozen=True, slots=True)
class BatchResult:
    """The result of one request. raw: the reply's body as it came, or None, and then failure."""

    number: int
    raw: str | None
    failure: Failure | None


@dataclass(frozen=True, slots=True)
class FoundParts:
    """The provider's names of parts by our names. unsure: parts to look for again later."""

    names: Mapping[str, str]
    unsure: Collection[str] = ()


class BatchApi(Protocol):
    """The batch API of one teacher. It returns a `Failure` instead of raising."""

    def request(self, part: str, number: int, body: Mapping[str, object]) -> bytes:
        """Return a request as it is written in a part."""

    async def submit(self, part: str, requests: Sequence[bytes]) -> str | Failure:
        """Submit a part and return the provider's name for it.

        A failure that is `at_risk` may have submitted it all the same.
        """

    async def find(self, parts: Mapping[str, int], known: Collection[str]) -> FoundParts | Failure:
        """Look for parts of which we know the number of requests, but not the provider's name.

        known: the provider's names of parts that are none of these.
        """

    async def status(self, name: str) -> BatchStatus | Failure:
        """Return the state of a part."""

    async def fetch(self, file: str) -> str | Failure:
        """Return a file of results, a JSON document a line."""

    def read_result(self, text: str, body: Mapping[str, object]) -> BatchResult:
        """Read a line of results. body: of any request of the part, empty where unknown."""


class ModelTeacher(Teacher, Protocol):
    """A teacher that can be closed, has a batch API, and may give log-probabilities."""

    @property
    def offers_logprobs(self) -> bool:
        """Whether the endpoint may give them."""

    def batches(self) -> BatchApi:
        """Return its batch API."""

    async def close(self) -> None:
        """Close the connections."""
