"""The scheduler with a runner that only counts: how prompts are cut into steps, how requests end, and that all do."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.outcome import RequestOutput
from engine.step_plan import StepResult
from tests.unit.engine.scheduler_bench import PAGE, TOKEN, Bench


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


def test_computing_anew_is_no_decode() -> None:
    bench = Bench(batched=1)
    bench.add("a", 2, resumed=2)
    seen = [chunk.decodes for _ in range(5) for chunk in bench.step()[0].chunks]
    assert seen == [False, False, False, True, True]


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
