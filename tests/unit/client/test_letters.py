"""What is asked of `/v1/dlq` and when: pages, chunks of ids, pace, limits; and what its answers mean."""

import asyncio
import json
from typing import Any

import pytest

from headrace.client import AsyncClient, Client, LetterOutcome, core
from headrace.client.letters import Filters, LetterPages, Walk
from headrace.client.pace import Pace
from headrace.contract.errors import ErrorInfo, HeadraceError, InvalidRequest
from headrace.contract.ids import new_job_id
from tests.unit.client.scripted import Answer, serving

IDS = [new_job_id() for _ in range(5)]
GONE = {"code": "revision_gone", "message": "It is gone.", "param": None, "type": "invalid_request_error"}


def letter(job_id: str) -> dict[str, Any]:
    reason = {"code": "poison", "message": "It killed."}
    return {
        "id": job_id,
        "model": "m",
        "reason": reason,
        "attempts": 3,
        "deaths": 3,
        "workers": ["w_1"],
        "ended_at": 1_000,
        "history": [],
    }


def page(data: list[Any], cursor: str | None = None, refused: list[Any] | None = None) -> core.Reply:
    body = {"data": data, "refused": refused or [], "has_more": cursor is not None, "cursor": cursor}
    return core.Reply(200, {}, json.dumps(body).encode())


def redriven(job_id: str) -> dict[str, str]:
    return {"id": job_id, "redriven_as": job_id[:-1] + "z"}


def call_of(step: object) -> core.Call:
    assert isinstance(step, core.Call)
    return step


def body_of(step: object) -> dict[str, Any]:
    return dict(call_of(step).json or {})


def test_pages_follow_the_cursor_within_the_limit() -> None:
    pages = LetterPages(Filters(model="m", metadata={"row": "7"}, ids=IDS[:2]), 3)
    first = call_of(pages.next_call())
    assert first.method == "GET"
    assert first.path == f"/v1/dlq?model=m&ids={IDS[0]}%2C{IDS[1]}&metadata%5Brow%5D=7&limit=3"
    (found,) = pages.read(page([letter(IDS[0])], "5.x"))
    assert (found.id, found.reason, found.workers) == (IDS[0], ErrorInfo("poison", "It killed."), ("w_1",))
    assert "&cursor=5.x&limit=2" in call_of(pages.next_call()).path
    pages.read(page([letter(IDS[1]), letter(IDS[2])], "4.x"))
    assert pages.next_call() is None


def test_a_walk_goes_on_with_the_cursor_and_ends() -> None:
    walk = Walk("redrive", Filters(code="poison", tenant=None), {"deadline_seconds": 9, "dry_run": None}, None, None)
    assert body_of(walk.next(0.0)) == {"code": "poison", "deadline_seconds": 9, "limit": 100}
    outcomes = walk.read(page([redriven(IDS[0])], "1.x", [{"id": IDS[1], "error": GONE}]), 0.0)
    assert outcomes == [
        LetterOutcome(IDS[0], IDS[0][:-1] + "z"),
        LetterOutcome(IDS[1], error=ErrorInfo("revision_gone", "It is gone.")),
    ]
    assert body_of(walk.next(0.0))["cursor"] == "1.x"
    walk.read(page([]), 0.0)
    assert walk.next(0.0) is None


def test_named_ones_are_asked_for_in_chunks_and_a_chunk_cut_short_is_finished_first() -> None:
    walk = Walk("purge", Filters(ids=IDS), {}, None, Pace(2.0, 0.0))
    assert (body_of(walk.next(0.5))["ids"], body_of(walk.next(0.5))["limit"]) == (IDS[:2], 2)
    walk.read(page([redriven(IDS[0])], "1.x"), 0.5)
    step = body_of(walk.next(0.5))
    assert (step["ids"], step["cursor"]) == (IDS[:2], "1.x")
    walk.read(page([redriven(IDS[1])]), 0.5)
    assert walk.next(0.75) == 0.25
    step = body_of(walk.next(9.0))
    assert (step["ids"], "cursor" in step) == (IDS[2:5], False)
    walk.read(page([]), 9.0)
    assert walk.next(9.0) is None


