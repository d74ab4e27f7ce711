"""Requests as no client should send them: refused with a name and a reason, or harmless, and no neighbour notices."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import Engine, EngineConfig, EngineRequestError, Resume, SamplingParams

NAN, INF = math.nan, math.inf
GOOD = SamplingParams(max_tokens=4, temperature=0)
PROMPT = (1, 2, 3)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    from tests.tiny_model import write_tiny_model

    path = write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf")
    return Engine(EngineConfig(path, device="cpu", backend="torch", num_pages=16))


@pytest.fixture
def engine(shared: Engine) -> Iterator[Engine]:
    """Given back as it was: nothing in it, and all of its pages free."""
    expected = shared.generate([PROMPT], GOOD)
    yield shared
    assert not shared.snapshot("odd")
    assert shared.generate([PROMPT], GOOD) == expected
    shared.check_integrity()


def refused(engine: Engine, prompt: Any = PROMPT, resume: Any = None, name: Any = "odd", **values: Any) -> str:
    """Its message, with the code in front; beside a request that runs on undisturbed."""
    order = {key: values.pop(key) for key in ("priority", "deadline") if key in values}
    engine.add_request("bystander", PROMPT, GOOD)
    try:
        with pytest.raises(EngineRequestError) as caught:
            engine.add_request(name, prompt, SamplingParams(**({"max_tokens": 4} | values)), resume, **order)
        assert [output.request_id for output in engine.step().outputs] == ["bystander"]
    finally:
        engine.abort("bystander")
    message = str(caught.value)
    assert len(message) < 300
    return f"{caught.value.code}: {message}"


NUMBERS = ("temperature", "top_p", "min_p", "frequency_penalty", "presence_penalty", "repetition_penalty")
WHOLE = ("max_tokens", "min_tokens", "top_k", "seed", "choice", "logprobs", "prompt_logprobs")


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [NAN, INF, -INF, 1e308, -1e3, "1", None, [1], 1j, np.float32(0.5)], ids=str)
def test_a_number_that_is_none_is_refused_by_its_name(engine: Engine, name: str, value: object) -> None:
    assert refused(engine, **{name: value}).startswith(f"invalid_request: {name} must be")


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize(
    "value", [NAN, INF, -1, 1.0, 1.5, 1 << 64, 10**5000, "1", [1], np.int64(1)], ids=lambda value: repr(type(value))
)
def test_a_whole_number_that_is_none_is_refused_by_its_name(engine: Engine, name: str, value: object) -> None:
    assert refused(engine, **{name: value}).startswith(f"invalid_request: {name} must be")


ODD: list[tuple[dict[str, object], str]] = [
    ({"logprobs": 21}, "from 0 to 20"),
    ({"min_tokens": 5}, "from 0 to 4"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"top_p": 0.0}, "top_p"),
    ({"logit_bias": {259: 1.0}}, "259"),
    ({"logit_bias": {-1: 1.0}}, "-1"),
    ({"logit_bias": {1.5: 1.0}}, "1.5"),
    ({"logit_bias": {0: INF}}, "inf"),
    ({"logit_bias": {0: NAN}}, "nan"),
    ({"logit_bias": {0: "much"}}, "much"),
    ({"logit_bias": [(0, 1.0)]}, "logit_bias"),
    ({"logit_bias": None}, "logit_bias"),
    ({"bad_words": ((1, 2),) * 1025}, "1024"),
    ({"bad_words": ((1,) * 257,)}, "256"),
    ({"bad_words": ((),)}, "bad_words"),
    ({"bad_words": ((259,),)}, "259"),
    ({"bad_words": (3,)}, "bad_words"),
    ({"bad_words": None}, "bad_words"),
    ({"stop_token_ids": (259,)}, "259"),
    ({"stop_token_ids": (1.5,)}, "1.5"),
    ({"stop_token_ids": None}, "stop_token_ids"),
    ({"grammar": ""}, "grammar"),
    ({"priority": 10**400}, "priority"),
    ({"priority": NAN}, "priority"),
    ({"deadline": NAN}, "deadline"),
    ({"deadline": "soon"}, "deadline"),
    ({"deadline": INF}, "deadline"),
    ({"deadline": 10**400}, "deadline"),
    ({"name": None}, "id"),
    ({"name": ["odd"]}, "id"),
    ({"name": "bystander"}, "already"),
    ({"resume": (1,)}, "resume must be of the kind Resume"),
    ({"resume": ()}, "resume must be of the kind Resume"),
    ({"resume": Resume((1,) * 5)}, "max_tokens 4"),
    ({"resume": Resume((259,))}, "from 0 to 258"),
    ({"resume": Resume((1.5,))}, "token ids"),  # type: ignore[arg-type]
    ({"resume": Resume(None)}, "token ids"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("odd", "why"), ODD, ids=lambda value: repr(value)[:40])
def test_what_cannot_be_is_refused_with_its_reason(engine: Engine, odd: dict[str, Any], why: str) -> None:
    assert why in refused(engine, **odd)


@pytest.mark.parametrize("params", [None, {}, {"max_tokens": 4}, SamplingParams], ids=repr)
def test_parameters_of_another_kind_are_refused(engine: Engine, params: Any) -> None:
    with pytest.raises(EngineRequestError, match="params must be of the kind SamplingParams"):
        engine.add_request("odd", PROMPT, params)


PROMPTS: list[object] = [
    (), [259], [-1], [1 << 70], [1.5], [1, NAN, 2], ["a"], "abc", None, 3, [None], [[1]], np.array([1.0]), np.array([]),
]  # fmt: skip


@pytest.mark.parametrize("prompt", PROMPTS, ids=lambda value: repr(value)[:40])
def test_a_prompt_of_no_tokens_of_the_model_is_refused(engine: Engine, prompt: object) -> None:
    assert refused(engine, prompt).startswith("invalid_request")


def test_a_prompt_without_end_is_refused_by_its_length(engine: Engine) -> None:
    assert refused(engine, [1] * 100_000).startswith("context_length_exceeded")
    assert refused(engine, max_tokens=(1 << 64) - 1).startswith("context_length_exceeded")


def test_a_prompt_in_an_array_is_as_good_as_a_list(engine: Engine) -> None:
    for prompt in (np.array(PROMPT), [np.int32(each) for each in PROMPT], range(1, 4)):
        assert engine.generate([prompt], GOOD) == engine.generate([PROMPT], GOOD)  # type: ignore[list-item]


@pytest.mark.parametrize(
    "extreme",
    [
        {"temperature": 5e-324},
        {"min_p": 5e-324},
        {"seed": (1 << 64) - 1, "choice": 1 << 20},
        {"top_k": (1 << 64) - 1},
        {"logit_bias": dict.fromkeys(range(259), -10000.0)},
        {"bad_words": ((1,) * 256,) * 1024},
        {"stop_token_ids": tuple(range(259)) * 9},
        {"repetition_penalty": 1e3, "frequency_penalty": 100.0, "presence_penalty": -100.0},
    ],
    ids=lambda value: next(iter(value)),
)
def test_what_is_only_extreme_is_computed(engine: Engine, extreme: dict[str, Any]) -> None:
    params = SamplingParams(**({"max_tokens": 4} | extreme))
    beside = engine.generate([PROMPT, PROMPT], [params, GOOD])
    assert beside[0] == engine.generate([PROMPT], params)[0]
    assert beside[1] == engine.generate([PROMPT], GOOD)[0]


def test_aborting_at_any_step_and_twice(engine: Engine) -> None:
    """During the prefill, between two tokens, when it is over, and somebody who never came."""
    long = [7] * 200
    for steps in range(9):
        engine.add_request("odd", long, GOOD)
        engine.add_request("bystander", PROMPT, GOOD)
        for _ in range(steps):
            engine.step()
        engine.abort("odd")
        assert not engine.abort("odd")
        engine.abort("bystander")
        engine.step()
        engine.check_integrity()
    assert not engine.abort("never came")


def test_generate_leaves_other_requests_alone(engine: Engine) -> None:
    engine.add_request("odd", PROMPT, GOOD)
    with pytest.raises(EngineRequestError, match="under way"):
        engine.generate([PROMPT], GOOD)
    assert [output.request_id for output in engine.step().outputs] == ["odd"]
    engine.abort("odd")
    with pytest.raises(EngineRequestError, match="1 prompts cannot have 2 parameters"):
        engine.generate([PROMPT], [GOOD, GOOD])
    assert engine.generate([], GOOD) == []


def test_a_drained_engine_says_so_and_steps_over_nothing(tiny: Path) -> None:
    engine = Engine(EngineConfig(tiny, device="cpu", backend="torch", num_pages=4))
    engine.add_request("odd", PROMPT, GOOD)
    assert [snapshot.request_id for snapshot in engine.drain()] == ["odd"]
    with pytest.raises(EngineRequestError) as caught:
        engine.add_request("late", PROMPT, GOOD)
    assert caught.value.code == "draining"
    assert engine.drain() == ()
    assert engine.step().outputs == ()
