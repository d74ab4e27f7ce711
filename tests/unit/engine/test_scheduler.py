"""The scheduler with a runner that only counts: who runs, in which order, who gives way, and that all end."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


def test_a_prompt_is_cut_at_the_budget_and_samples_at_its_end() -> None:
    bench = Bench(batched=10)
    bench.add("a", 25)
    seen = [bench.step() for _ in range(4)]
    assert [(c.start, c.end, c.samples, c.decodes) for plan, _ in seen for c in plan.chunks] == [
        (0, 10, False, False),
        (10, 20, False, False),
        (20, 25, True, False),
        (25, 26, True, True),
    ]
    assert [len(outputs) for _, outputs in seen] == [0, 0, 1, 1]
    assert [output.offset for _, outputs in seen for output in outputs] == [0, 1]


def test_chunks_shrink_as_a_prompt_grows_but_never_below_a_page() -> None:
    bench = Bench(batched=16, keys=400)
    bench.add("long", 120)
    chunks = [bench.plan()["long"] for _ in range(16)]
    assert chunks[0] == (0, 16)
    lengths = [end - start for start, end in chunks if end < 120]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[-1] == PAGE
    assert all(length * end <= 400 for length, (_, end) in zip(lengths, chunks, strict=False) if length > PAGE)


def test_decodes_go_on_beside_a_long_prompt() -> None:
    bench = Bench(batched=16, keys=100)
    bench.add("chat", 8, max_tokens=40)
    bench.plan()
    bench.add("long", 100)
    for _ in range(30):
        assert bench.plan()["chat"]
    assert bench.scheduler.get("long").computed >= 100, "a prompt starves behind decodes"  # type: ignore[union-attr]


def test_running_requests_come_before_waiting_ones() -> None:
    bench = Bench(batched=6)
    bench.add("a", 4)
    assert bench.plan() == {"a": (0, 4)}
    bench.add("b", 9)
    assert bench.plan() == {"a": (4, 5), "b": (0, 5)}
    assert bench.plan() == {"a": (5, 6), "b": (5, 9)}
    bench.add("c", 2)
    assert bench.plan() == {"a": (6, 7), "b": (9, 10), "c": (0, 2)}


def test_waiting_ones_come_by_priority_then_arrival() -> None:
    bench = Bench(seqs=1)
    for name, priority in (("late", 1), ("first", 0), ("second", 0), ("urgent", -1)):
        bench.add(name, 2, max_tokens=1, priority=priority)
    assert [list(bench.plan()) for _ in range(4)] == [["urgent"], ["first"], ["second"], ["late"]]


def test_no_more_run_at_once_than_allowed() -> None:
    bench = Bench(seqs=2)
    for name in "abc":
        bench.add(name, 2)
    bench.step()
    assert (bench.scheduler.running, bench.scheduler.waiting) == (2, 1)


@pytest.mark.parametrize(("pages", "running"), [(95, 2), (96, 1)])
def test_who_runs_keeps_room_to_grow(pages: int, running: int) -> None:
    """Of 100 pages "a" has three, and two stay free."""
    bench = Bench(pages=100)
    bench.add("a", 8)
    bench.step()
    bench.add("b", pages * PAGE)
    bench.step()
    assert bench.scheduler.running == running


def test_nobody_overtakes_the_first_in_line() -> None:
    bench = Bench(pages=4, batched=64)
    bench.add("a", 8)
    bench.step()
    bench.add("large", 12)
    bench.add("small", 1)
    while "a" in bench.scheduler:
        assert set(bench.plan()) == {"a"}
    assert set(bench.plan()) >= {"large"}


def test_the_youngest_gives_way_and_keeps_its_output_and_its_place() -> None:
    bench = Bench(pages=5, batched=64)
    bench.add("old", 8, max_tokens=12)
    young = bench.add("young", 8, max_tokens=12)
    bench.step()
    bench.add("later", 1, max_tokens=1)
    plans = [bench.step()[0]]
    while not plans[-1].preempted:
        plans.append(bench.step()[0])
    assert [chunk.request.id for chunk in plans[-1].chunks] == ["old"]
    assert (young.pages, young.computed) == ([], 0)
    kept = young.output()
    assert kept
    # It has its turn again before the one that arrived after it, and computes all it knew in one go.
    order: list[str] = []
    offsets: list[int] = []
    while bench.scheduler.running or bench.scheduler.waiting:
        plan, outputs = bench.step()
        order += [chunk.request.id for chunk in plan.chunks if chunk.start == 0]
        offsets += [output.offset for output in outputs if output.request_id == "young"]
    assert order == ["young", "later"]
    assert offsets == list(range(len(kept), 12))


def test_computing_anew_is_no_decode() -> None:
    bench = Bench(batched=1)
    bench.add("a", 2, resumed=2)
    seen = [chunk.decodes for _ in range(5) for chunk in bench.step()[0].chunks]
    assert seen == [False, False, False, True, True]


def test_a_request_gives_way_itself_when_it_is_the_youngest() -> None:
    bench = Bench(pages=4, batched=64)
    bench.add("old", 4, max_tokens=9)
    bench.add("young", 8, max_tokens=8)
    preempted = 0
    while bench.scheduler.running or bench.scheduler.waiting:
        plan, _ = bench.step()
        preempted += plan.preempted
        assert plan.chunks, "a step without work"
    assert preempted == 1


def test_a_lone_request_runs_in_a_pool_of_just_its_size() -> None:
    bench = Bench(pages=5, batched=3)
    bench.add("a", 12, max_tokens=8)
    for _ in range(4 + 7):
        assert bench.plan()
    assert "a" not in bench.scheduler
    assert bench.cache.available == 5


def test_what_has_ended_already_costs_no_row() -> None:
    bench = Bench()
    bench.add("done", 4, max_tokens=3, resumed=3)
    plan, outputs = bench.step()
    assert not plan.chunks
    assert [(o.request_id, o.offset, o.token_ids, o.finish_reason) for o in outputs] == [("done", 3, (), "length")]
    assert "done" not in bench.scheduler


def test_one_that_wants_no_token_is_computed_and_ends() -> None:
    bench = Bench(batched=3)
    bench.add("prompt", 5, max_tokens=0)
    seen = [bench.step() for _ in range(2)]
    assert [(c.start, c.end, c.samples) for plan, _ in seen for c in plan.chunks] == [(0, 3, False), (3, 5, False)]
    assert [len(outputs) for _, outputs in seen] == [0, 1]
    assert seen[-1][1] == (RequestOutput("prompt", 0, (), finish_reason="length"),)
    assert "prompt" not in bench.scheduler


def test_a_failure_ends_its_request_alone() -> None:
    bench = Bench()
    bench.add("bad", 4)
    bench.add("good", 4)
    _, outputs = bench.step(failing=["bad"])
    assert {output.request_id: (output.token_ids, output.error is None) for output in outputs} == {
        "bad": ((), False),
        "good": ((TOKEN,), True),
    }
    assert "bad" not in bench.scheduler
    assert "good" in bench.scheduler


def test_one_removed_during_the_step_gets_no_output() -> None:
    bench = Bench()
    bench.add("a", 4)
    plan = bench.scheduler.schedule(bench.limits)
    assert bench.scheduler.remove("a")
    again = bench.add("a", 4)
    assert bench.scheduler.update(plan, StepResult({"a": TOKEN}, {})) == ()
    assert again.output() == ()
    assert not bench.scheduler.remove("b")


def test_a_running_prompt_leaves_a_row_for_each_behind_it() -> None:
    bench = Bench(keys=40)
    bench.add("long", 60)
    bench.plan()
    bench.add("chat", 1, max_tokens=50)
    assert set(bench.plan()) == {"long", "chat"}
    bench.limits = StepLimits(16, 1 << 20)  # now the long prompt could have all
    for _ in range(3):
        seen = bench.plan()
        assert seen["long"][1] - seen["long"][0] == 15
        assert "chat" in seen


def test_a_large_request_gets_in_under_a_stream_of_small_ones() -> None:
    bench = Bench(pages=20, batched=64)
    bench.add("small 0", 6, max_tokens=4)
    bench.add("large", 70, max_tokens=4)
    for number in range(1, 60):
        bench.add(f"small {number}", 6, max_tokens=4)
        if "large" in bench.plan():
            break
    assert number < 10, "small ones are let past the large one"


@pytest.mark.parametrize("classes", [1, 3])
def test_a_low_class_gets_in_under_a_stream_of_high_ones(classes: int) -> None:
    """One class lower is worth 60 s of waiting, so that long it gives way and no longer."""
    bench = Bench(seqs=1)
    bench.add("low", 2, max_tokens=1, priority=classes)
    turns: list[str] = []
    while "low" not in turns:
        bench.add(f"high {bench.now}", 2, max_tokens=1)
        bench.now += 1.0
        turns += bench.plan()
    assert len(turns) == 60 * classes + 1


def test_a_near_deadline_comes_first_in_its_class_and_in_no_other() -> None:
    bench = Bench(seqs=1)
    bench.add("higher", 2, max_tokens=1, priority=-1)
    bench.add("plain", 2, max_tokens=1)
    bench.add("far", 2, max_tokens=1, deadline=600.0)
    bench.add("near", 2, max_tokens=1, deadline=30.0)
    bench.add("nearer", 2, max_tokens=1, deadline=10.0)
    assert [list(bench.plan()) for _ in range(5)] == [["higher"], ["nearer"], ["near"], ["plain"], ["far"]]


def test_what_was_computed_once_is_found_again() -> None:
    bench = Bench(cache=True)
    bench.add("first", range(10), max_tokens=1)
    bench.step()
    bench.add("second", range(10), max_tokens=1)
    bench.add("shorter", range(8), max_tokens=1)  # whole pages all of them, and its last token is computed anew
    bench.add("longer", range(14), max_tokens=1)
    bench.add("other", range(1, 11), max_tokens=1)
    plan, outputs = bench.step()
    assert [chunk.start for chunk in plan.chunks] == [8, 4, 8, 0]
    assert plan.cached_tokens == 8 + 4 + 8
    assert [output.cached_tokens for output in outputs] == [8, 4, 8]


def test_running_requests_share_pages() -> None:
    bench = Bench(cache=True, pages=10)
    bench.add("a", range(12))
    bench.step()
    b = bench.add("b", range(12))
    bench.step()
    a = bench.scheduler.get("a")
    assert a is not None
    assert a.pages[:3] == b.pages  # the third was computed twice, and one copy kept
    assert bench.cache.available == 10 - 4
    bench.scheduler.remove("a")
    bench.scheduler.check_integrity()
    assert bench.cache.available == 10 - 3


def test_two_that_computed_the_same_keep_one_copy() -> None:
    """Both were admitted before either had a full page."""
    bench = Bench(cache=True, batched=4)
    a = bench.add("a", range(3))
    b = bench.add("b", range(3))
    for _ in range(4):
        bench.step()
    assert a.pages[0] == b.pages[0]


def test_who_begins_like_a_prompt_under_way_waits_for_its_pages() -> None:
    bench = Bench(cache=True, batched=12)
    bench.add("a", range(21), max_tokens=1)
    bench.add("b", range(21), max_tokens=1)
    bench.add("c", range(30, 34), max_tokens=1)
    assert bench.plan() == {"a": (0, 12)}
    assert bench.plan() == {"a": (12, 21)}
    assert bench.plan() == {"b": (20, 21), "c": (0, 4)}


def test_a_preempted_request_finds_its_own_pages() -> None:
    bench = Bench(pages=6, batched=64, cache=True)
    bench.add("old", range(8), max_tokens=12)
    young = bench.add("young", range(20, 28), max_tokens=12)
    while not bench.step()[0].preempted:
        pass
    kept = len(young.ids)
    while not (chunks := [chunk for chunk in bench.step()[0].chunks if chunk.request is young]):
        pass
    assert PAGE <= chunks[0].start < kept


def test_kept_pages_go_before_anybody_is_preempted() -> None:
    bench = Bench(pages=8, batched=64, cache=True)
    bench.add("past", range(16), max_tokens=1)
    bench.step()
    assert bench.cache.idle == 4
    bench.add("a", range(30, 46), max_tokens=16)
    preempted = sum(bench.step()[0].preempted for _ in range(16))
    assert (preempted, bench.cache.available) == (0, 8)


def test_rows_that_explain_a_prompt_are_not_skipped() -> None:
    bench = Bench(cache=True, batched=64)
    bench.add("a", range(12), max_tokens=1)
    bench.step()
    bench.add("explained", range(12), params=SamplingParams(max_tokens=1, prompt_logprobs=0))
    assert bench.plan() == {"explained": (0, 12)}


def test_what_a_failed_request_left_is_found_by_nobody() -> None:
    """Nor is what others computed behind its pages; those that share them go on."""
    bench = Bench(cache=True)
    bench.add("a", range(12), max_tokens=8)
    bench.step()
    bench.add("bad", range(9), max_tokens=8)
    assert bench.step()[0].cached_tokens == 8
    bench.step(failing=["bad"])
    while "a" in bench.scheduler:
        bench.step()
    assert bench.cache.idle == 0
    bench.add("again", range(12), max_tokens=1)
    assert bench.plan() == {"again": (0, 12)}
    assert bench.cache.idle == 3


def test_one_that_gives_way_with_a_step_under_way_keeps_its_token() -> None:
    """The step's rows are gone with their pages, what it chose is good: it is shown, and may end the request."""
    bench = Bench(pages=4, batched=64)
    bench.add("old", 4, max_tokens=9)
    young = bench.add("young", 7, max_tokens=3)
    under_way = bench.scheduler.schedule(bench.limits)
    shown: list[RequestOutput] = []
    while not under_way.preempted:
        following = bench.scheduler.schedule(bench.limits)
        shown += bench.scheduler.update(under_way, bench.result(under_way))
        bench.scheduler.check_integrity()
        under_way = following
    assert (young.pages, young.output(), young.awaited) == ([], (TOKEN,) * 2, 0)
    assert [output.offset for output in shown if output.request_id == "young"] == [0, 1]
    assert bench.scheduler.waiting == 1


