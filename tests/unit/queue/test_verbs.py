"""Calls and answers of the scripts, without a server; and that every script is there, whole, in the package."""

import hashlib
import struct
from dataclasses import replace

import orjson
import pytest

from headrace.contract.events import Delta, from_json
from headrace.contract.generation import TokenLogprobs, pack_ids
from headrace.contract.job import Lease, State
from headrace.queue.base import Append, AppendReply, FinishReply, Outcome, Timing
from headrace.queue.scripts import PARTS, SCRIPTS
from headrace.queue.verbs import Verbs, parse_all
from headrace.store.journal import parse_entry
from tests.contracts.bench import claim_request

LEASE = Lease("job_1", "l", 3)
THIRD = struct.unpack("<f", struct.pack("<f", -1 / 3))[0]
VERBS = Verbs(Timing(1, 2, 3, 4, 5), offset_ms=9)


def test_every_verb_has_its_script() -> None:
    assert set(SCRIPTS) == {"accept", "claim", "renew", "append", "retry", "finish", "release", "cancel", "reap"}
    for verb, script in SCRIPTS.items():
        assert f"-- {verb}: " in script.source
        assert script.source.startswith("-- Ground of every script")
        assert script.sha == hashlib.sha1(script.source.encode()).hexdigest()
        assert PARTS[verb][-1] == verb


def test_timing_goes_in_front() -> None:
    assert VERBS.cancel("job_1").args == (9, 1, 2, 3, 4, 5, "job_1")


def test_a_delta_carries_ids_for_the_journal_and_json_for_listeners() -> None:
    call = VERBS.append(Append(LEASE, (Delta(0, 0, 5, (1, 2), 'ü"', None),)))
    body = b'{"type":"delta","choice":0,"offset":5,"token_ids":[1,2],"text":"\xc3\xbc\\"","finish_reason":null}'
    assert call.args[6:] == ("job_1", "l", 3, 0, 5, pack_ids((1, 2)), "", b"", body)


def test_listeners_and_the_journal_are_told_the_same_log_probabilities() -> None:
    """A third of a float32 is no short decimal, in either form."""
    entry = TokenLogprobs(THIRD, ((2, THIRD), (5, -9999.0)))
    delta = Delta(0, 0, 0, (5,), "t", "stop", (entry,), (None, entry))
    _, _, ids, _, packed, body = VERBS.append(Append(LEASE, (delta,))).args[9:]
    assert isinstance(ids, bytes)
    assert isinstance(packed, bytes)
    assert isinstance(body, bytes)
    assert from_json({"seq": 0, **orjson.loads(body)}) == delta
    fields = {b"event": b"0 0 stop", b"ids": ids, b"logprobs": packed}
    assert parse_entry(b"0-0", fields) == replace(delta, text="")


def test_answers_are_typed() -> None:
    append, finish = VERBS.append(Append(LEASE)).parse, VERBS.release(LEASE).parse
    assert append([b"OK", 4, 1, 0, 0, 1]) == AppendReply(Outcome.OK, 4, 1, diverged=True)
    assert append([b"GAP", 4, 1, 2, 30, 0]) == AppendReply(Outcome.GAP, 4, 1, 2, 30)
    assert append([b"TERMINAL", b"DEAD"]) == AppendReply(Outcome.TERMINAL, state=State.DEAD)
    assert append([b"LOST"]) == AppendReply(Outcome.LOST)
    assert finish([b"MISSING"]) == FinishReply(Outcome.MISSING)
    assert finish([b"GAP", 1, 7]) == FinishReply(Outcome.GAP, choice=1, have=7)


def test_two_claims_are_two_claims() -> None:
    one, two = (VERBS.claim(claim_request()).args for _ in range(2))
    assert one != two
    assert len(one) == len(two)


def test_the_first_error_of_a_pipeline_is_raised() -> None:
    call = VERBS.append(Append(LEASE))
    with pytest.raises(ValueError, match="first"):
        parse_all([call, call], [[b"LOST"], ValueError("first")])
