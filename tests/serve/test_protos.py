"""The generated code is what the proto says, and the proto keeps its rules."""

from __future__ import annotations

import re
import sysconfig
from itertools import pairwise
from pathlib import Path

import pytest
from grpc_tools import protoc

from repository import ROOT
from sentimill.v1 import sentiment_pb2 as pb

PROTOS = sorted((ROOT / "protos/sentimill/v1").glob("*.proto"))


@pytest.mark.parametrize("proto", PROTOS, ids=lambda path: path.stem)
@pytest.mark.parametrize("ending", ["_pb2.py", "_pb2.pyi"])
def test_generated_code_is_current(tmp_path: Path, proto: Path, ending: str) -> None:
    """`make protos` would change nothing."""
    done = protoc.main(
        [
            "protoc",
            f"-I{ROOT / 'protos'}",
            f"-I{sysconfig.get_path('purelib')}",
            f"-I{Path(protoc.__file__).parent / '_proto'}",
            f"--python_out={tmp_path}",
            f"--pyi_out={tmp_path}",
            str(proto),
        ]
    )

    name = f"{proto.stem}{ending}"
    assert done == 0
    generated = (tmp_path / "sentimill/v1" / name).read_text()
    assert generated == (ROOT / "serve/sentimill/v1" / name).read_text()


@pytest.mark.parametrize("proto", PROTOS, ids=lambda path: path.stem)
def test_every_field_is_commented(proto: Path) -> None:
    """Each message, field, method and enum value of the contract says what it means."""
    lines = proto.read_text().splitlines()
    declared = re.compile(
        r"^\s*(message|enum|service|rpc|oneof|optional|repeated|[\w.]+ \w+ =|[A-Z_]+ =)"
    )
    bare = [
        line.strip()
        for before, line in pairwise(lines)
        if declared.match(line)
        and not line.startswith(("syntax", "option "))
        and not before.strip().startswith("//")
    ]

    assert bare == []


def test_enum_zero_is_unspecified() -> None:
    """A field that nobody set is told apart from every meaning."""
    values = pb.Priority.DESCRIPTOR.values_by_number

    assert values[0].name == "PRIORITY_UNSPECIFIED"