def test_what_fails_after_it_gave_way_is_found_by_nobody() -> None:
    bench = Bench(pages=4, batched=64, cache=True)
    bench.add("old", range(20, 24), max_tokens=9)
    young = bench.add("young", range(7), max_tokens=9)
    bench.step()
    first = bench.scheduler.schedule(bench.limits)
    while young.pages:
        second = bench.scheduler.schedule(bench.limits)
        failures = {} if young.pages else {"young": RequestFailure("engine_error", "late")}
        outputs = bench.scheduler.update(first, replace(bench.result(first), failures=failures))
        bench.scheduler.check_integrity()
        first = second
    assert [output.request_id for output in outputs if output.error] == ["young"]
    assert not bench.cache.find(young.chain)


def test_without_a_cache_nothing_is_found() -> None:
    bench = Bench(cache=False)
    for name in "ab":
        bench.add(name, range(12), max_tokens=1)
        assert bench.plan() == {name: (0, 12)}
    assert bench.cache.idle == 0


ARRIVALS = st.lists(
    st.tuples(st.integers(1, 24), st.integers(0, 16), st.integers(0, 30), st.integers(-1, 1), st.integers(0, 40)),
    min_size=1,
    max_size=12,
)


@given(ARRIVALS, st.integers(10, 24), st.integers(1, 20), st.integers(1, 6), st.booleans())
@settings(max_examples=150, deadline=None)
def test_everybody_ends_within_the_work_there_is(
    arrivals: list[tuple[int, int, int, int, int]], pages: int, batched: int, seqs: int, cache: bool
) -> None:
    """Budget, places and order hold at every step; the first in turn always moves, so nobody starves. Prompts are all
    alike, so with a cache they share what they can."""
    bench = Bench(pages, batched, seqs, cache=cache)
    shown = dict.fromkeys(map(str, range(len(arrivals))), 0)
    aborts = {str(number): at for number, (_, _, _, _, at) in enumerate(arrivals) if at % 4 == 0}
    steps = 0
    while steps <= 30 or bench.scheduler.running or bench.scheduler.waiting:
        for number, (prompt, tokens, at, priority, _) in enumerate(arrivals):
            if at == steps:
                bench.add(str(number), prompt, tokens, priority)
        for name, at in aborts.items():
            if at == steps:
                bench.scheduler.remove(name)
        was_running = [request.id for request in bench.scheduler._running]
        plan, outputs = bench.step()
        scheduled = [chunk.request.id for chunk in plan.chunks]
        assert sum(chunk.length for chunk in plan.chunks) <= batched
        assert bench.scheduler.running <= seqs
        assert scheduled[: len(was_running)] == was_running[: len(scheduled)], "not in order of admission"
        assert scheduled or not (bench.scheduler.running or bench.scheduler.waiting), "a step without work"
        for output in outputs:
            assert output.offset == shown[output.request_id]
            shown[output.request_id] += len(output.token_ids)
        steps += 1
        assert steps < 5000, "somebody starves"
    assert bench.cache.available == pages
    for number, (_, tokens, _, _, _) in enumerate(arrivals):
        assert shown[str(number)] == tokens or str(number) in aborts


@pytest.mark.parametrize("tokens", [1, 4, 5, 8, 9])
def test_pages_are_counted_by_whole_ones(tokens: int) -> None:
    assert Bench().scheduler.pages_for(tokens) == (tokens + 3) // 4
