"""One bad request harms no other: rows that are not finite, sampling that fails, and a step that fails as a whole."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from engine import Engine, EngineConfig, EngineRequestError, EngineStepError, SamplingParams
from engine.torch_backend.decoder import Decoder
from tests.unit.engine.cpu_backend.drawn_models import why_not as not_here

POISON = 200
PROMPT = tuple(range(40, 60))
SAMPLED = SamplingParams(max_tokens=12, temperature=1.0, seed=3, ignore_eos=True, logit_bias={POISON: -1e4})


@pytest.fixture(params=[("torch", "exact"), ("torch", "reference"), ("cpu", "exact")], ids="-".join)
def engine(tiny: Path, request: pytest.FixtureRequest) -> Engine:
    backend, numerics = request.param
    if backend == "cpu" and not_here():
        pytest.skip("the fused backend does not run here")
    config = EngineConfig(tiny, device="cpu", backend=backend, num_pages=12, max_batched_tokens=16, threads=1)
    return Engine(replace(config, numerics=numerics, step_seconds=None))


def poison(engine: Engine) -> None:
    """From now on the token POISON has an embedding that is not a number."""
    model = engine._loaded.model
    if not isinstance(model, Decoder):
        model._arrays["embedding_scale"][POISON] = np.nan  # type: ignore[attr-defined]
        return
    whole = model._embed

    def embed(token_ids: torch.Tensor) -> torch.Tensor:
        return torch.where((token_ids == POISON).unsqueeze(1), torch.nan, whole(token_ids))

    model._embed = embed


@pytest.mark.parametrize("at", [0, 3, 19], ids=lambda at: f"at position {at}")
def test_a_row_that_is_not_finite_fails_its_request_alone(engine: Engine, at: int) -> None:
    """Afterwards its pages, given to the next request, carry nothing over."""
    expected = engine.generate([PROMPT, PROMPT[:7]], SAMPLED)
    poison(engine)
    engine.add_request("first", PROMPT, SAMPLED)
    engine.add_request("bad", (*PROMPT[:at], POISON, *PROMPT[at + 1 :]), SAMPLED)
    engine.add_request("last", PROMPT[:7], SAMPLED)
    tokens: dict[str, list[int]] = {"first": [], "bad": [], "last": []}
    errors = {}
    while engine.has_unfinished:
        for output in engine.step().outputs:
            tokens[output.request_id] += output.token_ids
            if output.error:
                errors[output.request_id] = (output.error.code, output.error.retryable, output.finish_reason)
    engine.check_integrity()
    assert errors == {"bad": ("engine_error", False, None)}
    assert tokens["bad"] == []
    assert [tuple(tokens["first"]), tuple(tokens["last"])] == [completion.token_ids for completion in expected]
    for _ in range(3):
        assert engine.generate([PROMPT, PROMPT[:7]], SAMPLED) == expected


def test_generate_says_that_a_request_failed(engine: Engine) -> None:
    poison(engine)
    with pytest.raises(EngineRequestError, match="finite") as caught:
        engine.generate([PROMPT, (POISON,)], SAMPLED)
    assert caught.value.code == "engine_error"
    assert not engine.has_unfinished
    assert len(engine.generate([PROMPT], SAMPLED)) == 1


def test_sampling_that_fails_ends_its_request_alone(engine: Engine) -> None:
    expected = engine.generate([PROMPT], SAMPLED)[0].token_ids
    nothing_left = replace(SAMPLED, min_tokens=1, stop_token_ids=tuple(range(259)))
    engine.add_request("bad", PROMPT, nothing_left)
    engine.add_request("good", PROMPT, SAMPLED)
    outputs = [output for _ in range(14) for output in engine.step().outputs]
    assert [output.request_id for output in outputs if output.error] == ["bad"]
    assert tuple(t for output in outputs if output.request_id == "good" for t in output.token_ids) == expected
    assert not engine.has_unfinished
    engine.check_integrity()


def test_a_step_that_fails_as_a_whole_advances_nobody(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.add_request("a", PROMPT[:4], SAMPLED)
    engine.step()
    error = RuntimeError("no such kernel")

    def fail(self: object, batch: object) -> None:
        raise error

    before = engine.snapshot("a")
    monkeypatch.setattr(type(engine._loaded.model), "forward", fail)
    with pytest.raises(EngineStepError) as caught:
        engine.step()
    assert caught.value.retryable
    assert caught.value.__cause__ is error
    assert engine.snapshot("a") == before


def test_where_no_memory_is_left_everybody_may_try_again(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: object, batch: object) -> None:
        raise MemoryError

    expected = engine.generate([PROMPT], SAMPLED)
    with monkeypatch.context() as short:
        short.setattr(type(engine._loaded.model), "forward", fail)
        for name in ("a", "b"):
            engine.add_request(name, PROMPT, SAMPLED)
        errors = {output.request_id: output.error for output in engine.step().outputs}
    assert {name: error.retryable for name, error in errors.items() if error} == {"a": True, "b": True}
    assert not engine.has_unfinished
    engine.check_integrity()
    assert engine.generate([PROMPT], SAMPLED) == expected
