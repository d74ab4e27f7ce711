"""Who gives way when pages run out, and what it keeps: its output, its turn, what it computed."""

from dataclasses import replace

from engine.outcome import RequestFailure, RequestOutput
from tests.unit.engine.scheduler_bench import PAGE, TOKEN, Bench


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
