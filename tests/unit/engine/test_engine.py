"""The engine's border on a tiny model: what it takes, how requests end, go on elsewhere and are told about."""

from dataclasses import replace
from pathlib import Path

import pytest

from engine import (
    Completion,
    Engine,
    EngineConfig,
    EngineConfigError,
    EngineRequestError,
    ModelFileError,
    RequestOutput,
    Resume,
    SamplingParams,
)
from tests.tiny_model import IM_END, VOCAB_SIZE
from tests.unit.engine.tiny_engine import PARAMS, PROMPT, SAMPLED, Clock, build, run, tokens_of


@pytest.fixture(scope="module")
def engine(tiny: Path) -> Engine:
    """Shared; each test leaves it idle."""
    return build(tiny)


def refused(engine: Engine, prompt: tuple[int, ...], params: SamplingParams, resume: Resume | None = None) -> str:
    """The code of the refusal; nothing was taken."""
    with pytest.raises(EngineRequestError) as caught:
        engine.add_request("refused", prompt, params, resume)
    assert not engine.has_unfinished
    engine.check_integrity()
    return caught.value.code


def test_what_cannot_be_run_is_refused_and_nothing_taken(engine: Engine) -> None:
    assert refused(engine, (), PARAMS) == "invalid_request"
    assert refused(engine, (VOCAB_SIZE,), PARAMS) == "invalid_request"
    assert refused(engine, (-1,), PARAMS) == "invalid_request"
    assert refused(engine, PROMPT, PARAMS, Resume((VOCAB_SIZE,))) == "invalid_request"
    assert refused(engine, PROMPT, replace(PARAMS, stop_token_ids=(VOCAB_SIZE,))) == "invalid_request"
    assert refused(engine, PROMPT, replace(PARAMS, max_tokens=0)) == "invalid_request"
    assert refused(engine, PROMPT, PARAMS, Resume((1,) * 9)) == "invalid_request"


def test_what_does_not_fit_is_refused_with_its_code(tiny: Path, engine: Engine) -> None:
    assert engine.max_context == 512
    assert refused(engine, (1,) * 505, PARAMS) == "context_length_exceeded"
    small = build(tiny, num_pages=2)
    assert small.max_context == 32
    assert refused(small, (1,) * 25, PARAMS) == "context_length_exceeded"
    small.add_request("fits", (1,) * 24, PARAMS)
    assert len(tokens_of(run(small), "fits")) == 8
    assert small.would_fit(32)
    assert not small.would_fit(33)


def test_a_name_is_used_once_at_a_time(engine: Engine) -> None:
    engine.add_request("a", PROMPT, PARAMS)
    with pytest.raises(EngineRequestError, match="'a'"):
        engine.add_request("a", PROMPT, PARAMS)
    first = tokens_of(run(engine), "a")
    engine.add_request("a", PROMPT, PARAMS)
    assert tokens_of(run(engine), "a") == first


def test_outputs_number_their_tokens_and_end_once(engine: Engine) -> None:
    engine.add_request("a", PROMPT, PARAMS)
    outputs = run(engine)
    assert [output.offset for output in outputs] == list(range(8))
    assert [output.finish_reason for output in outputs] == [None] * 7 + ["length"]


def test_the_stop_token_is_shown_and_ends_the_request(engine: Engine) -> None:
    plain = engine.generate([PROMPT], PARAMS)[0]
    stop = plain.token_ids[3]
    assert stop not in plain.token_ids[:3]
    stopped = engine.generate([PROMPT], replace(PARAMS, stop_token_ids=(stop,)))[0]
    assert stopped == Completion(plain.token_ids[:4], "stop")
    held = engine.generate([PROMPT], replace(PARAMS, stop_token_ids=(stop,), min_tokens=8))[0]
    assert len(held.token_ids) == 8
    assert held.token_ids[:3] == plain.token_ids[:3]
    assert stop not in held.token_ids[:7]


def test_the_models_own_end_ends_it_unless_ignored(engine: Engine) -> None:
    wanting = replace(PARAMS, logit_bias={IM_END: 1000.0})
    assert engine.generate([PROMPT], replace(wanting, ignore_eos=False)) == [Completion((IM_END,), "stop")]
    assert engine.generate([PROMPT], wanting) == [Completion((IM_END,) * 8, "length")]


