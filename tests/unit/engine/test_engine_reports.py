"""What an engine tells of itself: its budget, its health, the figures of a step."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from engine import Engine, EngineConfig, EngineConfigError, EngineStepError
from engine.batch import Batch
from engine.step_plan import SchedulePlan
from tests.unit.engine.tiny_engine import PARAMS, PROMPT, SAMPLED, Clock, build, run


def test_budget_counts_pages_and_places(tiny: Path) -> None:
    engine = build(tiny, num_pages=10, page_size=8, max_num_seqs=2)
    budget = engine.budget()
    assert (budget.total_tokens, budget.free_tokens, budget.free_seqs) == (80, 80, 2)
    engine.add_request("a", (1,) * 17, PARAMS)
    engine.step()
    budget = engine.budget()
    assert (budget.total_tokens, budget.free_tokens, budget.free_seqs) == (80, 56, 1)
    engine.add_request("b", (1,), PARAMS)
    engine.add_request("c", (1,), PARAMS)
    assert engine.budget().free_seqs == 0
    assert engine.budget().free_tokens == 56 - 2 * 8, "those who wait have been promised pages too"
    run(engine)
    assert engine.budget().free_tokens == 80


def test_pages_come_from_a_budget_of_bytes(tiny: Path) -> None:
    engine = Engine(EngineConfig(tiny, device="cpu", kv_budget_bytes=1 << 20))
    per_token = 2 * 2 * 2 * (64 + 4)  # layers, keys and values, heads, int8 of padded ones and a scale
    assert engine.budget().total_tokens == (1 << 20) // (per_token * 16) * 16
    with pytest.raises(EngineConfigError, match="page"):
        Engine(EngineConfig(tiny, device="cpu", kv_budget_bytes=100))


def test_health_tells_the_age_of_the_last_step_and_who_is_stuck(tiny: Path) -> None:
    clock = Clock()
    engine = build(tiny, clock, max_num_seqs=1)
    assert engine.health().step_age_s is None
    engine.add_request("runs", PROMPT, SAMPLED)
    engine.add_request("waits", PROMPT, SAMPLED)
    engine.step()
    clock.now += 29.0
    engine.step()
    assert engine.health().stuck == ()
    clock.now += 2.0
    health = engine.health()
    assert (health.step_age_s, health.running, health.waiting, health.stuck) == (2.0, 1, 1, ("waits",))
    assert health.step_running_s is None
    engine.abort("waits")
    assert engine.health().stuck == ()


def test_health_tells_of_a_step_under_way(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked while the model computes, as another thread would."""
    clock = Clock()
    engine = build(tiny, clock)
    model, seen = engine._loaded.model, []

    def forward(batch: Batch) -> NDArray[np.float32]:
        clock.now += 31.0
        seen.append(engine.health())
        return type(model).forward(model, batch)

    monkeypatch.setattr(model, "forward", forward)
    engine.add_request("a", PROMPT, PARAMS)
    engine.step()
    engine.step()
    assert [(health.step_age_s, health.step_running_s, health.stuck) for health in seen] == [
        (None, 31.0, ("a",)),
        (31.0, 31.0, ("a",)),
    ]
    assert (engine.health().step_running_s, engine.health().stuck) == (None, ())
    engine.abort("a")


def test_a_step_that_fails_is_under_way_no_more(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = build(tiny)

    def launch(plan: SchedulePlan) -> None:
        raise RuntimeError("no kernel")

    monkeypatch.setattr(engine._runner, "launch", launch)
    engine.add_request("a", PROMPT, PARAMS)
    with pytest.raises(EngineStepError):
        engine.step()
    assert engine.health().step_running_s is None


def test_budget_takes_off_what_running_prompts_will_need(tiny: Path) -> None:
    engine = build(tiny, num_pages=10, page_size=8, max_batched_tokens=8)
    engine.add_request("long", range(40), PARAMS)
    engine.step()
    assert engine.stats is not None
    assert engine.stats.pages_used == 1
    assert engine.budget().free_tokens == 80 - 40
    engine.abort("long")
    assert engine.budget().free_tokens == 80
    assert engine.stats.pages == 10


def test_stats_tell_prefill_from_decode(tiny: Path) -> None:
    clock = Clock()
    engine = build(tiny, clock, max_batched_tokens=16, page_size=8)
    engine.add_request("a", (1,) * 20, PARAMS)
    first, second, third = (engine.step().stats for _ in range(3))
    assert (first.prefill_tokens, first.decode_rows, first.sampled_tokens) == (16, 0, 0)
    assert (second.prefill_tokens, second.decode_rows, second.sampled_tokens) == (4, 0, 1)
    assert (third.prefill_tokens, third.decode_rows, third.sampled_tokens) == (0, 1, 1)
    engine.add_request("b", (2,) * 20, PARAMS)
    fourth = engine.step().stats
    assert (fourth.prefill_tokens, fourth.decode_rows, fourth.scheduled) == (15, 1, ("a", "b"))
    assert (fourth.running, fourth.waiting, fourth.pages, fourth.pages_used) == (2, 0, 64, 3 + 2)
    assert (fourth.pages_cached, fourth.cached_tokens) == (0, 0)
    engine.abort("b")
    engine.add_request("c", (1,) * 20, PARAMS)
    fifth = engine.step().stats
    assert (fifth.prefill_tokens, fifth.decode_rows, fifth.cached_tokens) == (4, 1, 16)
    assert (fifth.pages_used, fifth.pages_cached) == (3 + 1, 1)  # one page of "b" was full, two of "a" are shared
    assert engine.stats is fifth
    assert fifth.seconds == 0.0
