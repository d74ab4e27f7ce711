"""Steps planned before the last one's tokens are known: the same tokens as without, whatever ends, fails or gives way
meanwhile; on a device of paper, whose pages hold tokens."""

import random
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from engine import Engine, EngineConfig, EngineStepError, RequestOutput, SamplingParams
from engine.step_plan import SchedulePlan
from tests.unit.engine.any_schedule import AnySchedule, Report
from tests.unit.engine.paper_device import END, POISON, VOCABULARY, PaperDevice, load_on_paper

PROMPT = tuple(5 + number % 19 for number in range(10))
PARAMS = SamplingParams(max_tokens=6, temperature=0.0, ignore_eos=True)


def build(tiny: Path, *, ahead: bool = True, poison: bool = False, **knobs: int | bool) -> Engine:
    config = EngineConfig(tiny, page_size=4, num_pages=40, max_batched_tokens=24, max_num_seqs=6, step_seconds=None)
    config = replace(config, **knobs)  # type: ignore[arg-type]
    return Engine(config, loaded=load_on_paper(config, runs_ahead=ahead, poison=poison))


def device_of(engine: Engine) -> PaperDevice:
    assert isinstance(engine._loaded.model, PaperDevice)
    return engine._loaded.model


def run(engine: Engine) -> list[RequestOutput]:
    outputs: list[RequestOutput] = []
    while engine.has_unfinished:
        outputs += engine.step().outputs
        engine.check_integrity()
    assert engine.budget().free_tokens == engine.budget().total_tokens
    return outputs


def test_any_schedule_gives_the_tokens_of_a_request_alone_and_in_step(tiny: Path) -> None:
    """Solo runs hear of each step before the next."""
    devices: list[PaperDevice] = []

    def load(config: EngineConfig):  # type: ignore[no-untyped-def]
        loaded = load_on_paper(config)
        devices.append(loaded.model)  # type: ignore[arg-type]
        return loaded

    runs = AnySchedule(tiny, page_sizes=(4, 8, 16), load=load, load_alone=partial(load_on_paper, runs_ahead=False))
    total = Report()
    for number in range(30):
        report = runs.run(number)
        assert report.differing == 0, f"schedule {number}: {report}"
        total += report
    assert total.tokens > 1000, total
    assert total.preemptions > 3, total
    assert total.hits > 3, total
    assert sum(device.surplus for device in devices) > 3


