"""Replay: an ended job's frozen request is accepted again as a new job, for the numerics that the first one had.

Knows records and cards, no HTTP; it compares nothing.
"""

from collections.abc import Sequence

from headrace.contract.errors import InvalidRequest, RevisionGone
from headrace.contract.ids import new_job_id
from headrace.contract.job import Job, JobClass
from headrace.store.async_payloads import AsyncPayloads
from headrace.store.cards import CardBook, Release
from headrace.submission.submit import Submitted, Submitter

MARK = "replay_of"
"""The name under which a replay's metadata has the first job, so that replays can be listed."""


def digest_of(job: Job) -> str:
    """The digest a job was made with; of several the first, which goes furthest before another could differ. Empty for
    one that was never begun."""
    return job.digests[0] if job.digests else job.digest


def lane_for(job: Job, releases: Sequence[Release]) -> str:
    """The lane where a job's revision is served: its own before others of its model. Raises RevisionGone."""
    lanes = sorted(each.lane for each in releases if each.card.id == job.model and each.card.revision == job.revision)
    if not lanes:
        raise RevisionGone(
            f"No card of `{job.model}` has revision {job.revision[:16]} any more, and another says something else.",
            next_step="Start a worker with the model file of that time.",
        )
    return job.lane if job.lane in lanes else lanes[0]


def again(
    job: Job,
    lane: str,
    *,
    digest: str,
    job_class: JobClass | None = None,
    deadline_ms: int | None = None,
    idem_key: str = "",
    traceparent: str = "",
) -> Job:
    """The new job: all that the first one was asked, and nothing of what became of it. `job` has its prompt ids."""
    return Job(
        id=new_job_id(),
        model=job.model,
        lane=lane,
        revision=job.revision,
        job_class=job_class or job.job_class,
        kind=job.kind,
        request=job.request,
        tenant=job.tenant,
        next_offset=(0,) * job.request.n,
        deadline_at=deadline_ms,
        idem_key=idem_key,
        replay_of=job.id,
        digest_wanted=digest,
        traceparent=traceparent,
        metadata={**job.metadata, MARK: job.id},
    )


class Replayer:
    """For one event loop."""

    def __init__(self, submitter: Submitter, cards: CardBook, payloads: AsyncPayloads) -> None:
        self._submitter = submitter
        self._cards = cards
        self._payloads = payloads

    async def replay(
        self,
        job: Job,
        *,
        any_digest: bool = False,
        job_class: JobClass | None = None,
        deadline_ms: int | None = None,
        idem_key: str = "",
        body_hash: str = "",
        traceparent: str = "",
    ) -> Submitted:
        """Returns when the new job is durable. With `any_digest` any worker of the revision may take it.

        Raises InvalidRequest for a job that goes on or was never begun, RevisionGone, what `AsyncPayloads.fetch_prompt`
        raises for a prompt that is lost, or what `Submitter.submit` does.
        """
        if not job.ended:
            raise InvalidRequest(
                f"{job.id} has not ended: there is nothing yet to hold a replay against.",
                next_step="Wait for its end, or cancel it.",
            )
        digest = digest_of(job)
        if not digest:
            raise InvalidRequest(
                f"{job.id} was never begun: there is nothing to hold a replay against.",
                next_step="Submit the work again.",
            )
        lane = lane_for(job, await self._cards.list())
        new = again(
            await self._payloads.fetch_prompt(job),
            lane,
            digest="" if any_digest else digest,
            job_class=job_class,
            deadline_ms=deadline_ms,
            idem_key=idem_key,
            traceparent=traceparent,
        )
        return await self._submitter.submit_frozen(new, body_hash=body_hash)
