"""Log probabilities at the engine's border: who gets them, when, and that nothing on the way changes a bit of them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine import Engine, EngineConfig, EngineRequestError, RequestOutput, Resume, SamplingParams, runner
from engine.sampler import Rows
from engine.torch_backend.decoder import Decoder
from tests.tiny_model import VOCAB_SIZE

PROMPT = tuple(range(40, 60))
GREEDY = SamplingParams(max_tokens=6, temperature=0.0, ignore_eos=True, logprobs=3, prompt_logprobs=2)
SAMPLED = SamplingParams(max_tokens=20, temperature=1.3, seed=5, ignore_eos=True, logprobs=0, prompt_logprobs=0)
PROMPT_ALONE = SamplingParams(max_tokens=0, prompt_logprobs=4)


def build(model: Path, **knobs: int) -> Engine:
    return Engine(replace(EngineConfig(model, device="cpu", backend="torch", num_pages=64), **knobs))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def engine(tiny: Path) -> Engine:
    """Shared; each test leaves it idle."""
    return build(tiny)


def run(engine: Engine, request_id: str) -> list[RequestOutput]:
    """Step until idle; the outputs of one request."""
    outputs: list[RequestOutput] = []
    while engine.has_unfinished:
        outputs += [output for output in engine.step().outputs if output.request_id == request_id]
    engine.check_integrity()
    return outputs


def test_they_come_with_their_tokens_and_the_prompts_with_the_first(engine: Engine) -> None:
    engine.add_request("r", PROMPT, GREEDY)
    outputs = run(engine, "r")
    assert [len(output.logprobs) for output in outputs] == [1] * 6
    assert [len(output.prompt_logprobs) for output in outputs] == [len(PROMPT)] + [0] * 5
    assert outputs[0].prompt_logprobs[0] is None
    for output in outputs:
        (entry,) = output.logprobs
        assert len(entry.top) == 3
        assert entry.top[0] == (output.token_ids[0], entry.logprob), "greedy takes the likeliest"
    for told, token_id in zip(outputs[0].prompt_logprobs[1:], PROMPT[1:], strict=True):
        assert told is not None
        assert told.logprob <= told.top[0][1]
        assert all(value == told.logprob for each, value in told.top if each == token_id)


def test_only_those_who_asked_get_them(engine: Engine) -> None:
    for name, params in {
        "neither": replace(GREEDY, logprobs=None, prompt_logprobs=None),
        "output": replace(GREEDY, prompt_logprobs=None),
        "prompt": replace(GREEDY, logprobs=None),
    }.items():
        engine.add_request(name, PROMPT, params)
    shown: dict[str, set[tuple[int, int]]] = {}
    while engine.has_unfinished:
        for output in engine.step().outputs:
            kinds = (len(output.logprobs), len(output.prompt_logprobs))
            shown.setdefault(output.request_id, set()).add(kinds)
    assert shown == {"neither": {(0, 0)}, "output": {(1, 0)}, "prompt": {(0, 20), (0, 0)}}


def test_they_are_the_models_own(engine: Engine) -> None:
    """Bias, penalties and temperature choose other tokens, and change no token's probability."""
    plain = engine.generate([PROMPT], replace(GREEDY, max_tokens=1, logprobs=20))[0]
    forced = replace(GREEDY, max_tokens=1, logprobs=20, logit_bias={7: 500.0}, repetition_penalty=1.5, temperature=9.0)
    other = engine.generate([PROMPT], forced)[0]
    assert other.token_ids == (7,) != plain.token_ids
    assert other.logprobs[0].top == plain.logprobs[0].top
    assert other.logprobs[0].logprob < plain.logprobs[0].logprob
    assert other.prompt_logprobs == plain.prompt_logprobs


def test_output_and_prompt_agree_on_the_same_tokens(engine: Engine) -> None:
    """What was generated, given as a prompt: decode rows against prefill rows, bit for bit."""
    first = engine.generate([PROMPT], replace(GREEDY, logprobs=5))[0]
    again = engine.generate([PROMPT + first.token_ids], replace(PROMPT_ALONE, prompt_logprobs=5))[0]
    assert again.prompt_logprobs[len(PROMPT) :] == first.logprobs


