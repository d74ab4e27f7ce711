"""The oracle sees each fault that it is there for, and none in a run that went well."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from headrace.contract.events import Accepted, Completed, Delta, Event, Resumed, Started
from headrace.contract.generation import Choice, FrozenRequest, Sampling, Usage
from headrace.contract.job import Job, JobClass, Kind, State
from tests.chaos.oracle import Kept, Receipt, Snapshot, judge
from tests.chaos.orders import Answer, undisturbed, wave

IDS = (5, 6, 7, 8, 9, 10)
ID = "job_01"


def job() -> Job:
    return Job(
        id=ID,
        model="m",
        lane="m@stable",
        revision="r",
        job_class=JobClass.BATCH,
        kind=Kind.COMPLETION,
        request=FrozenRequest((1, 2, 3), Sampling(7), len(IDS)),
        state=State.SUCCEEDED,
        seq=6,
        usage=Usage(3, len(IDS)),
    )


def journal() -> tuple[Event, ...]:
    return (
        Accepted(1, ID, 0),
        Started(2, 1, "w_a", "r", "d"),
        Delta(3, 0, 0, IDS[:4]),
        Resumed(4, 2, "w_b", (4,)),
        Delta(5, 0, 4, IDS[4:], finish_reason="length"),
        Completed(6, Usage(3, len(IDS))),
    )


def deltas(*events: Event) -> tuple[Delta, ...]:
    return tuple(event for event in events if isinstance(event, Delta))


def receipt() -> Receipt:
    return Receipt(ID, (Answer(IDS, "length"),), 3, seen=deltas(*journal()))


def kept() -> Kept:
    return Kept(job(), journal(), (Choice(0, IDS, "length"),))


def snapshot() -> Snapshot:
    keys = {
        f"hr:job:{ID}": 1000,
        f"hr:ev:{ID}": 1000,
        "hr:workers": -1,
        "hr:card:m@stable": -1,
        "hr:lane:m@stable:batch": -1,
    }
    beats = {"w_a": {"held": 0, "pages": 0, "diverged": 0}}
    return Snapshot({ID: kept()}, {"hr:leases": (), "hr:lane:m@stable:batch": ()}, keys, beats)


def with_journal(*events: Event) -> Snapshot:
    changed = replace(kept(), journal=events, job=replace(job(), seq=len(events)))
    return replace(snapshot(), jobs={ID: changed})


def kinds(receipts: list[Receipt], found: Snapshot) -> set[str]:
    return {fault.kind for fault in judge(receipts, found).faults}


def test_nothing_is_wrong_with_a_run_that_went_well() -> None:
    verdict = judge([receipt()], snapshot())
    assert not verdict.faults
    assert (verdict.jobs, verdict.tokens, verdict.resumed) == (1, len(IDS), 1)


def test_a_lost_job_is_seen() -> None:
    assert "lost job" in kinds([receipt()], replace(snapshot(), jobs={}))


@pytest.mark.parametrize("state", [State.QUEUED, State.RUNNING, State.FAILED, State.DEAD, State.CANCELLED])
def test_a_job_that_did_not_end_well_is_lost(state: State) -> None:
    changed = replace(kept(), job=replace(job(), state=state))
    assert "lost job" in kinds([receipt()], replace(snapshot(), jobs={ID: changed}))


def test_a_job_whose_journal_has_no_end_is_lost() -> None:
    assert "lost job" in kinds([receipt()], with_journal(*journal()[:-1]))


def test_a_job_that_ended_twice_is_seen() -> None:
    assert "ended twice" in kinds([receipt()], with_journal(*journal(), Completed(7, Usage(1, len(IDS)))))


def test_a_job_that_nobody_was_told_of_is_a_second_one() -> None:
    twin = replace(kept(), job=replace(job(), id="job_02"))
    assert "job twice" in kinds([receipt()], replace(snapshot(), jobs={ID: kept(), "job_02": twin}))


def test_one_job_for_two_orders_is_seen() -> None:
    assert "job twice" in kinds([receipt(), receipt()], snapshot())


CHANGES: dict[str, tuple[str, Callable[[Delta], Delta]]] = {
    "missing at the end": ("missing", lambda delta: replace(delta, token_ids=delta.token_ids[:-1])),
    "missing in the middle": ("missing", lambda delta: replace(delta, offset=5, token_ids=delta.token_ids[1:])),
    "repeated": ("repeated", lambda delta: replace(delta, offset=3, token_ids=(IDS[3], *delta.token_ids))),
    "different": ("different", lambda delta: replace(delta, token_ids=(99, *delta.token_ids[1:]))),
    "one too many": ("different", lambda delta: replace(delta, token_ids=(*delta.token_ids, 11))),
    "for another choice": ("different", lambda delta: replace(delta, choice=1)),
    "another reason": ("finish reason", lambda delta: replace(delta, finish_reason="stop")),
    "no reason": ("finish reason", lambda delta: replace(delta, finish_reason=None)),
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("where", ["journal", "stream"])
def test_a_wrong_delta_is_seen(name: str, where: str) -> None:
    kind, change = CHANGES[name]
    events = [change(event) if isinstance(event, Delta) and event.seq == 5 else event for event in journal()]
    if where == "journal":
        found = judge([receipt()], with_journal(*events))
    else:
        found = judge([replace(receipt(), seen=deltas(*events))], snapshot())
    assert any(fault.kind == kind and where in fault.where for fault in found.faults)


def test_tokens_are_counted() -> None:
    verdict = judge([replace(receipt(), seen=())], snapshot())
    assert verdict.count("missing") == len(IDS)


def test_a_gap_in_seq_is_seen() -> None:
    assert "seq" in kinds([receipt()], with_journal(*(replace(e, seq=e.seq + (e.seq > 3)) for e in journal())))


def test_a_result_that_is_not_what_was_journaled_is_seen() -> None:
    for result in (None, (Choice(0, IDS[:-1], "length"),), (Choice(0, IDS, "stop"),)):
        assert "result" in kinds([receipt()], replace(snapshot(), jobs={ID: replace(kept(), result=result)}))


def test_wrong_usage_is_seen() -> None:
    changed = replace(kept(), job=replace(job(), usage=Usage(1, len(IDS) + 1)))
    assert "usage" in kinds([receipt()], replace(snapshot(), jobs={ID: changed}))


@pytest.mark.parametrize("key", ["hr:leases", "hr:delay", "hr:accepted", "hr:held:w_a", "hr:lane:m@stable:batch"])
def test_a_leftover_is_seen(key: str) -> None:
    assert kinds([receipt()], replace(snapshot(), members={key: (ID,)})) == {"leftover"}


def test_a_worker_that_still_holds_something_is_seen() -> None:
    for beat in ({"held": 1, "pages": 0, "diverged": 0}, {"held": 0, "pages": 2, "diverged": 0}):
        assert kinds([receipt()], replace(snapshot(), beats={"w_a": beat})) == {"leftover"}


@pytest.mark.parametrize("key", [f"hr:job:{ID}", f"hr:ev:{ID}", f"hr:result:{ID}", "hr:idem:default:k", "hr:new:thing"])
def test_a_leaked_key_is_seen(key: str) -> None:
    found: Any = replace(snapshot(), ttls={**snapshot().ttls, key: -1})
    assert kinds([receipt()], found) == {"leaked key"}


def test_a_dead_job_may_stay() -> None:
    dead = replace(kept(), job=replace(job(), state=State.DEAD))
    found = replace(snapshot(), jobs={ID: dead}, ttls={f"hr:job:{ID}": -1, f"hr:ev:{ID}": -1})
    assert "leaked key" not in kinds([receipt()], found)


def test_an_order_has_the_answers_of_the_fake_engine_by_hand() -> None:
    (answer,) = undisturbed({"prompt": "mill", "seed": 3, "max_tokens": 12, "n": 1})
    stop = bytes(answer.ids[4:6]).decode()
    (cut,) = undisturbed({"prompt": "mill", "seed": 3, "max_tokens": 12, "n": 1, "stop": [stop]})
    assert answer.finish_reason == "length"
    assert cut.finish_reason == "stop"
    assert cut.ids == answer.ids[: len(cut.ids)]
    assert bytes(cut.ids).decode().endswith(stop)


def test_a_wave_is_the_same_for_the_same_seed_and_of_every_kind_over_some() -> None:
    assert wave(3, 1, "m") == wave(3, 1, "m") != wave(4, 1, "m")
    drawn = [order for seed in range(20) for order in wave(seed, 0, "m")]
    assert {order.body["n"] for order in drawn} == {1, 2, 3}
    assert {order.mode for order in drawn} == {"stream", "poll", "cancel"}
    assert all(any(name in order.body for order in drawn) for name in ("stop", "logprobs", "frequency_penalty"))
    assert {order.body["class"] for order in drawn} == {"interactive", "standard", "batch", "background"}
    assert {answer.finish_reason for order in drawn for answer in order.answers} == {"stop", "length"}
