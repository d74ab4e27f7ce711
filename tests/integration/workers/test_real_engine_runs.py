"""The worker with the real engine and a tiny random model: one worker for all tests, since a start costs seconds."""

import os
import signal
from collections.abc import Iterator

import pytest

from headrace.client.comparison import Comparison, compare, from_events
from headrace.contract.events import Delta
from headrace.contract.job import State
from headrace.submission.replay import again, digest_of
from tests.integration.workers.fleet import Fleet, eventually
from tests.redis_server import RedisServer
from tests.tiny_model import write_tiny_model
from workers.inference.worker import InferenceWorker

QUICK = {"lease_ms": 3000, "renew_ms": 300, "beat_ms": 100, "reap_ms": 100}
Bench = tuple[Fleet, InferenceWorker]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("t")
    path = write_tiny_model(folder / "tiny.gguf", context_length=512)
    server = RedisServer(folder / "r")
    server.start()
    fleet = Fleet(server)
    with fleet.worker(fleet.settings(f"file:{path}", queue=QUICK)) as worker:
        yield fleet, worker
    server.stop()


def submit_mixed(fleet: Fleet, worker: InferenceWorker, count: int, max_tokens: int) -> list[str]:
    """Half greedy, half sampled, one in four with log probabilities; the same each time."""
    return [
        fleet.submit(
            worker,
            f"job number {index}",
            max_tokens,
            seed=index,
            temperature=0.8 * (index % 2),
            logprobs=None if index % 4 else 3,
        )
        for index in range(count)
    ]


def test_jobs_run_together_and_the_card_is_in_the_store(bench: Bench) -> None:
    fleet, worker = bench
    jobs = submit_mixed(fleet, worker, 8, 40)
    for job_id in jobs:
        job = fleet.ended(job_id)
        assert job.state is State.SUCCEEDED
        assert job.usage is not None
        assert 0 < len(fleet.token_ids(job_id)) == job.usage.completion_tokens <= 40
    rows = worker.metrics.snapshot()["histograms"]["headrace_engine_decode_rows"]
    assert rows["count"] > 0
    card = fleet.card(worker.lane)
    assert (card.id, card.context_length) == ("tiny", 512)
    assert card.max_kv_tokens > 0
    assert card.chat_template
    assert card.digest


def test_a_prompt_alone_is_explained_and_nothing_generated(bench: Bench) -> None:
    fleet, worker = bench
    job_id = fleet.submit(worker, "only this", 0, logprobs=2)
    job = fleet.ended(job_id)
    assert (job.state, job.error) == (State.SUCCEEDED, None)
    (choice,) = fleet.journal.result(job_id) or ()
    assert (choice.token_ids, choice.finish_reason, len(choice.prompt_logprobs)) == ((), "length", len("only this"))


def test_a_prompt_that_was_computed_before_is_cached(bench: Bench) -> None:
    fleet, worker = bench
    prompt = "the same beginning of 40 tokens, page by page"[:40]

    def cached() -> int:
        usage = fleet.ended(fleet.submit(worker, prompt, 5)).usage
        assert usage is not None
        assert usage.prompt_tokens == 40
        return usage.cached_tokens

    assert cached() == 0
    # At once, unless the machine stood still for a lease: what is resumed counts none.
    eventually(lambda: cached() == 32, "two whole pages of 16")


def kill_engine_over(fleet: Fleet, worker: InferenceWorker, jobs: list[str]) -> None:
    """When each of the jobs has journaled some tokens; another engine is there afterwards."""
    eventually(lambda: all(fleet.get(job_id).ended or fleet.offset(job_id) >= 8 for job_id in jobs), "8 tokens each")
    pid = worker.engine_pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: worker.engine_pid not in (None, pid), "another engine")