def test_a_step_is_launched_before_the_last_one_is_heard_of(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    engine = build(tiny)
    device, launches = device_of(engine), iter(range(99))

    class Told:
        def __init__(self, number: int, plan: SchedulePlan) -> None:
            self.number, self.inner = number, PaperDevice.launch(device, plan)

        def result(self):  # type: ignore[no-untyped-def]
            said.append(f"result {self.number}")
            return self.inner.result()

    def launch(plan: SchedulePlan) -> Told:
        said.append(f"launch {(number := next(launches))}")
        return Told(number, plan)

    monkeypatch.setattr(device, "launch", launch)
    engine.add_request("a", PROMPT, replace(PARAMS, max_tokens=4))
    engine.step()
    assert said == ["launch 0", "launch 1", "result 0"]
    run(engine)
    # The fourth token is the last whatever it is, so there is nothing to launch behind it.
    assert said[3:] == ["launch 2", "result 1", "launch 3", "result 2", "result 3"]


def test_one_that_ends_early_has_a_row_too_many_which_nobody_hears_of(tiny: Path) -> None:
    engine, plain = build(tiny), build(tiny, ahead=False)
    whole = plain.generate([PROMPT], PARAMS)[0].token_ids
    stop = replace(PARAMS, stop_token_ids=(whole[2],))
    wanted = plain.generate([PROMPT], stop)[0]
    assert wanted.finish_reason == "stop"
    engine.add_request("a", PROMPT, stop)
    outputs: list[RequestOutput] = []
    while not (outputs and outputs[-1].finish_reason):
        outputs += engine.step().outputs
    assert tuple(token for output in outputs for token in output.token_ids) == wanted.token_ids
    assert engine.budget().free_tokens == engine.budget().total_tokens, "its pages are free at once"
    assert engine.has_unfinished, "a step with a row of it is under way"
    stats = engine.step().stats
    assert (stats.decode_rows, stats.sampled_tokens) == (1, 0)
    assert engine._steps.is_idle
    assert engine.step().outputs == ()
    assert device_of(engine).surplus == 1


def test_its_name_may_be_used_again_while_that_row_is_under_way(tiny: Path) -> None:
    engine, plain = build(tiny), build(tiny, ahead=False)
    first = replace(PARAMS, max_tokens=30)
    engine.add_request("a", PROMPT, first)
    for _ in range(3):
        engine.step()
    assert engine.abort("a")
    engine.add_request("a", PROMPT[::-1], PARAMS)
    tokens = tuple(token for output in run(engine) for token in output.token_ids)
    assert tokens == plain.generate([PROMPT[::-1]], PARAMS)[0].token_ids


def test_a_prompt_alike_waits_for_pages_that_are_under_way(tiny: Path) -> None:
    engine = build(tiny, max_num_seqs=2)
    engine.add_request("a", PROMPT, PARAMS)
    engine.add_request("b", PROMPT, PARAMS)
    stats = [engine.step().stats for _ in range(3)]
    assert [own.scheduled for own in stats] == [("a",), ("a",), ("a", "b")]
    assert stats[2].cached_tokens == 8


@pytest.mark.parametrize("params", [replace(PARAMS, bad_words=((1, 2),)), PARAMS], ids=["bad words", "none"])
def test_who_needs_the_value_of_the_last_token_waits_for_it(tiny: Path, params: SamplingParams) -> None:
    """Beside one that does not, which goes on at every step."""
    engine = build(tiny)
    engine.add_request("a", PROMPT, params)
    engine.add_request("b", PROMPT[::-1], replace(PARAMS, max_tokens=12))
    steps = [engine.step().stats.scheduled for _ in range(6)]
    assert ["a" in scheduled for scheduled in steps] == ([True, False] * 3 if params.bad_words else [True] * 6)
    assert all("b" in scheduled for scheduled in steps)
    run(engine)


def test_what_fails_has_a_row_under_way_too_and_leaves_nothing(tiny: Path) -> None:
    """Its pages may have gone to somebody else by then, and so may its turn."""
    plain = build(tiny, ahead=False)
    failures = stops = preemptions = 0
    for seed in range(40):
        dice = random.Random(seed)
        engine = build(tiny, poison=True, num_pages=dice.randint(9, 16), prefix_cache=dice.random() < 0.8)
        asked = {}
        for number in range(dice.randint(2, 9)):
            length = dice.randint(1, 12)
            prompt = PROMPT[:length] if dice.random() < 0.5 else tuple(dice.choices(range(5, VOCABULARY), k=length))
            params = SamplingParams(max_tokens=dice.randint(1, 20), seed=dice.randrange(3))
            asked[str(number)] = prompt, params
            engine.add_request(str(number), prompt, params)
        shown: dict[str, list[int]] = {name: [] for name in asked}
        failed = set()
        while engine.has_unfinished:
            step = engine.step()
            engine.check_integrity()
            preemptions += step.stats.preemptions
            for output in step.outputs:
                assert output.offset == len(shown[output.request_id])
                shown[output.request_id] += output.token_ids
                stops += output.finish_reason == "stop"
                if output.error:
                    failed.add(output.request_id)
        assert engine.budget().free_tokens == engine.budget().total_tokens
        for name, (prompt, params) in asked.items():
            wanted = plain.generate([prompt], params)[0].token_ids
            end = wanted.index(POISON) + 1 if POISON in wanted[:-1] else len(wanted)
            assert tuple(shown[name]) == wanted[:end], (seed, name)
            assert (name in failed) == (POISON in wanted[:-1])
        failures += len(failed)
    assert min(failures, stops, preemptions) > 20


def test_a_result_that_fails_is_a_failed_step(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = build(tiny)
    engine.add_request("a", PROMPT, PARAMS)

    def lost(wanted: object) -> None:
        raise RuntimeError("the device is gone")

    monkeypatch.setattr(device_of(engine), "carry_out", lost)
    with pytest.raises(EngineStepError, match="the device is gone"):
        engine.step()
    assert engine.health().step_running_s is None


def test_prompts_are_explained_and_alone_ones_end(tiny: Path) -> None:
    asks = [replace(PARAMS, prompt_logprobs=1, logprobs=0), SamplingParams(max_tokens=0, prompt_logprobs=0)]
    for params in asks:
        wanted = build(tiny, ahead=False).generate([PROMPT * 2], params)
        assert build(tiny, max_batched_tokens=3).generate([PROMPT * 2], params) == wanted


def test_min_tokens_are_counted_before_they_are_known(tiny: Path) -> None:
    params = [SamplingParams(max_tokens=30, min_tokens=least, seed=seed) for least in (3, 9) for seed in range(6)]
    ended = build(tiny, num_pages=200).generate([PROMPT] * len(params), params)
    for own, completion in zip(params, ended, strict=True):
        assert END not in completion.token_ids[: own.min_tokens - 1]
    assert ended == build(tiny, ahead=False, num_pages=200).generate([PROMPT] * len(params), params)
