"""The fake engine's knobs, and what it says of a request."""

import math
import struct
from dataclasses import replace

import pytest

from headrace.contract.generation import Sampling
from headrace.text.detokenizer import whole_text
from headrace.text.tokenizer import Tokenizer
from workers.inference.fake_engine import FakeEngine, Knobs, byte_tokenizer, parse_knobs
from workers.inference.messages import AddRequest, Output


def test_knobs_are_read_from_the_model_s_name() -> None:
    assert parse_knobs("fake:") == Knobs()
    assert parse_knobs("fake:speed=2.5,crash_at=4") == Knobs(speed=2.5, crash_at=4)


@pytest.mark.parametrize("text", ["fake:colour=red", "fake:speed=fast", "fake:speed"])
def test_a_wrong_knob_is_an_error(text: str) -> None:
    with pytest.raises(ValueError):
        parse_knobs(text)


def test_its_tokenizer_is_the_bytes() -> None:
    tokenizer = Tokenizer(byte_tokenizer())
    text = "Grüße, 世界"
    ids = tokenizer.encode(text, special=True)
    assert bytes(ids).decode() == text
    assert whole_text(tokenizer, ids) == text


def outputs(request: AddRequest) -> list[Output]:
    """All that the engine says of one request."""
    engine = FakeEngine(Knobs())
    refusal = engine.add(request)
    said = [] if refusal is None else [refusal]
    while engine.busy():
        said += engine.step().outputs
    return said


def test_a_resumed_request_has_the_log_probabilities_of_an_undisturbed_one() -> None:
    request = AddRequest("r", (5, 256, 7), Sampling(seed=1), 0, 9, logprobs=20, prompt_logprobs=2)
    whole = outputs(request)
    assert whole[0].prompt_logprobs[0] is None
    assert len(whole[0].prompt_logprobs) == 3
    tokens = tuple(token for output in whole for token in output.token_ids)
    for output in whole:
        (entry,) = output.logprobs
        assert (output.token_ids[0], entry.logprob) in entry.top
        assert len({token for token, _ in entry.top}) == 20
        assert sum(math.exp(value) for _, value in entry.top) < 1
        assert all(value == struct.unpack("<f", struct.pack("<f", value))[0] for _, value in entry.top)
    resumed = outputs(replace(request, token_ids=tokens[:4]))
    assert [output.logprobs for output in resumed] == [output.logprobs for output in whole[4:]]
    assert not any(output.prompt_logprobs for output in resumed)


def test_a_prompt_alone_ends_without_a_token() -> None:
    request = AddRequest("r", (5, 6), Sampling(seed=1), 0, 0, prompt_logprobs=0)
    (output,) = outputs(request)
    assert (output.token_ids, output.finish_reason, len(output.prompt_logprobs)) == ((), "length", 2)
    (refusal,) = outputs(replace(request, prompt_logprobs=None))
    assert refusal.error is not None
    assert refusal.error.code == "invalid_request"
