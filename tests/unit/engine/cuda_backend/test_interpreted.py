"""The whole road through Triton's own kernels, interpreted: a file becomes tokens, those of the plain twin."""

from pathlib import Path

import pytest

from engine import Engine, EngineConfig, EngineConfigError, SamplingParams
from engine.cuda_backend import loading
from engine.cuda_backend.runner import CudaRunner
from engine.loading import load_model
from tests.tiny_model import write_tiny_model
from tests.unit.engine.cuda_backend.twin import config, engine, runner

PARAMS = SamplingParams(max_tokens=2, temperature=0.8, seed=3, ignore_eos=True, logprobs=1)


def test_triton_gives_the_tokens_of_the_references_in_any_company(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "m.gguf", hidden_size=32, ffn_size=64, num_heads=2, num_kv_heads=1)
    loaded = load_model(config(path, max_num_seqs=2, max_batched_tokens=4))
    triton = Engine(config(path, max_num_seqs=2, max_batched_tokens=4), loaded=loaded)
    found = triton.generate([[1, 2, 3, 4, 5], [9]], PARAMS)
    triton.check_integrity()
    assert found == [engine(path).generate([prompt], PARAMS)[0] for prompt in ([1, 2, 3, 4, 5], [9])]
    assert loaded.model.identity["backend"] == "cuda"
    assert loaded.model.identity["device"] == "interpreter"


def test_who_asks_for_it_where_it_cannot_run_is_told_why(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EngineConfigError, match="no numerics 'reference'"):
        load_model(EngineConfig(model=tiny, backend="cuda", numerics="reference"))
    monkeypatch.setattr("kernels.gpu.arithmetic.interpreted", lambda: False)
    with pytest.raises(EngineConfigError, match="device 'cpu' was asked for"):
        load_model(EngineConfig(model=tiny, backend="cuda", device="cpu"))
    with pytest.raises(EngineConfigError, match="no CUDA device"):
        load_model(EngineConfig(model=tiny, backend="cuda"))
    monkeypatch.setattr(loading, "find_spec", lambda name: None)
    with pytest.raises(EngineConfigError, match="triton is not installed"):
        load_model(EngineConfig(model=tiny, backend="cuda"))


def test_a_driver_without_a_usable_device_leaves_the_choice_to_the_others(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is Triton's interpreter taken by itself."""
    built: list[str] = []

    def build(*_: object) -> CudaRunner:
        built.append("another")
        return runner(tiny, config(tiny))

    def build_on_cuda(*_: object) -> CudaRunner:
        raise AssertionError("the cuda backend was taken")

    monkeypatch.setattr("engine.loading.has_driver", lambda: True)
    monkeypatch.setattr("engine.loading._build", build)
    monkeypatch.setattr("engine.loading._build_on_cuda", build_on_cuda)
    load_model(EngineConfig(model=tiny, num_pages=8))
    monkeypatch.setattr(loading, "find_spec", lambda name: None)
    load_model(EngineConfig(model=tiny, num_pages=8))
    assert built == ["another", "another"]


def test_products_that_lie_are_found_out(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "products_are_exact", lambda *_: False)
    with pytest.raises(EngineConfigError, match="not exact"):
        load_model(config(tiny))