def disturbed_jobs(fleet: Fleet, worker: InferenceWorker) -> list[str]:
    """Of those in `submit_mixed`, with an engine killed before all had ended."""
    for _ in range(10):  # an engine as small as this may have said everything before anybody looks
        jobs = submit_mixed(fleet, worker, 8, 300)
        kill_engine_over(fleet, worker, jobs)
        if any(fleet.ended(job_id).attempt > 1 for job_id in jobs):
            return jobs
    raise AssertionError("each kill came too late to disturb")


def replay_all(fleet: Fleet, jobs: list[str]) -> None:
    """Run each again for its digest, and find the same tokens with the same log probabilities."""
    firsts = [fleet.ended(job_id) for job_id in jobs]
    replays = [again(job, job.lane, digest=digest_of(job)) for job in firsts]
    for replay in replays:
        fleet.queue.accept(replay)
    for first, replay in zip(firsts, replays, strict=True):
        ended = fleet.ended(replay.id)
        assert (ended.state, ended.digests, len(ended.digests)) == (State.SUCCEEDED, first.digests, 1)
        compared = compare(*(from_events(fleet.events(job_id)) for job_id in (first.id, replay.id)))
        assert compared == Comparison(sum(first.next_offset))


def test_a_killed_engine_changes_no_token(bench: Bench) -> None:
    fleet, worker = bench
    undisturbed = submit_mixed(fleet, worker, 8, 300)
    for job_id in undisturbed:
        fleet.ended(job_id)
    disturbed = disturbed_jobs(fleet, worker)
    for before, after in zip(undisturbed, disturbed, strict=True):
        assert fleet.ended(after).state is State.SUCCEEDED
        assert fleet.token_ids(after) == fleet.token_ids(before)
        assert fleet.journal.result(after) == fleet.journal.result(before)
        (choice,), (journaled,) = fleet.journal.result(after) or (), fleet.journal.ids(after)
        assert (choice.logprobs, choice.prompt_logprobs) == (journaled.logprobs, journaled.prompt_logprobs)
        wanted = fleet.get(after).request.logprobs is not None
        assert len(choice.logprobs) == wanted * len(choice.token_ids)
    replay_all(fleet, [job_id for job_id in disturbed if fleet.get(job_id).attempt > 1])


def test_a_stop_string_is_cut_where_the_undisturbed_text_has_it(bench: Bench) -> None:
    fleet, worker = bench
    whole_id = fleet.submit(worker, "stop here", 100)
    fleet.ended(whole_id)
    whole = fleet.token_ids(whole_id)
    stop = next(token for token in whole[5:] if token < 128)
    job_id = fleet.submit(worker, "stop here", 100, stop=(chr(stop),))
    assert fleet.ended(job_id).state is State.SUCCEEDED
    assert fleet.token_ids(job_id) == whole[: whole.index(stop) + 1]
    last = fleet.events(job_id)[-2]
    assert isinstance(last, Delta)
    assert last.finish_reason == "stop"


def test_a_request_that_cannot_be_run_fails_alone(bench: Bench) -> None:
    fleet, worker = bench
    too_long = fleet.submit(worker, "x" * 600, 10)
    odd = fleet.submit(worker, "odd", 10, stop=("",))
    fine = fleet.submit(worker, "fine", 10)
    assert fleet.ended(odd).state is State.FAILED
    job = fleet.ended(too_long)
    assert job.state is State.FAILED
    assert job.error is not None
    assert job.error.code == "context_length_exceeded"
    assert fleet.ended(fine).state is State.SUCCEEDED


def test_a_cancelled_job_frees_its_pages(bench: Bench) -> None:
    fleet, worker = bench
    jobs = [fleet.submit(worker, f"cancel {index}", 400, temperature=0.0) for index in range(4)]
    eventually(lambda: all(fleet.offset(job_id) for job_id in jobs), "tokens")
    for job_id in jobs:
        fleet.queue.cancel(job_id)
    eventually(lambda: worker.held == 0, "jobs dropped", 2.0)
    eventually(lambda: worker.metrics.snapshot()["gauges"]["headrace_engine_kv_pages_used"] == 0, "pages freed", 2.0)