@pytest.mark.parametrize("params", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_no_schedule_changes_them(tiny: Path, engine: Engine, params: SamplingParams) -> None:
    """Prefill in chunks of three, and one request after the other gives way."""
    prompts = [PROMPT[start : start + 7] for start in range(0, 12, 3)]
    expected = [engine.generate([prompt], params)[0] for prompt in prompts]
    tight = build(tiny, num_pages=10, page_size=4, max_batched_tokens=3)
    assert tight.generate(prompts, params) == expected


def test_a_prompt_that_gives_way_half_explained_is_not_explained_twice(tiny: Path, engine: Engine) -> None:
    expected = engine.generate([PROMPT], PROMPT_ALONE)[0]
    tight = build(tiny, num_pages=7, page_size=4, max_batched_tokens=3)
    tight.add_request("grows", PROMPT[:4], replace(GREEDY, max_tokens=20, logprobs=None, prompt_logprobs=None))
    tight.add_request("r", PROMPT, PROMPT_ALONE)
    preemptions, outputs = 0, []
    while "r" in tight._scheduler:
        step = tight.step()
        preemptions += step.stats.preemptions
        outputs += [output for output in step.outputs if output.request_id == "r"]
    assert preemptions > 0
    assert [output.prompt_logprobs for output in outputs] == [expected.prompt_logprobs]


def test_what_was_shown_is_not_kept(tiny: Path) -> None:
    """A long prompt's would take more memory than anything else of a request."""
    engine = build(tiny)
    engine.add_request("r", PROMPT, replace(GREEDY, max_tokens=4, prompt_logprobs=20))
    while not engine.step().outputs:
        pass
    request = engine._scheduler.get("r")
    assert request is not None
    assert not request.explained


def test_slices_of_prompt_rows_change_nothing(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = engine.generate([PROMPT], GREEDY)
    widths: list[int] = []
    logits = Decoder.logits

    def spy(self: Decoder, hidden: Rows) -> Rows:
        widths.append(len(hidden))
        return logits(self, hidden)

    monkeypatch.setattr(Decoder, "logits", spy)
    monkeypatch.setattr(runner, "_PROMPT_LOGITS", 3 * VOCAB_SIZE)
    assert engine.generate([PROMPT], GREEDY) == expected
    assert max(widths) == 3
    assert sum(widths) == len(PROMPT) - 1 + GREEDY.max_tokens


@pytest.mark.parametrize("batched", [1, 7, 256])
def test_the_prompt_alone_generates_nothing(tiny: Path, engine: Engine, batched: int) -> None:
    expected = engine.generate([PROMPT], replace(GREEDY, prompt_logprobs=4))[0].prompt_logprobs
    other = build(tiny, max_batched_tokens=batched)
    other.add_request("r", PROMPT, PROMPT_ALONE)
    assert run(other, "r") == [RequestOutput("r", 0, (), finish_reason="length", prompt_logprobs=expected)]


def test_the_first_token_of_a_prompt_has_none(engine: Engine) -> None:
    engine.add_request("r", PROMPT[:1], PROMPT_ALONE)
    assert run(engine, "r") == [RequestOutput("r", 0, (), finish_reason="length", prompt_logprobs=(None,))]


@pytest.mark.parametrize("shown", [0, 1, 5])
def test_a_resumed_request_explains_what_was_not_shown(engine: Engine, shown: int) -> None:
    whole = engine.generate([PROMPT], GREEDY)[0]
    engine.add_request("r", PROMPT, GREEDY, Resume(whole.token_ids[:shown]))
    outputs = run(engine, "r")
    assert tuple(entry for output in outputs for entry in output.logprobs) == whole.logprobs[shown:]
    assert outputs[0].prompt_logprobs == (() if shown else whole.prompt_logprobs)


def test_an_abort_in_the_middle_of_a_prompt_leaves_nothing_behind(tiny: Path) -> None:
    engine = build(tiny, max_batched_tokens=5)
    engine.add_request("r", PROMPT, PROMPT_ALONE)
    engine.step()
    assert engine.abort("r")
    engine.check_integrity()
    engine.add_request("r", PROMPT, PROMPT_ALONE)
    (output,) = run(engine, "r")
    assert len(output.prompt_logprobs) == len(PROMPT)


def test_what_cannot_be_asked_is_refused(engine: Engine) -> None:
    for params in (
        replace(GREEDY, logprobs=21),
        replace(GREEDY, prompt_logprobs=-1),
        replace(PROMPT_ALONE, prompt_logprobs=None),
        replace(PROMPT_ALONE, min_tokens=1),
    ):
        with pytest.raises(EngineRequestError):
            engine.add_request("r", PROMPT, params)
    with pytest.raises(EngineRequestError, match="resumed"):
        engine.add_request("r", PROMPT, PROMPT_ALONE, Resume((1,)))
    assert not engine.has_unfinished


def test_logits_that_are_not_finite_fail_their_request_alone(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = engine.generate([PROMPT], GREEDY)[0]
    logits = Decoder.logits

    def broken(self: Decoder, hidden: Rows) -> Rows:
        values = logits(self, hidden)
        if len(values) == len(PROMPT) - 2:
            values[3, 0] = np.inf
        return values

    monkeypatch.setattr(Decoder, "logits", broken)
    engine.add_request("bad", PROMPT[1:], GREEDY)
    engine.add_request("good", PROMPT, GREEDY)
    outputs: list[RequestOutput] = []
    while engine.has_unfinished:
        outputs += engine.step().outputs
    engine.check_integrity()
    assert [output.error.code for output in outputs if output.error] == ["engine_error"]
    good = [output for output in outputs if output.request_id == "good"]
    assert tuple(entry for output in good for entry in output.logprobs) == expected.logprobs
    assert good[0].prompt_logprobs == expected.prompt_logprobs
