"""What was computed once is found again: by whom, by whom not, and who waits for it."""

from engine.request import SamplingParams
from tests.unit.engine.scheduler_bench import Bench


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


def test_without_a_cache_nothing_is_found() -> None:
    bench = Bench(cache=False)
    for name in "ab":
        bench.add(name, range(12), max_tokens=1)
        assert bench.plan() == {name: (0, 12)}
    assert bench.cache.idle == 0
