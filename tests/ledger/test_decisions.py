"""What is decided without a broker: what is due of a message, what it needs next, which blobs go."""

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from headrace.contract.ids import new_job_id
from headrace.contract.job import Fallback, State
from headrace.ledger import message
from headrace.ledger.adopter import Next, next_of
from headrace.ledger.base import Delivery, Terms
from headrace.ledger.done import DoneMarks
from headrace.ledger.holder import Held, chores
from headrace.store import keys
from headrace.store.blobs import Blob
from headrace.store.blobs_folder import FolderBlobs
from headrace.store.ledger_blobs import outlived, sweep_outlived
from tests.contracts.bench import make_job

SQS, AMQP = Terms(120.0, 40.0, 39_600.0), Terms(math.inf, 0.0, 1_500.0)


@pytest.mark.parametrize(
    ("terms", "received", "until", "extended", "acked", "due"),
    [
        (SQS, 990.0, 1_110.0, 990.0, False, ""),
        (SQS, 960.0, 1_080.0, 960.0, False, "extend"),
        (SQS, 880.0, 1_000.0, 880.0, False, "expired"),
        (SQS, 880.0, 1_000.0, 880.0, True, "expired"),
        (SQS, 1_000.0 - 39_600.0, 1_100.0, 980.0, False, "hand_over"),
        (SQS, 1_000.0 - 39_600.0, 1_100.0, 980.0, True, ""),
        (AMQP, 999.0, math.inf, 999.0, False, "extend"),
        (AMQP, -500.0, math.inf, 999.0, False, "hand_over"),
    ],
)
def test_what_is_due(terms: Terms, received: float, until: float, extended: float, acked: bool, due: str) -> None:
    held = Held(Delivery(b"", "r", received), until, extended)
    found = chores([held], {"r"} if acked else set(), terms, 1_000.0)
    assert {name for name in ("expired", "hand_over", "extend") if getattr(found, name)} == ({due} if due else set())


@pytest.mark.parametrize("state", [None, *State])
def test_what_a_message_needs(state: State | None) -> None:
    expected = {
        None: Next.LOOK,
        State.ACCEPTED: Next.QUEUE,
        State.QUEUED: Next.HOLD,
        State.LEASED: Next.HOLD,
        State.RUNNING: Next.HOLD,
        State.RETRY_WAIT: Next.HOLD,
    }
    assert next_of(state) is expected.get(state, Next.SETTLE)


@pytest.mark.parametrize(
    ("key", "age", "lives", "goes"),
    [
        ("done/job_1", 1_001, False, True),
        ("done/job_1.result", 1_001, True, True),
        ("done/job_1", 1_000, False, False),
        ("ledger/job_1", 1_001, False, True),
        ("ledger/job_1", 1_001, True, False),
        ("parked/abc", 1_001, False, True),
    ],
)
def test_which_blobs_of_a_ledger_go(key: str, age: int, lives: bool, goes: bool) -> None:
    living = {"job_1"} if lives else set()
    assert outlived([Blob(key, 1, 10_000 - age)], living, 10_000, 1_000) == ((key,) if goes else ())


def test_a_sweep_of_what_has_outlived_every_message(client: redis.Redis, blobs: FolderBlobs) -> None:
    old, living, job = new_job_id(), new_job_id(), make_job()
    DoneMarks(blobs).put(job, b"result")
    for key in (f"ledger/{old}", f"ledger/{living}", "parked/abc"):
        blobs.put(key, b"x")
    client.hset(keys.job(living), "state", "RUNNING")
    now, kept_ms = message.wall_ms(), 15 * 24 * 3600 * 1000
    assert sweep_outlived(blobs, client, now, kept_ms) == 0
    assert sweep_outlived(blobs, client, now + kept_ms + 60_000, kept_ms) == 4
    assert [blob.key for blob in blobs.listing()] == [f"ledger/{living}"]


def test_a_message_holds_a_fallback_if_it_has_all_of_it() -> None:
    job = make_job()
    fallback = Fallback("other", "other@stable", "r2", job.request)
    elsewhere = replace(fallback, prompt_ref="blob:prompts/x.1", request=replace(job.request, prompt_ids=()))
    for given, kept in ((fallback, fallback), (replace(fallback, prompt_ref="blob:x"), fallback), (elsewhere, None)):
        read = message.read(message.write(replace(job, fallback=given)))
        assert read.job is not None
        assert read.job.fallback == kept


def test_without_a_ledger_nobody_loads_a_broker() -> None:
    """Neither a gateway nor a feeder that has not opened one: both libraries are an extra."""
    said = "import sys, gateway.services, workers.feeder; print(sorted({'boto3', 'kombu'} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True, timeout=60)
    assert answer.stdout.strip() == "[]"


def test_the_first_ending_stands(tmp_path: Path) -> None:
    marks, job = DoneMarks(FolderBlobs(tmp_path)), make_job()
    assert marks.get(job.id) is None
    marks.put(job, b"first")
    marks.put(job, b"second")
    mark = marks.get(job.id)
    assert mark is not None
    assert (mark.job.id, mark.job.request.prompt_ids, mark.result) == (job.id, (), f"blob:done/{job.id}.result")
    assert b"".join(FolderBlobs(tmp_path).read(f"done/{job.id}.result")) == b"first"
