"""Parameters that cannot be are refused by name; how an output ends."""

from dataclasses import replace
from typing import Any

import pytest

from engine import EngineConfig, EngineConfigError, EngineRequestError, SamplingParams
from engine.request import Request

GOOD = SamplingParams(max_tokens=4)
NAN = float("nan")

BAD = [
    ("max_tokens", 0),
    ("max_tokens", -1),
    ("min_tokens", -1),
    ("min_tokens", 5),
    ("temperature", -0.1),
    ("temperature", NAN),
    ("temperature", float("inf")),
    ("top_p", 0.0),
    ("top_p", 1.1),
    ("top_p", NAN),
    ("top_k", -1),
    ("min_p", -0.1),
    ("min_p", 1.1),
    ("frequency_penalty", NAN),
    ("presence_penalty", 1e9),
    ("repetition_penalty", 0.0),
    ("repetition_penalty", NAN),
    ("seed", -1),
    ("seed", 1 << 64),
    ("choice", -1),
    ("logprobs", -1),
    ("logprobs", 21),
    ("logprobs", 1.5),
    ("prompt_logprobs", -1),
    ("prompt_logprobs", 21),
    ("bad_words", ((),)),
    ("bad_words", ((1, 100),)),
    ("bad_words", ((-1,),)),
    ("bad_words", ((1,),) * 1025),
    ("bad_words", ((1,) * 257,)),
    ("grammar", "root ::= 'a'"),
]


@pytest.mark.parametrize(("name", "value"), BAD, ids=str)
def test_a_value_that_cannot_be_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(EngineRequestError, match=name) as caught:
        replace(GOOD, **{name: value}).check(100)
    assert caught.value.code == "invalid_request"
    assert not caught.value.retryable


@pytest.mark.parametrize("bias", [{100: 1.0}, {-1: 1.0}, {3: NAN}, {3: float("inf")}], ids=str)
def test_a_bias_outside_vocabulary_or_numbers_is_refused(bias: dict[int, float]) -> None:
    with pytest.raises(EngineRequestError, match="bias"):
        replace(GOOD, logit_bias=bias).check(100)


def test_the_borders_are_taken() -> None:
    SamplingParams(
        max_tokens=1,
        min_tokens=1,
        temperature=0.0,
        top_p=1.0,
        min_p=1.0,
        seed=(1 << 64) - 1,
        logit_bias={0: -100.0, 99: 100.0},
        bad_words=((0,), (99,) * 256),
        logprobs=20,
        prompt_logprobs=0,
    ).check(100)
    SamplingParams(max_tokens=0, prompt_logprobs=20).check(100)
    with pytest.raises(EngineRequestError, match="max_tokens"):
        SamplingParams(max_tokens=0, logprobs=20).check(100)


@pytest.mark.parametrize(
    ("output", "min_tokens", "reason"),
    [
        ((), 0, None),
        ((5,), 0, None),
        ((9,), 0, "stop"),
        ((9,), 1, "stop"),
        ((9,), 2, None),
        ((5, 5, 5), 0, "length"),
        ((5, 5, 9), 0, "stop"),
        ((9, 5), 0, None),
    ],
)
def test_how_an_output_ends(output: tuple[int, ...], min_tokens: int, reason: str | None) -> None:
    params = SamplingParams(max_tokens=3, min_tokens=min_tokens)
    request = Request("r", params, [9, *output], 1, 0, 0, frozenset({9}))
    assert request.finish_reason() == reason
    assert request.output() == output


@pytest.mark.parametrize(
    "knobs",
    [
        {"device": "tpu"},
        {"page_size": 0},
        {"num_pages": 0},
        {"kv_budget_bytes": 0},
        {"max_num_seqs": 0},
        {"max_batched_tokens": 0},
        {"max_context": 0},
        {"threads": 0},
    ],
    ids=str,
)
def test_a_knob_out_of_range_is_refused_by_name(knobs: dict[str, object]) -> None:
    with pytest.raises(EngineConfigError, match=next(iter(knobs))) as caught:
        EngineConfig("model.gguf", **knobs)  # type: ignore[arg-type]
    assert caught.value.code == "invalid_config"
