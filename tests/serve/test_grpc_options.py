"""gRPC ignores an option whose name it does not know, and says nothing."""

from __future__ import annotations

import re
from pathlib import Path

import grpc

from repository import ROOT


def test_every_option_that_is_set_is_one_that_grpc_knows() -> None:
    """A wrong name once left idle streams to be cut after three pings."""
    sources = (ROOT / "serve/sentimill").rglob("*.py")
    text = "\n".join(source.read_text(encoding="utf-8") for source in sources)
    named = set(re.findall(r'\("(grpc\.[a-z0-9_.]+)", ', text))
    (file,) = (Path(grpc.__file__).parent / "_cython").glob("cygrpc*.so")
    library = file.read_bytes()

    assert len(named) > 10
    assert {name for name in named if name.encode() not in library} == set()
