"""A real worker finds jobs that another model or other numerics have begun (rule 10)."""

from headrace.contract.events import Delta, Resumed
from headrace.contract.job import State
from headrace.queue.base import Append, ClaimRequest, Outcome
from tests.integration.workers.fleet import Fleet
from tests.integration.workers.test_fake_engine_runs import QUICK, expected
from workers.inference.fake_engine import FakeEngine, Knobs

LANE = "fake@stable"
REVISION = FakeEngine(Knobs()).ready().facts.revision


def begin(fleet: Fleet, prompt: str, revision: str, tokens: int) -> str:
    """A job of which a worker with another kernel table has made the first tokens."""
    job_id = fleet.submit_to(LANE, revision, prompt, 60)
    [mine] = fleet.queue.claim(ClaimRequest((LANE,), "w_earlier", revision, "other numerics", 1000, 1000, 1))
    ids = expected(prompt, tokens)
    [reply] = fleet.queue.append([Append(mine.lease, (Delta(0, 0, 0, ids, "text"),))])
    assert reply.outcome is Outcome.OK
    fleet.queue.release(mine.lease)
    return job_id


def test_another_revision_is_never_continued_and_other_numerics_are(fleet: Fleet) -> None:
    gone = begin(fleet, "of an older model", "older", 20)
    soft = begin(fleet, "of another machine", REVISION, 20)
    with fleet.worker(fleet.settings("fake:", queue=QUICK)):
        failed, done = fleet.ended(gone), fleet.ended(soft)
    assert failed.state is State.FAILED
    assert failed.error is not None
    assert failed.error.code == "revision_gone"
    assert fleet.token_ids(gone) == expected("of an older model", 20)
    assert fleet.types(gone) == ["accepted", "started", "delta", "failed"]
    assert done.state is State.SUCCEEDED
    assert fleet.token_ids(soft) == expected("of another machine", 60)
    [resumed] = [event for event in fleet.events(soft) if isinstance(event, Resumed)]
    assert (resumed.offsets, resumed.exact) == ((20,), False)
