"""Requests are bounded before they are built, whatever bytes come."""

from __future__ import annotations

from unittest.mock import create_autospec

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raw_calls import request_of
from sentimill.errors import InputError
from sentimill.server.message_parser import FieldLimit, decode, parse, quoted
from sentimill.v1 import sentiment_pb2 as pb

ITEMS = FieldLimit(8, "items")
EMPTY_ITEM = b"\x0a\x00"


@given(st.lists(st.text(max_size=300), max_size=8))
def test_what_a_client_sends_is_parsed_as_ever(texts: list[str]) -> None:
    """The limit changes nothing for a message within it."""
    request = request_of(*texts)

    assert parse(pb.ClassifyRequest, request.SerializeToString(), ITEMS) == request


@given(st.binary(max_size=300))
def test_any_bytes_are_a_message_or_an_input_error(data: bytes) -> None:
    """Nothing else is raised, and the limit admits nothing that protobuf refuses."""
    try:
        parse(pb.ClassifyRequest, data, ITEMS)
    except InputError as error:
        assert error.reason in ("ITEM_COUNT", "MALFORMED_REQUEST")
    else:
        assert len(pb.ClassifyRequest.FromString(data).items) <= 8


def test_two_million_empty_items_are_refused_before_they_are_built() -> None:
    """Building them takes 0.2 s or more, counting up to the limit some microseconds."""
    bomb = EMPTY_ITEM * (2 << 20)
    never = create_autospec(pb.ClassifyRequest)
    with pytest.raises(InputError, match="items has more than 8 entries") as caught:
        parse(never, bomb, ITEMS)

    never.FromString.assert_not_called()
    assert (caught.value.reason, caught.value.field) == ("ITEM_COUNT", "items")


@pytest.mark.parametrize("data", [EMPTY_ITEM * (2 << 20), b"\xfa\x01\x00" * (1 << 20)])
def test_fields_that_a_message_does_not_have_are_counted_too(data: bytes) -> None:
    """GetModel takes an empty message, and reading 4 MiB of unknown fields takes 60 ms."""
    with pytest.raises(InputError, match="the message has more than 64 entries"):
        parse(pb.GetModelRequest, data)


def test_fields_of_one_item_are_counted_too() -> None:
    """A text that is set two million times is one item."""
    items = FieldLimit(8, "items", {1: FieldLimit(4, "items[]")})
    item = EMPTY_ITEM * 1000
    request = b"\x0a" + bytes([len(item) & 127 | 128, len(item) >> 7]) + item

    assert len(parse(pb.ClassifyRequest, request, ITEMS).items) == 1
    with pytest.raises(InputError, match=r"items\[\] has more than 4 entries"):
        parse(pb.ClassifyRequest, request, items)


def test_a_list_inside_a_message_is_counted_too() -> None:
    """In a stream the items are one level down."""
    number = pb.ClassifyStreamRequest.REQUEST_FIELD_NUMBER
    limit = FieldLimit(8, "request", {number: ITEMS})
    good = pb.ClassifyStreamRequest(id=300, request=request_of(*["good"] * 8))
    bad = pb.ClassifyStreamRequest(id=300, request=request_of(*["good"] * 9))

    assert parse(pb.ClassifyStreamRequest, good.SerializeToString(), limit) == good
    with pytest.raises(InputError, match="items has more than 8"):
        parse(pb.ClassifyStreamRequest, bad.SerializeToString(), limit)


@pytest.mark.parametrize(
    "data",
    [b"\x0b" * 20, b"\x80" * 20, b"\x0a\xff\xff\xff\xff\x0f" + b"x" * 20],
    ids=["groups", "a number without end", "a length beyond the end"],
)
def test_what_no_client_sends_is_malformed(data: bytes) -> None:
    """A walk that read such bytes in another way than protobuf could be led past the limit."""
    with pytest.raises(InputError) as caught:
        parse(pb.ClassifyRequest, data, ITEMS)

    assert caught.value.reason == "MALFORMED_REQUEST"


def test_bytes_that_are_not_utf8_are_the_error_of_their_text() -> None:
    """The message says where."""
    found = decode(b"caf\xe9")

    assert "byte 3" in str(found)


def test_what_a_caller_sent_is_quoted_up_to_100_characters() -> None:
    """A long name comes back short, and control characters do not make it long again."""
    assert quoted("short") == "'short'"
    assert len(quoted("x" * (8 << 20))) == 100
    assert len(quoted("\x00" * 1000)) == 100