@pytest.mark.parametrize("params", [PARAMS, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("shown", [0, 1, 7])
def test_a_resumed_request_goes_on_where_it_stopped(engine: Engine, params: SamplingParams, shown: int) -> None:
    whole = engine.generate([PROMPT], params)[0].token_ids
    engine.add_request("r", PROMPT, params, Resume(whole[:shown]))
    outputs = run(engine)
    assert outputs[0].offset == shown
    assert whole[:shown] + tokens_of(outputs, "r") == whole


@pytest.mark.parametrize(
    ("shown", "reason"), [((1,) * 8, "length"), ((1, 2, IM_END), "stop"), ((1,) * 7 + (IM_END,), "stop")]
)
def test_what_was_shown_whole_ends_with_no_further_token(engine: Engine, shown: tuple[int, ...], reason: str) -> None:
    engine.add_request("done", PROMPT, replace(PARAMS, ignore_eos=False), Resume(shown))
    assert run(engine) == [RequestOutput("done", len(shown), (), finish_reason=reason)]


def test_abort_gives_pages_back_and_names_what_is_gone(engine: Engine) -> None:
    total = engine.budget().total_tokens
    engine.add_request("a", PROMPT, PARAMS)
    engine.step()
    assert engine.budget().free_tokens == total - 32
    assert engine.abort("a")
    assert not engine.abort("a")
    assert engine.budget().free_tokens == total
    assert not engine.has_unfinished
    assert engine.snapshot("a") is None
    engine.check_integrity()


def test_an_aborted_neighbour_changes_nobody(engine: Engine) -> None:
    alone = engine.generate([PROMPT], SAMPLED)[0].token_ids
    engine.add_request("stays", PROMPT, SAMPLED)
    engine.add_request("goes", PROMPT[::-1], SAMPLED)
    outputs = list(engine.step().outputs)
    engine.abort("goes")
    assert tokens_of(outputs + run(engine), "stays") == alone


def test_drain_hands_everything_over(tiny: Path, engine: Engine) -> None:
    prompts = {"running": PROMPT, "waiting": PROMPT[:5]}
    expected = {name: engine.generate([prompt], SAMPLED)[0].token_ids for name, prompt in prompts.items()}
    draining = build(tiny, max_num_seqs=1)
    for name, prompt in prompts.items():
        draining.add_request(name, prompt, SAMPLED)
    for _ in range(7):
        draining.step()
    before = draining.snapshot("running")
    snapshots = draining.drain()
    assert {snapshot.request_id: len(snapshot.token_ids) for snapshot in snapshots} == {"running": 7, "waiting": 0}
    assert before in snapshots
    draining.check_integrity()
    assert not draining.has_unfinished
    assert draining.budget().free_tokens == draining.budget().total_tokens
    with pytest.raises(EngineRequestError) as caught:
        draining.add_request("late", PROMPT, PARAMS)
    assert (caught.value.code, caught.value.retryable) == ("draining", True)
    for snapshot in snapshots:
        name = snapshot.request_id
        engine.add_request(name, prompts[name], SAMPLED, Resume(snapshot.token_ids))
    outputs = run(engine)
    for snapshot in snapshots:
        assert snapshot.token_ids + tokens_of(outputs, snapshot.request_id) == expected[snapshot.request_id]


def test_a_near_deadline_comes_first(tiny: Path) -> None:
    clock = Clock()
    engine = build(tiny, clock, max_num_seqs=1)
    engine.add_request("plain", PROMPT, PARAMS)
    engine.add_request("urgent", PROMPT, PARAMS, deadline=clock.now + 5.0)
    assert engine.step().stats.scheduled == ("urgent",)
    for name in ("plain", "urgent"):
        engine.abort(name)


@pytest.mark.parametrize("params", [PARAMS, SAMPLED, replace(SAMPLED, logprobs=3, prompt_logprobs=2)])
def test_a_known_beginning_gives_the_same_tokens_and_less_work(tiny: Path, params: SamplingParams) -> None:
    prompts = [PROMPT * 3, PROMPT * 3 + (1, 2), PROMPT[:16], PROMPT * 3]
    cold, warm = build(tiny, prefix_cache=False), build(tiny)
    expected = [cold.generate([prompt], params)[0] for prompt in prompts]
    computed = []
    for prompt, wanted in zip(prompts, expected, strict=True):
        warm.add_request("a", prompt, params)
        outputs: list[RequestOutput] = []
        rows = 0
        while warm.has_unfinished:
            step = warm.step()
            outputs += step.outputs
            rows += step.stats.prefill_tokens
            warm.check_integrity()
        assert tokens_of(outputs, "a") == wanted.token_ids
        assert tuple(entry for output in outputs for entry in output.logprobs) == wanted.logprobs
        assert outputs[0].prompt_logprobs == wanted.prompt_logprobs
        assert {output.cached_tokens for output in outputs} == {len(prompt) - rows}
        computed.append(rows)
    explains = params.prompt_logprobs is not None
    assert computed == ([60, 62, 16, 60] if explains else [60, 62 - 48, 16, 60 - 48])


def test_two_engines_in_turn_on_one_model(tiny: Path, engine: Engine) -> None:
    first = build(tiny)
    expected = engine.generate([PROMPT], SAMPLED)
    assert first.generate([PROMPT], SAMPLED) == expected
    config = EngineConfig(tiny, device="cpu", num_pages=4, max_batched_tokens=7, step_seconds=None)
    second = Engine(config, loaded=first._loaded)
    assert second.budget().total_tokens == 64
    assert second.generate([PROMPT], SAMPLED) == expected


def test_stats_count_preemptions_and_tokens_stay_the_same(tiny: Path, engine: Engine) -> None:
    prompts = [PROMPT[:3], PROMPT[3:6], PROMPT[6:9]]
    expected = [engine.generate([prompt], SAMPLED)[0].token_ids for prompt in prompts]
    tight = build(tiny, num_pages=9, page_size=4)
    for number, prompt in enumerate(prompts):
        tight.add_request(str(number), prompt, SAMPLED)
    outputs: list[RequestOutput] = []
    preemptions = 0
    while tight.has_unfinished:
        step = tight.step()
        outputs += step.outputs
        preemptions += step.stats.preemptions
        tight.check_integrity()
    assert preemptions > 0
    assert [tokens_of(outputs, str(number)) for number in range(3)] == expected


def test_generate_keeps_the_order_of_its_prompts(engine: Engine) -> None:
    prompts = [PROMPT, PROMPT[:1], PROMPT[4:9]]
    params = [replace(PARAMS, max_tokens=length) for length in (2, 9, 5)]
    together = engine.generate(prompts, params)
    assert [len(completion.token_ids) for completion in together] == [2, 9, 5]
    assert together == [engine.generate([prompt], own)[0] for prompt, own in zip(prompts, params, strict=True)]
    assert engine.generate([], PARAMS) == []


def test_digest_names_policy_and_file(tiny: Path, engine: Engine) -> None:
    reference = Engine(EngineConfig(tiny, device="cpu", num_pages=4, numerics="reference"))
    assert build(tiny, num_pages=4).digest == engine.digest != reference.digest
    assert engine.description.revision == reference.description.revision


@pytest.mark.parametrize("page_size", [1, 2, 8, 64, 128])
def test_any_page_size_gives_the_same_tokens(tiny: Path, engine: Engine, page_size: int) -> None:
    other = build(tiny, page_size=page_size, num_pages=-(-512 // page_size), max_batched_tokens=7)
    assert other.generate([PROMPT * 5], SAMPLED) == engine.generate([PROMPT * 5], SAMPLED)


def test_a_page_size_that_does_not_divide_a_chunk_of_keys_is_refused(tiny: Path) -> None:
    with pytest.raises(EngineConfigError, match="page_size"):
        build(tiny, page_size=24)


def test_what_is_not_there_is_said(tiny: Path) -> None:
    with pytest.raises(ModelFileError) as missing:
        build(tiny.parent / "none.gguf")
    assert missing.value.code == "model_file_missing"
    with pytest.raises(EngineConfigError, match="numerics"):
        Engine(EngineConfig(tiny, device="cpu", numerics="half"))