def test_a_limit_counts_what_was_done_and_not_what_was_left() -> None:
    walk = Walk("redrive", Filters(), {}, 2, None)
    assert body_of(walk.next(0.0))["limit"] == 2
    walk.read(page([redriven(IDS[0])], "1.x", [{"id": IDS[1], "error": GONE}]), 0.0)
    assert body_of(walk.next(0.0))["limit"] == 1
    walk.read(page([redriven(IDS[2])], "2.x"), 0.0)
    assert walk.next(0.0) is None


def test_what_was_left_takes_no_time() -> None:
    walk = Walk("redrive", Filters(), {}, None, Pace(1.0, 0.0))
    walk.next(0.0)
    walk.read(page([], "1.x", [{"id": IDS[1], "error": GONE}]), 0.0)
    assert isinstance(walk.next(0.0), core.Call)


@pytest.mark.parametrize("wanted", [Filters(ids=["job_1"]), Filters(ids=[])])
def test_ids_that_are_none_are_refused_here(wanted: Filters) -> None:
    with pytest.raises(InvalidRequest):
        Walk("purge", wanted, {}, None, None)


@pytest.mark.parametrize(("dry_run", "at_once"), [(True, 100), (False, 1)])
def test_a_dry_run_keeps_no_rate(dry_run: bool, at_once: int) -> None:
    walk = Walk.redrive(Filters(), rate=1.0, limit=None, deadline_seconds=None, dry_run=dry_run, now=0.0)
    assert body_of(walk.next(0.0)) == {"dry_run": dry_run, "limit": at_once}


def test_no_sleep_is_longer_than_a_minute() -> None:
    walk = Walk.redrive(Filters(), rate=0.001, limit=None, deadline_seconds=None, dry_run=False, now=0.0)
    walk.next(0.0)
    walk.read(page([redriven(IDS[0])], "1.x"), 0.0)
    assert (walk.next(0.0), walk.next(999.5)) == (60.0, 0.5)


@pytest.mark.parametrize("dry_run", [True, False])
def test_an_odd_rate_is_refused_before_anything_is_asked(dry_run: bool) -> None:
    with pytest.raises(InvalidRequest, match="rate"):
        Walk.redrive(Filters(), rate=float("inf"), limit=None, deadline_seconds=None, dry_run=dry_run, now=0.0)


@pytest.mark.parametrize("content", [b"{}", b'{"data": 1, "refused": [], "has_more": false, "cursor": null}', b"[]"])
def test_an_answer_of_something_else(content: bytes) -> None:
    with pytest.raises(HeadraceError):
        Walk("purge", Filters(), {}, None, None).read(core.Reply(200, {}, content), 0.0)


def test_both_clients_walk_and_tell() -> None:
    answers = [Answer(body=page([redriven(IDS[0])], "1.x").content), Answer(body=page([redriven(IDS[1])]).content)]
    told: list[LetterOutcome] = []
    with serving(*answers) as script, Client(script.url) as client:
        outcomes = client.dlq.redrive(rate=1_000.0, tell=told.append)
    assert [outcome.id for outcome in outcomes] == IDS[:2]
    assert told == list(outcomes)

    async def ask(url: str) -> tuple[tuple[LetterOutcome, ...], list[str]]:
        async with AsyncClient(url) as client:
            purged = await client.dlq.purge(ids=[IDS[0]])
            shown = await client.dlq.show(IDS[0])
            return purged, [shown.id, *[each.id async for each in client.dlq.list(limit=1)]]

    answers = [
        Answer(body=page([{"id": IDS[0]}]).content),
        Answer(body=json.dumps(letter(IDS[0])).encode()),
        Answer(body=page([letter(IDS[1])]).content),
    ]
    with serving(*answers) as script:
        assert asyncio.run(ask(script.url)) == ((LetterOutcome(IDS[0]),), IDS[:2])
    assert [asked.path.partition("?")[0] for asked in script.asked] == ["/v1/dlq/purge", f"/v1/dlq/{IDS[0]}", "/v1/dlq"]
