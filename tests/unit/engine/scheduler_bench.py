"""A scheduler with a runner that only counts: asked for a step, it says who got which rows. Knows no model."""

from collections.abc import Sequence
from dataclasses import replace

from engine.block_pool import BlockPool
from engine.outcome import RequestFailure, RequestOutput
from engine.prefix_cache import PrefixCache
from engine.request import Request, SamplingParams, due_at
from engine.scheduler import Scheduler
from engine.step_plan import SchedulePlan, StepResult
from engine.step_room import StepLimits

TOKEN = 7
PAGE = 4


class Bench:
    """A scheduler and what it has been told; every sampling chunk gets the same token."""

    def __init__(
        self, pages: int = 100, batched: int = 16, seqs: int = 8, keys: int = 1 << 20, cache: bool = False
    ) -> None:
        self.cache = PrefixCache(BlockPool(pages), enabled=cache)
        self.scheduler = Scheduler(self.cache, pages, PAGE, seqs)
        self.limits = StepLimits(batched, keys)
        self.now = 1000.0
        self.arrivals = 0

    def add(
        self,
        name: str,
        prompt: int | Sequence[int],
        max_tokens: int = 8,
        priority: int = 0,
        resumed: int = 0,
        deadline: float | None = None,
        params: SamplingParams | None = None,
    ) -> Request:
        """`prompt`: its ids, or how many of them; `deadline`: in so many seconds."""
        ids = [1] * prompt if isinstance(prompt, int) else list(prompt)
        due = due_at(self.now, priority, None if deadline is None else self.now + deadline)
        own = params or SamplingParams(max_tokens=max_tokens)
        request = Request(name, own, [*ids, *[1] * resumed], len(ids), due, self.arrivals, frozenset())
        self.arrivals += 1
        self.scheduler.add(request)
        return request

    def step(self, failing: Sequence[str] = ()) -> tuple[SchedulePlan, tuple[RequestOutput, ...]]:
        plan = self.scheduler.schedule(self.limits)
        failures = {name: RequestFailure("engine_error", "as asked") for name in failing}
        outputs = self.scheduler.update(plan, replace(self.result(plan), failures=failures))
        self.scheduler.check_integrity()
        return plan, outputs

    def result(self, plan: SchedulePlan) -> StepResult:
        return StepResult({chunk.request.id: TOKEN for chunk in plan.chunks if chunk.samples}, {})

    def plan(self) -> dict[str, tuple[int, int]]:
        """One step: name -> rows from, to."""
        return {chunk.request.id: (chunk.start, chunk.end) for chunk in self.step()[0].chunks}
