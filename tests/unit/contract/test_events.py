"""Events and the record's small parts: public JSON and packing go there and back. Knows no store."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.contract import events, ids, job
from headrace.contract.errors import ErrorInfo
from headrace.contract.generation import TokenLogprobs, Usage, pack_ids, unpack_ids

EVENTS: list[events.Event] = [
    events.Accepted(1, "job_x", 5),
    events.Started(2, 1, "w_1", "r", "d"),
    events.Delta(3, 0, 4, (1, 2), "hé", "stop"),
    events.Delta(4, 0, 6, (), "", None),
    events.Retrying(5, 1000, ErrorInfo("engine_error", "m", True)),
    events.Resumed(6, 2, "w_2", (37,), True),
    events.Completed(7, Usage(3, 4, 0)),
    events.Failed(8, ErrorInfo("poison", "m")),
    events.Cancelled(9),
    events.Expired(10),
    events.Delta(
        4, 0, 0, (1,), "h", None, (TokenLogprobs(-0.5),), (None, TokenLogprobs(-1.0, ((3, -0.25), (1, -1.0))))
    ),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda e: str(e.type))
def test_public_json_goes_there_and_back(event: events.Event) -> None:
    data = json.loads(json.dumps(events.to_json(event)))
    assert list(data)[:2] == ["seq", "type"]
    assert events.from_json({**data, "field_of_a_newer_version": 1}) == event


def test_the_public_shape_is_the_contract_s() -> None:
    assert events.to_json(EVENTS[4]) == {
        "seq": 5,
        "type": "retrying",
        "in_ms": 1000,
        "error": {"code": "engine_error", "message": "m"},
    }
    assert events.to_json(EVENTS[0]) == {"seq": 1, "type": "accepted", "job": "job_x", "at": 5}


def test_log_probabilities_are_in_a_delta_that_has_them_and_in_no_other() -> None:
    entry = TokenLogprobs(-0.5, ((3, -0.25),))
    body = json.loads(json.dumps(events.to_json(events.Delta(3, 0, 0, (1,), "h", None, (entry,), (None, entry)))))
    shown = {"logprob": -0.5, "top": [[3, -0.25]]}
    assert (body["logprobs"], body["prompt_logprobs"]) == ([shown], [None, shown])
    assert not {"logprobs", "prompt_logprobs"} & events.to_json(events.Delta(3, 0, 0, (1,))).keys()


@given(st.lists(st.integers(0, 2**32 - 1)))
def test_packed_ids_are_four_bytes_each_little_endian(values: list[int]) -> None:
    packed = pack_ids(values)
    assert packed == b"".join(value.to_bytes(4, "little") for value in values)
    assert unpack_ids(packed) == tuple(values)


def test_terminal_states_are_final() -> None:
    assert job.TRANSITIONS.keys() == set(job.State)
    assert all(not job.TRANSITIONS[state] for state in job.TERMINAL)
    assert all(job.TRANSITIONS[state] >= job.TERMINAL for state in set(job.State) - job.TERMINAL)


def test_job_ids_can_be_told_from_other_text() -> None:
    assert ids.is_job_id(ids.new_job_id())
    for text in ("", "job_", "job_" + "i" * 26, "x", ids.new_job_id() + "*", "job_../../x", ids.new_job_id().upper()):
        assert not ids.is_job_id(text)


def test_a_supervisor_can_name_a_worker_by_its_pid() -> None:
    assert ids.worker_id("abcd", 42) == ids.worker_id("abcd", 42)
    assert ids.worker_id("abcd", 42).endswith("_42_abcd")
