"""Days of a fleet: whole shifts of workers that get on, die or err; sweepers; time. The rest is said by its bases."""

from typing import Any

import hypothesis.strategies as st
from hypothesis.stateful import rule

from tests.stateful.ground import LANES, TOKENS, WORKERS, lately, seldom
from tests.stateful.workers import Workers, digests


class AnyOrder(Workers):
    """Clients, workers, sweepers and accidents in any order."""

    @rule(
        target=Workers.grants,
        worker=st.sampled_from(WORKERS),
        lengths=st.lists(st.integers(1, TOKENS), max_size=3),
        digest=digests,
    )
    def work(self, worker: str, lengths: list[int], digest: str) -> Any:
        """What a worker does all day: takes what is there, writes what it can, hands in what has ended."""
        new = self.claim(worker, 1000, 1000, 4, "r1", digest, LANES, False, False)
        for length in lengths:
            for record in self.model.held_by(worker):
                assert record.grant is not None
                if record.is_said:
                    self.finish(record.grant, True, False, 0, False)
                else:
                    self.get_on(record.grant, True, length, (0, 1), False, False)
        return new

    @rule(worker=st.sampled_from(WORKERS), length=st.integers(0, 17), times=st.integers(1, 3), died=lately)
    def die_at_work(self, worker: str, length: int, times: int, died: bool) -> None:
        for _ in range(times):
            self.work(worker, [length] if length else [], "d1")
            self.see_die(worker, died, False)

    @rule(worker=st.sampled_from(WORKERS), times=st.integers(1, 4))
    def err_at_work(self, worker: str, times: int) -> None:
        for _ in range(times):
            self.work(worker, [1], "d2")
            for record in self.model.held_by(worker):
                assert record.grant is not None
                self.retry(record.grant, True, 500, False)
            self.pass_time(1)
            self.tick(False)

    @rule(again=seldom)
    def tick(self, again: bool) -> None:
        self.say_reap("", False, again)

    @rule(worker=st.sampled_from(WORKERS), died=lately, again=seldom)
    def see_die(self, worker: str, died: bool, again: bool) -> None:
        self.say_reap(worker, died, again)

    @rule(worker=st.sampled_from(WORKERS), beats=st.booleans())
    def beat(self, worker: str, beats: bool) -> None:
        (self.model.beating.add if beats else self.model.beating.discard)(worker)
        for bench in self.sides.values():
            (bench.beat if beats else bench.lose_beat)(worker)

    @rule(seconds=st.sampled_from([1, 1, 1, 3, 4, 11, 31]))
    def turn(self, seconds: int) -> None:
        self.pass_time(seconds)

    @rule(seconds=st.sampled_from([4, 12, 24]))
    def turn_with_ticks(self, seconds: int) -> None:
        """Time passes while the store is up and somebody sweeps."""
        for _ in range(seconds // 4):
            self.pass_time(4)
            self.tick(False)

    @rule()
    def forget_scripts(self) -> None:
        for bench in self.redis_benches():
            bench.client.script_flush()
