"""The same, with accidents of the server: killed and restarted, or replaced by a replica that lags. On Redis alone."""

import copy
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
from hypothesis.stateful import precondition, rule

from headrace.store import keys
from tests.stateful.machine import AnyOrder
from tests.stateful.store_view import copy_store, put_back

rarely = st.sampled_from([False] * 15 + [True])


class AnyAccident(AnyOrder):
    """One queue, on Redis, whose server is killed and restarted, or comes back without what was written last."""

    restart: Callable[[], None]

    def __init__(self) -> None:
        super().__init__()
        self.copied: tuple[Any, Any] | None = None

    @rule(really=rarely)
    def kill_and_restart(self, really: bool) -> None:
        """Really, or by what shows of it: scripts are forgotten, and the run has another name."""
        [bench] = self.redis_benches()
        if really:
            type(self).restart()
            bench.client.ping()
        else:
            bench.client.script_flush()
            bench.client.hset(keys.REAP, "run_id", "0" * 40)
        self.model.forget_ticks()

    @rule()
    def replicate(self) -> None:
        [bench] = self.redis_benches()
        records = self.model.records, self.model.keys, self.model.averages
        ticks = self.model.last_tick, self.model.quiet_until, set(self.model.beating)
        self.copied = copy_store(bench.client), copy.deepcopy((records, ticks, self.revisions))

    @precondition(lambda self: self.copied is not None)
    @rule()
    def fail_over(self) -> None:
        """To a replica that has not heard of what came since: leases given since are void, though their epochs come
        again; those given before are good, and their workers say again what was lost."""
        [bench] = self.redis_benches()
        assert self.copied is not None
        store, model = self.copied
        put_back(bench.client, store)
        records, ticks, revisions = copy.deepcopy(model)
        self.model.records, self.model.keys, self.model.averages = records
        self.model.last_tick, self.model.quiet_until, self.model.beating = ticks
        self.revisions = revisions
        self.before.clear()
