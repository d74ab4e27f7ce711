"""What others, or a mistake, may put into a broker's queue: it is parked with a reason, and harms no other message."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from queue import Empty, SimpleQueue
from types import SimpleNamespace
from typing import Any, cast

import pytest
import redis

from headrace.contract.errors import BlobsUnavailable, MessageUnreadable, StoreUnavailable
from headrace.contract.job import Fallback, Job, State
from headrace.ledger import adopter, message
from headrace.ledger.adopter import Adopter
from headrace.ledger.amqp import _Consumer
from headrace.ledger.base import Delivery
from headrace.ledger.done import DoneMarks
from headrace.ledger.fleet_jobs import FleetJobs
from headrace.ledger.holder import News, Verdict, Verdicts
from headrace.queue.base import ClaimRequest, ReapRequest, Timing
from headrace.queue.redis import RedisQueue
from headrace.store.blobs import BlobStore, Source, read_all
from headrace.store.blobs_folder import FolderBlobs
from headrace.store.payloads import Payloads
from tests.contracts.bench import LANE, REVISION, make_job


class Line:
    """An adopter with messages in its hands, turned by hand."""

    def __init__(self, client: redis.Redis, blobs: BlobStore, threads: int) -> None:
        self.news: News = SimpleQueue()
        self.verdicts: Verdicts = SimpleQueue()
        self.queue = RedisQueue(client, Timing())
        jobs = FleetJobs(client, Timing(), Payloads(blobs))
        self.adopter = Adopter(jobs, blobs, self.news, self.verdicts, threads=threads)

    def bring(self, *bodies: bytes) -> None:
        """Each has its place, from 1 on, as its receipt."""
        for place, body in enumerate(bodies, 1):
            self.news.put(Delivery(body, str(place), 0.0))

    def acked(self) -> list[str]:
        found = []
        try:
            while True:
                receipt, verdict = self.verdicts.get_nowait()
                assert verdict is Verdict.ACK
                found.append(receipt)
        except Empty:
            return found

    def is_queued(self, job: Job) -> bool:
        record = self.queue.get(job.id)
        return record is not None and record.state is State.QUEUED


class Refusing(FolderBlobs):
    """A folder that refuses `parked/`, as a store with its own rules of access may."""

    refused = True

    def put_if_absent(self, key: str, source: Source) -> bool:
        if self.refused and key.startswith("parked/"):
            raise BlobsUnavailable(f"{key} is refused.")
        return super().put_if_absent(key, source)


@pytest.fixture(params=[1, 4])
def line(request: pytest.FixtureRequest, client: redis.Redis, blobs: FolderBlobs) -> Iterator[Line]:
    found = Line(client, blobs, request.param)
    yield found
    found.adopter.close()


@pytest.fixture(params=[1, 4])
def refused(request: pytest.FixtureRequest, client: redis.Redis, tmp_path: Path) -> Iterator[tuple[Line, Refusing]]:
    (tmp_path / "refusing").mkdir()
    blobs = Refusing(tmp_path / "refusing")
    found = Line(client, blobs, request.param)
    yield found, blobs
    found.adopter.close()


def changed(path: tuple[str, ...], value: Any, job: Job | None = None) -> bytes:
    """The message of a job with one value changed, wherever it is: requests and fallbacks are JSON within JSON."""
    body = json.loads(message.write(job or make_job()))
    _set(body, path, value)
    return json.dumps(body).encode()


def _set(into: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    first, *rest = path
    if not rest:
        into[first] = value
        return
    inner = into[first]
    packed = isinstance(inner, str)
    inner = json.loads(inner) if packed else inner
    _set(inner, tuple(rest), value)
    into[first] = json.dumps(inner) if packed else inner


REQUEST = ("record", "request")
IMPOSSIBLE: list[tuple[tuple[str, ...], Any, str]] = [
    (("headrace",), float("inf"), "headrace"),
    (("headrace",), 10**30, "headrace"),
    (("headrace",), True, "headrace"),
    (("needs",), float("nan"), "needs"),
    (("needs",), "1", "needs"),
    (("job",), [], "job"),
    (("deadline_at",), 10**30, "deadline_at"),
    (("deadline_at",), 1e30, "deadline_at"),
    (("deadline_at",), -1, "deadline_at"),
    (("deadline_at",), "soon", "deadline_at"),
    (("body_hash",), None, "body_hash"),
    (("record",), [], "record"),
    (("packed",), None, "packed"),
    (("packed", "prompt_ids"), 7, "prompt"),
    (("packed", "prompt_ids"), "AAA", "padding"),
    (("packed", "prompt_ids"), "", "prompt"),
    (("packed", "prompt_ids"), "/////w==", "token id"),
    (("record", "id"), "job_00000000000000000000000000", "holds"),
    (("record", "tenant"), [], "tenant"),
    (("record", "tenant"), "", "tenant"),
    (("record", "tenant"), "\ud800", "tenant"),
    (("record", "lane"), "x\nz", "lane"),
    (("record", "model"), "x" * 2_000, "model"),
    (("record", "revision"), 1, "revision"),
    (("record", "class"), "urgent", "urgent"),
    (("record", "kind"), {}, "kind"),
    (("record", "redrive_of"), "job_1", "redrive_of"),
    (("record", "replay_of"), 1, "replay_of"),
    (("record", "idem_key"), 1e30, "idem_key"),
    (("record", "metadata"), "1", "metadata"),
    (("record", "metadata"), '{"a":1}', "metadata"),
    (("record", "metadata"), '{"a":"\\ud800"}', "metadata"),
    (("record", "request"), "[" * 100_000, "recursion"),
    ((*REQUEST, "max_tokens"), -1, "max_tokens"),
    ((*REQUEST, "max_tokens"), 10**18, "max_tokens"),
    ((*REQUEST, "n"), 0, "request.n"),
    ((*REQUEST, "n"), 10**9, "request.n"),
    ((*REQUEST, "stop"), "x", "stop"),
    ((*REQUEST, "stop"), [None], "stop"),
    ((*REQUEST, "echo"), "yes", "echo"),
    ((*REQUEST, "logprobs"), "x", "logprobs"),
    ((*REQUEST, "prompt_logprobs"), -1, "prompt_logprobs"),
    ((*REQUEST, "sampling"), None, "sampling"),
    ((*REQUEST, "sampling", "seed"), "x", "seed"),
    ((*REQUEST, "sampling", "seed"), 2**63, "seed"),
    ((*REQUEST, "sampling", "temperature"), "x", "temperature"),
    ((*REQUEST, "sampling", "top_p"), float("nan"), "top_p"),
    ((*REQUEST, "sampling", "top_k"), 0.5, "top_k"),
    ((*REQUEST, "sampling", "min_p"), 1e999, "min_p"),
    (("record", "fallback"), "[]", "fallback"),
    (("record", "fallback", "lane"), "", "lane"),
    (("record", "fallback", "request", "max_tokens"), -1, "fallback.request.max_tokens"),
]


@pytest.mark.parametrize(("path", "value", "named"), IMPOSSIBLE, ids=lambda given: str(given)[:40])
def test_what_nobody_can_bear_is_no_message(path: tuple[str, ...], value: Any, named: str) -> None:
    job = make_job()
    job = replace(job, fallback=Fallback("other", "other@stable", "r2", job.request), metadata={"a": "b"})
    with pytest.raises(MessageUnreadable, match=named):
        message.read(changed(path, value, job))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("state", "RUNNING"),
        ("next_offset", "[]"),
        ("next_offset", "[-5]"),
        ("place", 10**30),
        ("epoch", 10**30),
        ("attempt", "1e30"),
        ("deaths", 99),
        ("seq", -1),
        ("deadline_at", 1),
        ("created_at", "never"),
        ("lease_id", "forged"),
        ("prompt_ref", "blob:prompts/another's"),
        ("redriven_as", "job_1"),
        ("history", '[{"attempt":1}]'),
        ("digests", "[null]"),
        ("usage", "{}"),
        ("error", "[]"),
    ],
)
def test_what_the_queue_alone_may_say_is_made_anew(name: str, value: Any) -> None:
    job = make_job(n=2)
    read = message.read(changed(("record", name), value, job))
    assert read.job == replace(job, next_offset=(0, 0))


@pytest.mark.parametrize("value", [1e999, -1, "x"])
def test_one_message_never_harms_another(line: Line, blobs: FolderBlobs, value: Any) -> None:
    good, later = make_job(), make_job()
    line.bring(changed(("headrace",), value), message.write(good), changed((*REQUEST, "n"), value))
    line.adopter.turn()
    line.news.put(Delivery(message.write(later), "4", 0.0))
    line.adopter.turn()
    assert line.is_queued(good)
    assert line.is_queued(later)
    assert sorted(line.acked()) == ["1", "3"]
    told = [json.loads(read_all(blobs, each.key)) for each in blobs.listing("parked/")]
    assert len(told) == 2
    assert all("is not an integer from" in each["reason"] for each in told)


def test_nor_does_one_that_is_read_wrongly(
    line: Line, blobs: FolderBlobs, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    read, good = message.read, make_job()

    def read_badly(body: bytes) -> message.Message:
        if body == b"{}":
            raise ZeroDivisionError("a mistake of ours")
        return read(body)

    monkeypatch.setattr(adopter, "read", read_badly)
    line.bring(b"{}", message.write(good))
    line.adopter.turn()
    assert line.is_queued(good)
    assert line.acked() == ["1"]
    (parked,) = blobs.listing("parked/")
    assert "a mistake of ours" in json.loads(read_all(blobs, parked.key))["reason"]


def test_while_nothing_can_be_parked_the_others_go_on(refused: tuple[Line, Refusing]) -> None:
    """Neither bodies that are none, nor claim checks on nothing, which are found out later."""
    line, blobs = refused
    good, ended, lost = make_job(), make_job(), make_job()
    DoneMarks(blobs).put(ended, None)
    gone = json.dumps({"headrace": 1, "job": lost.id, "needs": 1, "ref": message.claim_check_key(lost.id)}).encode()
    line.bring(b"garbage", gone, b"rubbish", message.write(good), message.write(ended))
    for _ in range(3):
        with pytest.raises(StoreUnavailable, match="is refused"):
            line.adopter.turn()
    assert line.is_queued(good)
    assert line.acked() == ["5"]
    blobs.refused = False
    line.adopter.turn()
    assert sorted(line.acked()) == ["1", "2", "3"]
    assert len(list(blobs.listing("parked/"))) == 3
    line.adopter.turn()
    assert line.acked() == []


def test_a_claim_check_on_what_is_done_goes(line: Line, blobs: FolderBlobs) -> None:
    """Its prompt is not to outlive a purge that came before the message."""
    job = make_job()
    DoneMarks(blobs).put(job, None)
    key = message.claim_check_key(job.id)
    blobs.put(key, message.write(job))
    line.bring(json.dumps({"headrace": 1, "job": job.id, "needs": 1, "ref": key}).encode())
    line.adopter.turn()
    assert line.acked() == ["1"]
    assert list(blobs.listing("ledger/")) == []


def test_a_mark_of_a_dead_job_has_no_prompt(line: Line, blobs: FolderBlobs, client: redis.Redis) -> None:
    """All that a purge leaves, and all that is left of the letter when Redis is lost: its message is gone by then."""
    job = replace(make_job(), metadata={"a": "b"})
    line.bring(message.write(replace(job, fallback=Fallback("other", "other@stable", "r2", job.request))))
    line.adopter.turn()
    for _ in range(3):
        assert line.queue.claim(ClaimRequest((LANE,), "w", REVISION, "d1", 100_000, 100_000, 1))
        line.queue.reap(ReapRequest("w", died=True))
    line.adopter.turn()
    assert line.acked() == ["1"]
    client.flushall()
    line.adopter.turn()
    assert line.queue.get(job.id) is None
    mark = DoneMarks(blobs).get(job.id)
    assert mark is not None
    assert not {"prompt_ids", "fallback", "fallback_prompt"} & mark.record.keys()
    assert (mark.state, mark.result, mark.job.metadata, len(mark.job.history)) == ("DEAD", "", {"a": "b"}, 3)


def test_a_redrive_that_another_has_replaced_is_adopted(line: Line) -> None:
    """Redis lost the first of them, and the letter was redriven again: both were accepted, so both end."""
    letter, first, second = make_job(), make_job(idem_key="k"), make_job(idem_key="k")
    line.queue.accept(letter)
    line.queue.accept(replace(second, redrive_of=letter.id), body_hash="h")
    line.bring(message.write(replace(first, redrive_of=letter.id), body_hash="h"))
    line.adopter.turn()
    assert line.is_queued(first)


@pytest.mark.parametrize("written", ["abc", None, -1, True, 1.5, float("inf"), 10**30, [], b"1"])
@pytest.mark.parametrize("redelivered", [False, True])
def test_a_count_that_is_none_is_not_counted(written: Any, redelivered: bool) -> None:
    """A classic queue passes on whatever a publisher has written into the broker's own header."""
    assert _attempts({"x-delivery-count": written}, redelivered) == 1 + redelivered


def test_a_count_is() -> None:
    assert _attempts({"x-delivery-count": 4}, False) == 5
    assert _attempts({}, True) == 2


def _attempts(headers: dict[str, Any], redelivered: bool) -> int:
    consumer = _Consumer(cast(Any, None), 1)
    consumer.take(
        SimpleNamespace(
            properties={"application_headers": headers},
            delivery_info={"redelivered": redelivered},
            delivery_tag=1,
            body=b"{}",
        )
    )
    return consumer.arrived[0].attempts
