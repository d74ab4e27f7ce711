"""Everything that can go wrong with one request, beside the same neighbours each time: it ends with its code, they get
the tokens and log probabilities of their solo runs, all pages return, and the engine goes on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from engine import Completion, Engine, EngineConfig, EngineRequestError
from engine.torch_backend.decoder import Decoder
from engine.torch_backend.layers.attention import ExactAttention
from tests.unit.engine.cpu_backend.drawn_models import why_not as not_here
from tests.unit.engine.fault_stage import BAD, NEIGHBOURS, Stage
from tests.unit.engine.request_faults import FAULTS, Fault

PAGES = {"torch": 8, "cpu": 16}  # tokens of one


def engine_of(tiny: Path, backend: str, tokens: int, **knobs: object) -> Engine:
    """Over a cache of at least so many tokens."""
    size = PAGES[backend]
    config = EngineConfig(
        tiny,
        device="cpu",
        backend=backend,
        page_size=size,
        num_pages=-(-tokens // size),
        max_batched_tokens=24,
        step_seconds=None,
        threads=1,
    )
    return Engine(replace(config, **knobs))  # type: ignore[arg-type]


@pytest.fixture(scope="module", params=PAGES)
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name == "cpu" and not_here():
        pytest.skip("the fused backend does not run here")
    return name


@pytest.fixture(scope="module")
def alone(tiny: Path, backend: str) -> dict[str, Completion]:
    """What each neighbour gets by itself, without a cache."""
    engine = engine_of(tiny, backend, 512, prefix_cache=False)
    return {name: engine.generate([prompt], params)[0] for name, (prompt, params) in NEIGHBOURS.items()}


@pytest.fixture(scope="module", params=["roomy", "tight", "no cache"])
def engine(tiny: Path, backend: str, request: pytest.FixtureRequest) -> Engine:
    """Shared by all faults, which is a part of the test: each is left to the next as the last one left it."""
    return engine_of(tiny, backend, 512 if request.param == "roomy" else 216, prefix_cache=request.param != "no cache")


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_it_ends_with_its_code_and_nobody_else_notices(
    engine: Engine, alone: dict[str, Completion], fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(engine, monkeypatch)
    stage.add_neighbours("before", "alike")
    stage.step()
    stage.step()
    outcome = fault(stage)
    stage.add_neighbours("long", "after")
    stage.finish()
    if outcome in ("aborted", "refused"):
        assert all(output.error is None for outputs in stage.shown.values() for output in outputs)
    else:
        assert stage.end_of(BAD) == outcome
    for name, expected in alone.items():
        outputs = stage.shown[name]
        assert tuple(token for output in outputs for token in output.token_ids) == expected.token_ids, name
        assert tuple(entry for output in outputs for entry in output.logprobs) == expected.logprobs, name
        assert outputs[0].prompt_logprobs == expected.prompt_logprobs, name
        assert stage.end_of(name) == expected.finish_reason
    assert engine.budget().free_tokens == engine.budget().total_tokens


@pytest.mark.parametrize("scales", ["key_scales", "value_scales"])
def test_a_page_that_went_bad_fails_those_who_read_it_and_is_not_kept(
    tiny: Path, backend: str, alone: dict[str, Completion], scales: str
) -> None:
    """As if memory had flipped a bit: the next request with that beginning computes it anew, and is well."""
    engine = engine_of(tiny, backend, 512)
    prompt, params = NEIGHBOURS["alike"]
    assert engine.generate([prompt], params)[0] == alone["alike"]
    kept = list(engine._cache._idle)
    spoil(engine, kept[-1], scales)  # the first page: it is let go last
    with pytest.raises(EngineRequestError, match="finite"):
        engine.generate([prompt], params)
    assert not engine._cache._idle
    assert engine.generate([prompt], params)[0] == alone["alike"]


def spoil(engine: Engine, page: int, scales: str) -> None:
    """The scales of a page's keys or values in the first layer are no numbers any more; on torch they lie together."""
    model = engine._loaded.model
    if isinstance(model, Decoder):
        attention = model._layers[0].attention
        assert isinstance(attention, ExactAttention)
        with torch.inference_mode():
            attention._scales[page] = float("nan")
    else:
        model._arrays[scales][0, page] = np.nan  # type: ignore[attr-defined]
