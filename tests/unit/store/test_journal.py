"""Entries of a journal as events, and deltas put together."""

import pytest

from headrace.contract.events import Completed, Delta, Event, Started
from headrace.contract.generation import TokenLogprobs, Usage, pack_ids
from headrace.contract.logprobs import pack_logprobs
from headrace.store.journal import Journaled, join, parse_entry


def test_a_delta_is_unpacked() -> None:
    entry = {b"event": b"1 40 length", b"ids": pack_ids((7, 4_000_000_000))}
    assert parse_entry(b"12-0", entry) == Delta(12, 1, 40, (7, 4_000_000_000), finish_reason="length")
    assert parse_entry(b"3-0", {b"event": b"0 0", b"ids": b""}) == Delta(3, 0, 0, ())


def test_a_delta_with_log_probabilities_has_them_in_a_field_of_their_own() -> None:
    logprobs, prompt = (TokenLogprobs(-0.5, ((7, -0.5),)),), (None, TokenLogprobs(-2.0))
    entry = {b"event": b"0 0", b"ids": pack_ids((7,)), b"logprobs": pack_logprobs(logprobs, prompt)}
    assert parse_entry(b"3-0", entry) == Delta(3, 0, 0, (7,), logprobs=logprobs, prompt_logprobs=prompt)


def test_any_other_event_is_its_json() -> None:
    entry = {
        b"event": b'{"type":"completed","usage":{"prompt_tokens":3,"completion_tokens":2,"cached_tokens":1}}',
        b"ids": b"",
    }
    assert parse_entry(b"5-0", entry) == Completed(5, Usage(3, 2, 1))


def test_ids_of_a_wrong_length_are_an_error() -> None:
    with pytest.raises(ValueError, match=r".*"):
        parse_entry(b"1-0", {b"event": b"0 0", b"ids": b"abc"})


def test_deltas_are_joined_for_each_choice() -> None:
    found: list[Event] = [
        Started(2, 1, "w", "r", "d"),
        Delta(3, 1, 0, (5,)),
        Delta(4, 0, 0, (1, 2)),
        Delta(5, 1, 1, (), finish_reason="stop"),
        Delta(6, 0, 2, (3,)),
    ]
    assert join(found, 3) == (Journaled((1, 2, 3)), Journaled((5,), "stop"), Journaled())


def test_log_probabilities_are_joined_with_their_ids() -> None:
    one, two, prompt = TokenLogprobs(-1.0), TokenLogprobs(-2.0), (None, TokenLogprobs(-3.0))
    found: list[Event] = [
        Delta(3, 1, 0, (5,)),
        Delta(4, 0, 0, (1,), logprobs=(one,), prompt_logprobs=prompt),
        Delta(5, 0, 1, (2,), finish_reason="stop", logprobs=(two,)),
    ]
    assert join(found, 2) == (Journaled((1, 2), "stop", (one, two), prompt), Journaled((5,)))
