"""The GPU's runner with plain torch for each kernel: the engine's promises, through buckets, seats and lists."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from engine import Completion, Engine, EngineConfig, Resume, SamplingParams
from engine.cuda_backend import filling
from engine.cuda_backend.runner import row_buckets
from engine.errors import EngineStepError
from engine.request import Request
from engine.step_plan import ScheduledChunk, SchedulePlan
from tests.tiny_model import VOCAB_SIZE
from tests.unit.engine.cuda_backend.twin import config, engine, loaded, runner

GREEDY = SamplingParams(max_tokens=8, temperature=0.0, ignore_eos=True)
SAMPLED = SamplingParams(
    max_tokens=8, temperature=0.8, top_p=0.9, seed=3, repetition_penalty=1.2, frequency_penalty=0.3, ignore_eos=True
)
PROMPTS = (tuple(range(5, 15)), (40, 41, 42), (7,) * 20, (1,), tuple(range(90, 190)))


def portable(path: Path) -> Engine:
    return Engine(EngineConfig(model=path, device="cpu", backend="torch", num_pages=24))


def outcome(some: Engine, prompts: Sequence[Sequence[int]], params: SamplingParams) -> list[Completion]:
    found = some.generate([list(prompt) for prompt in prompts], params)
    some.check_integrity()
    return found


@pytest.mark.parametrize("params", [GREEDY, SAMPLED])
def test_tokens_are_those_of_the_portable_backend(tiny: Path, params: SamplingParams) -> None:
    """Here they are; its attention rounds queries more coarsely, so that two near tokens may come out otherwise."""
    assert outcome(engine(tiny), PROMPTS, params) == outcome(portable(tiny), PROMPTS, params)


def test_any_schedule_gives_the_tokens_of_a_request_alone(tiny: Path) -> None:
    params = replace(SAMPLED, logprobs=3)
    alone = [outcome(engine(tiny), [prompt], params)[0] for prompt in PROMPTS]
    assert outcome(engine(tiny), PROMPTS, params) == alone, "in company, padded to buckets"
    assert outcome(engine(tiny, max_batched_tokens=7), PROMPTS, params) == alone, "in small pieces"
    assert outcome(engine(tiny, max_num_seqs=2), PROMPTS, params) == alone, "two at a time"
    short = engine(tiny, num_pages=8)
    assert outcome(short, PROMPTS, params) == alone, "with pages for few"


def test_a_preempted_request_goes_on_from_what_it_had(tiny: Path) -> None:
    params, prompts = replace(SAMPLED, max_tokens=20), [(number, 9, 8) * 5 for number in range(3)]
    alone = [outcome(engine(tiny), [prompt], params)[0] for prompt in prompts]
    small = engine(tiny, num_pages=5, prefix_cache=False)
    for number, prompt in enumerate(prompts):
        small.add_request(str(number), prompt, params)
    tokens: dict[str, list[int]] = {str(number): [] for number in range(len(prompts))}
    preempted = 0
    while small.has_unfinished:
        step = small.step()
        preempted += step.stats.preemptions
        for output in step.outputs:
            tokens[output.request_id] += output.token_ids
    assert preempted
    assert [tuple(found) for found in tokens.values()] == [completion.token_ids for completion in alone]


def test_a_resumed_request_has_the_same_history(tiny: Path) -> None:
    whole = outcome(engine(tiny), PROMPTS[:1], SAMPLED)[0].token_ids
    second = engine(tiny)
    second.add_request("again", PROMPTS[0], SAMPLED, Resume(whole[:3]))
    found = [token for _ in range(5) for output in second.step().outputs for token in output.token_ids]
    assert tuple(found) == whole[3:]


def test_more_requests_than_seats_come_and_go(tiny: Path) -> None:
    prompts = [(number, number + 1) for number in range(9)]
    params = replace(SAMPLED, max_tokens=4)
    together = outcome(engine(tiny), prompts, params)
    assert together == [outcome(engine(tiny), [prompt], params)[0] for prompt in prompts]


def test_log_probabilities_are_the_hosts_to_float32(tiny: Path) -> None:
    params = replace(GREEDY, logprobs=4, prompt_logprobs=2)
    ours, theirs = outcome(engine(tiny), PROMPTS[:3], params), outcome(portable(tiny), PROMPTS[:3], params)
    for own, other in zip(ours, theirs, strict=True):
        assert len(own.logprobs) == 8
        # Attention's arithmetic is another, so only near: what is counted, by which ids, is the same.
        for mine, wanted in zip(own.logprobs, other.logprobs, strict=True):
            assert mine.logprob == pytest.approx(wanted.logprob, abs=0.2)
            assert mine.top[0][0] == wanted.top[0][0]
            assert len(mine.top) == 4
        assert own.prompt_logprobs[0] is None
        assert len(own.prompt_logprobs) == len(other.prompt_logprobs)


def test_what_is_barred_does_not_come_and_what_is_biased_does(tiny: Path) -> None:
    plain = outcome(engine(tiny), PROMPTS[:1], GREEDY)[0].token_ids
    alone = replace(GREEDY, bad_words=((plain[0],),))
    assert plain[0] not in outcome(engine(tiny), PROMPTS[:1], alone)[0].token_ids
    word = replace(GREEDY, bad_words=((plain[0], plain[1]),))
    found = outcome(engine(tiny), PROMPTS[:1], word)[0].token_ids
    assert found[0] == plain[0]
    assert found[1] != plain[1]
    biased = replace(GREEDY, logit_bias={17: 1000.0})
    assert set(outcome(engine(tiny), PROMPTS[:1], biased)[0].token_ids) == {17}


def test_more_biases_than_the_lists_hold_take_lists_of_their_own(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = replace(SAMPLED, logit_bias={token: 0.01 * token for token in range(200)}, bad_words=((3,), (4,)))
    wanted = outcome(engine(tiny), PROMPTS, params)
    monkeypatch.setattr(filling, "LISTED", 100)
    monkeypatch.setattr("engine.cuda_backend.runner.LISTED", 100)
    assert outcome(engine(tiny), PROMPTS, params) == wanted


def test_a_request_with_nothing_left_to_say_fails_alone(tiny: Path) -> None:
    barred = replace(GREEDY, bad_words=tuple((token,) for token in range(VOCAB_SIZE)))
    wanted = outcome(engine(tiny), PROMPTS[:1], GREEDY)[0].token_ids
    both = engine(tiny)
    both.add_request("barred", PROMPTS[1], barred)
    both.add_request("free", PROMPTS[0], GREEDY)
    outputs = [output for _ in range(9) for output in both.step().outputs]
    assert [output.error.code for output in outputs if output.error] == ["invalid_request"]
    assert tuple(token for output in outputs if output.request_id == "free" for token in output.token_ids) == wanted
    both.check_integrity()


def test_a_row_that_is_not_finite_fails_its_own_request(tiny: Path) -> None:
    knobs = config(tiny)
    broken = runner(tiny, knobs)
    broken._decoder._weights.embedding.scale[99] = float("nan")  # type: ignore[index]
    both = Engine(knobs, loaded=replace(loaded(tiny), model=broken))
    both.add_request("sick", (5, 99, 6), GREEDY)
    both.add_request("well", PROMPTS[1], GREEDY)
    outputs = [output for _ in range(9) for output in both.step().outputs]
    assert [(output.request_id, output.error.code) for output in outputs if output.error] == [("sick", "engine_error")]
    assert "not a finite number" in str(outputs[0].error or outputs[1].error)
    well = tuple(token for output in outputs if output.request_id == "well" for token in output.token_ids)
    assert well == outcome(engine(tiny), PROMPTS[1:2], GREEDY)[0].token_ids


def test_a_plan_that_is_too_large_is_a_failed_step(tiny: Path) -> None:
    wide = engine(tiny, max_batched_tokens=128, max_context=200)
    wide.add_request("long", [5] * 120, GREEDY)
    with pytest.raises(EngineStepError, match="load it with the engine's own config"):
        wide.step()


def test_buckets_are_powers_of_two_and_the_largest_batch() -> None:
    assert row_buckets(6) == (1, 2, 4, 6)
    assert row_buckets(8) == (1, 2, 4, 8)
    assert row_buckets(1) == (1,)


def test_warming_up_changes_nothing_that_a_request_could_see(tiny: Path) -> None:
    knobs = config(tiny, max_num_seqs=3, max_batched_tokens=16)
    warm = runner(tiny, knobs)
    warm.warm_up()
    some = Engine(knobs, loaded=replace(loaded(tiny), model=warm))
    assert outcome(some, PROMPTS[:4], SAMPLED) == outcome(engine(tiny), PROMPTS[:4], SAMPLED)


def test_the_next_step_begins_with_the_token_on_the_device(tiny: Path) -> None:
    """Whatever the host believes: a step may be launched before it has heard."""
    wanted = outcome(engine(tiny), PROMPTS[:1], GREEDY)[0].token_ids
    some = engine(tiny)
    found: list[int] = []
    some.add_request("a", PROMPTS[0], GREEDY)
    while some.has_unfinished:
        found += some.step().outputs[0].token_ids
        if (request := some._scheduler.get("a")) is not None:
            request.ids[-1] = 0
    assert tuple(found) == wanted


def test_two_steps_may_be_under_way(tiny: Path) -> None:
    knobs = config(tiny)
    device = runner(tiny, knobs)
    asked = request_of(PROMPTS[0])
    first = device.launch(SchedulePlan((ScheduledChunk(asked, 0, 10, True),), 0, ()))
    asked.awaited = 1
    second = device.launch(SchedulePlan((ScheduledChunk(asked, 10, 11, True),), 0, ()))
    tokens = first.result().tokens["a"], second.result().tokens["a"]
    assert tokens == outcome(engine(tiny), PROMPTS[:1], GREEDY)[0].token_ids[:2]


def request_of(prompt: Sequence[int]) -> Request:
    return Request("a", GREEDY, [*prompt], len(prompt), 0.0, 0, frozenset(), pages=[1])
