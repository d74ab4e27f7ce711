"""Days of a fleet: clients, workers that get on, die, err, repeat themselves and come too late, sweepers, time.

Knows what may happen; what is said then is in its bases, and what is right in `model.py`, `claims.py` and `checks.py`.
"""

import hypothesis.strategies as st
from hypothesis.stateful import precondition, rule

from headrace.contract.events import Delta
from headrace.queue.base import ClaimRequest
from tests.stateful.ground import LANES, WORKERS, lately, revisions, seldom
from tests.stateful.model import Grant
from tests.stateful.workers import Workers, right_ids

Pick = tuple[bool, int]
"""Whether a grant that may write is meant, and the how manieth."""

picks = st.tuples(lately, st.integers(0, 31))
workers = st.sampled_from(WORKERS)
digests = st.sampled_from(["d1", "d1", "d2"])
something_was_claimed = precondition(lambda self: self.known)
somebody_is_at_work = precondition(lambda self: self.living())


class AnyOrder(Workers):
    """Clients, workers, sweepers and accidents in any order."""

    def picked(self, pick: Pick) -> Grant:
        fresh, number = pick
        among = (fresh and self.living()) or self.known
        return among[number % len(among)]

    def end_everything(self) -> None:
        """Whatever has happened, those who hold a lease then and those who have lost one try all that rules 1, 2 and 4
        are about."""
        self.claim_all(WORKERS[0])
        for grant in self.living()[:2]:
            self.get_on(grant, 3)
            self.try_what_is_wrong(grant)
            self.get_on(grant, 200)
            self.finish(grant, short=True)
            self.finish(grant, again=True)
        for grant in self.known[-3:]:
            self.get_on(grant, 1)
            self.release(grant)
        super().end_everything()

    def try_what_is_wrong(self, grant: Grant) -> None:
        have = len(self.model.records[grant.job_id].choices[0])
        for start, stop, reason in ((-2, 0, None), (-1, 0, "stop"), (-1, 1, None), (1, 2, None)):
            at = max(0, have + start)
            ids = right_ids(0, at, have + stop)
            self.write(grant, [Delta(0, 0, at, ids, "text", reason)])
            self.write(grant, [Delta(0, 0, at, (*ids[:-1], 7), "text")])
            have = len(self.model.records[grant.job_id].choices[0])
        for epoch_off in (0, 1):
            self.forge(grant, epoch_off)

    # -- shifts

    @rule(worker=workers, lengths=st.lists(st.sampled_from([1, 7, 16, 24, 200]), max_size=3), digest=digests)
    def work(self, worker: str, lengths: list[int], digest: str) -> None:
        """What a worker does all day: takes what is there, writes what it can, hands in what has ended."""
        self.claim_all(worker, digest)
        for length in lengths:
            for record in self.model.held_by(worker):
                assert record.grant is not None
                self.finish(record.grant) if record.is_said else self.get_on(record.grant, length)

    @rule(worker=workers, length=st.sampled_from([0, 5, 15, 16]), times=st.sampled_from([1, 2, 3, 12]), died=lately)
    def die_at_work(self, worker: str, length: int, times: int, died: bool) -> None:
        for _ in range(times):
            self.work(worker, [length] if length else [], "d1")
            self.reap(worker, died)

    @rule(worker=workers, times=st.integers(1, 4))
    def err_at_work(self, worker: str, times: int) -> None:
        for _ in range(times):
            self.work(worker, [1], "d2")
            for record in self.model.held_by(worker):
                assert record.grant is not None
                self.retry(record.grant, 1000)
            self.pass_time(1)
            self.reap()

    @rule(
        worker=workers,
        kv_tokens=st.sampled_from([1000, 120, 60]),
        capacity=st.sampled_from([1000] * 4 + [70]),
        max_jobs=st.sampled_from([1, 2, 4, 8]),
        revision=revisions,
        digest=digests,
        lanes=st.sampled_from([LANES, LANES, LANES[:1]]),
        says_held=seldom,
        again=seldom,
    )
    def claim_some(
        self,
        worker: str,
        kv_tokens: int,
        capacity: int,
        max_jobs: int,
        revision: str,
        digest: str,
        lanes: tuple[str, ...],
        says_held: bool,
        again: bool,
    ) -> None:
        room = min(kv_tokens, capacity)
        request = ClaimRequest(lanes, worker, revision, digest, room, capacity, max_jobs, int(says_held))
        self.claim(request, again=again)

    # -- single verbs, by whoever holds a lease or has held one

    @somebody_is_at_work
    @rule(pick=picks, length=st.integers(1, 20), choices=st.sampled_from([(0, 1), (0,), (1,), (1, 0)]), stops=seldom)
    def get_on_somewhere(self, pick: Pick, length: int, choices: tuple[int, ...], stops: bool) -> None:
        self.get_on(self.picked(pick), length, choices, "stop" if stops else None)

    @something_was_claimed
    @rule(
        pick=picks,
        shifts=st.lists(st.tuples(st.integers(-8, 3), st.integers(0, 10)), min_size=1, max_size=3),
        choice=st.sampled_from([0, 0, 0, 1]),
        wrong=seldom,
        reason=st.sampled_from([None, None, None, "length", "stop"]),
        again=seldom,
    )
    def write_near_the_end(
        self, pick: Pick, shifts: list[tuple[int, int]], choice: int, wrong: bool, reason: str | None, again: bool
    ) -> None:
        """Repeats, gaps, straddles, contradictions, ends that are said twice or otherwise; `choice` may not exist. Some
        who may write do it besides, since there is most to get wrong here."""
        for grant in [self.picked(pick), *self.living()[:2]]:
            record = self.record_of(grant)
            have = len(record.choices[choice]) if record and choice < len(record.choices) else 0
            deltas = []
            for shift, length in shifts:
                offset = max(0, have + shift)
                ids = right_ids(choice, offset, offset + length)
                deltas.append(Delta(0, choice, offset, (*ids[:-1], 7) if wrong and ids else ids, "text", reason))
                have = max(have, offset + length)
            self.write(grant, deltas, again)

    @something_was_claimed
    @rule(worker=workers, pick=picks, gives_back=seldom)
    def renew_one(self, worker: str, pick: Pick, gives_back: bool) -> None:
        """Anybody's; now and then all that the server names besides goes back, as after a claim without an answer."""
        mine = self.picked(pick)
        self.renew(worker, [mine])
        for record in self.model.held_by(worker) if gives_back else ():
            if record.grant and record.grant != mine:
                self.release(record.grant)

    @rule(worker=workers)
    def renew_all(self, worker: str) -> None:
        self.renew(worker, [record.grant for record in self.model.held_by(worker) if record.grant], again=True)

    @something_was_claimed
    @rule(pick=picks, in_ms=st.sampled_from([1000, 4000]), again=seldom)
    def retry_one(self, pick: Pick, in_ms: int, again: bool) -> None:
        self.retry(self.picked(pick), in_ms, again)

    @something_was_claimed
    @rule(pick=picks, short=seldom, cached=st.integers(0, 3), again=st.booleans())
    def finish_one(self, pick: Pick, short: bool, cached: int, again: bool) -> None:
        self.finish(self.picked(pick), short, cached, again)

    @something_was_claimed
    @rule(pick=picks, fails=st.booleans(), again=seldom)
    def leave_one(self, pick: Pick, fails: bool, again: bool) -> None:
        (self.fail if fails else self.release)(self.picked(pick), again)

    @somebody_is_at_work
    @rule(pick=picks, epoch_off=st.sampled_from([0, 1, -1]))
    def lie(self, pick: Pick, epoch_off: int) -> None:
        self.forge(self.picked(pick), epoch_off)

    # -- sweepers, beats, time

    @rule(again=seldom)
    def tick(self, again: bool) -> None:
        self.reap(again=again)

    @rule(worker=workers, died=lately, again=seldom)
    def see_die(self, worker: str, died: bool, again: bool) -> None:
        self.reap(worker, died, again)

    @rule(worker=workers, beats=st.booleans())
    def beat(self, worker: str, beats: bool) -> None:
        (self.model.beating.add if beats else self.model.beating.discard)(worker)
        for bench in self.sides.values():
            (bench.beat if beats else bench.lose_beat)(worker)

    @rule(seconds=st.sampled_from([1, 1, 1, 2, 4, 10, 11, 30]))
    def turn(self, seconds: int) -> None:
        self.pass_time(seconds)

    @rule(times=st.sampled_from([1, 3, 6]))
    def turn_with_ticks(self, times: int) -> None:
        """Time passes while the store is up and somebody sweeps."""
        for _ in range(times):
            self.pass_time(5)
            self.reap()

    @rule()
    def forget_scripts(self) -> None:
        for bench in self.redis_benches():
            bench.client.script_flush()
