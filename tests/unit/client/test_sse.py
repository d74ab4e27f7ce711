"""The SSE parser: however the bytes are cut, the messages are the same."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.client.sse import Message, Parser

STREAM = (
    'id: 1\nevent: accepted\ndata: {"seq":1}\n\n'
    ": ping\n"
    'id: 2\nevent: delta\ndata: {"text":"für 5 € 🌊"}\n\n'
    ": ping\n: ping\n"
    "id: 3\nevent: completed\ndata: one\ndata: two\n\n"
)
MESSAGES = [
    Message("1", "accepted", '{"seq":1}'),
    Message("2", "delta", '{"text":"für 5 € 🌊"}'),
    Message("3", "completed", "one\ntwo"),
]


def parse(chunks: list[bytes]) -> list[Message]:
    parser = Parser()
    return [message for chunk in chunks for message in parser.feed(chunk)]


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[begin:end] for begin, end in pairwise(edges)]


@given(st.lists(st.integers(min_value=0), max_size=12), st.sampled_from(["\n", "\r\n", "\r"]))
def test_any_cut_and_any_line_end_give_the_same_messages(places: list[int], line_end: str) -> None:
    data = STREAM.replace("\n", line_end).encode()
    assert parse(cut(data, places)) == MESSAGES


def test_byte_by_byte() -> None:
    assert parse([bytes([byte]) for byte in STREAM.replace("\n", "\r\n").encode()]) == MESSAGES


def test_a_ping_alone_is_no_message() -> None:
    assert parse([b": ping\n", b": ping\n\n"]) == []


def test_a_message_that_was_not_finished_is_not_given() -> None:
    assert parse([b"id: 1\ndata: x\n\nid: 2\ndata: cut o"]) == [Message("1", "message", "x")]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"data:x\n\n", Message("", "message", "x")),
        (b"data:  x\n\n", Message("", "message", " x")),
        (b"\xef\xbb\xbfdata: x\n\n", Message("", "message", "x")),
        (b"retry: 10\nunknown\ndata: x\n\n", Message("", "message", "x")),
        (b"id: a\0b\ndata: x\n\n", Message("", "message", "x")),
        (b"data\n\n", Message("", "message", "")),
    ],
)
def test_corners_of_the_format(data: bytes, message: Message) -> None:
    assert parse([data]) == [message]


def test_the_id_stays_until_another_comes() -> None:
    assert [message.id for message in parse([b"id: 7\ndata: x\n\ndata: y\n\n"])] == ["7", "7"]
