"""What the GPU's benchmark decides without a GPU: its bars and its table, its cases, and that both sides have the same
weights. The whole road at tiny sizes is `TRITON_INTERPRET=1 python -m benchmarks.gpu --tiny`, which takes a minute."""

from typing import Any

import pytest
import torch

from benchmarks import gpu_kernels
from benchmarks.gpu import main
from benchmarks.gpu_measures import layer_products, requests
from benchmarks.gpu_table import WIDE_ATTENTION, bars_table
from kernels.dispatch import GPU, REFERENCE
from tests.unit.engine.cuda_backend.random_models import LLAMA_8B, QWEN_06B, SMALL, TINY, RandomWeights, one_layer

CPU = torch.device("cpu")


def found(**parts: dict[str, Any]) -> dict[str, Any]:
    return {"device": "a device", "date": "today", "parts": parts}


def line(table: str, claim: str) -> str:
    return next(each for each in table.splitlines() if each.startswith(f"| {claim}"))


def test_what_was_not_run_is_not_claimed() -> None:
    table = bars_table(found())
    assert table.count("| not run |  |") == 7
    assert " yes " not in table


def test_bars_are_judged_by_what_was_found() -> None:
    table = bars_table(
        found(
            kernels={"a": {"failed": []}, "b": {"error": "broke"}},
            identity={"exact": {"differing": 0}, "schedules": {"differing": 2}, "bf16": {"differing": 9}},
            copy={"copy": {"bytes_per_second": 100.0}},
            single={
                "Llama-3.1-8B bf16": {"bytes_per_second": 85.0, "seconds": 2.0},
                "Llama-3.1-8B exact": {"seconds": 1.0},
            },
            attention={name: {"bytes_per_second": 70.0 + 5 * place} for place, name in enumerate(WIDE_ATTENTION)},
            throughput={
                "Qwen3-0.6B exact": {"tokens_per_second": 30.0},
                "Qwen3-0.6B bf16": {"tokens_per_second": 40.0},
            },
            peer={"Qwen3-0.6B": {"tokens_per_second": 10.0}, "Llama-3.1-8B": {"error": "it has no memory"}},
        )
    )
    assert line(table, "kernels").endswith("| 1 | no |")
    assert line(table, "any-schedule").endswith("| 2 | no |")
    assert line(table, "0.6B").endswith("| 3.00x | yes |")
    assert line(table, "8B against").endswith("| not run |  |")
    assert line(table, "batch-1 8B").endswith("| 85 % | yes |")
    assert line(table, "exact int8").endswith("| 0.75x | no |")
    assert line(table, "decode attention").endswith("| 70 % | no |")


def test_every_kernel_has_cases_and_a_wrong_one_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert gpu_kernels.CASES.keys() == GPU.keys()

    def broken(x: torch.Tensor, group: int, out: torch.Tensor, scale: torch.Tensor) -> None:
        REFERENCE["quantize_by_group"](x, group, out, scale)
        if x.shape[1] > 1:
            out[1, 1] += 1

    def breaks(*_: object) -> None:
        raise RuntimeError("no such instruction")

    for kernel, faults in ((REFERENCE["quantize_by_group"], 0), (broken, 2), (breaks, 4)):
        monkeypatch.setattr(gpu_kernels, "kernel", lambda *_, run=kernel: run)
        findings = list(gpu_kernels.check("quantize_by_group", CPU, tiny=True))
        assert sum(not finding.sound for finding in findings) == faults
    assert "no such instruction" in findings[0].broke


def test_sizes_are_those_of_the_models_they_are_named_after() -> None:
    assert layer_products(LLAMA_8B) == ((6144, 4096), (4096, 4096), (28_672, 4096), (4096, 14_336))
    assert layer_products(QWEN_06B) == ((4096, 1024), (1024, 2048), (6144, 1024), (1024, 3072))
    assert one_layer(LLAMA_8B).shape.num_layers == 1
    asks = requests(256, 100, 1024, 1000)
    assert asks == requests(256, 100, 1024, 1000)
    assert 100 <= min(len(ask.prompt) for ask in asks) <= max(ask.new_tokens for ask in asks) <= 1024


def test_the_same_name_is_the_same_weights_in_both_types() -> None:
    weights = RandomWeights(TINY, CPU)
    whole, floats = weights.whole("0.qkv", 96, 32), weights.bf16("0.qkv", 96, 32)
    assert whole.scale is not None
    torch.testing.assert_close(whole.values * whole.scale[:, None], floats.float(), rtol=2**-7, atol=1e-6)
    assert not torch.equal(whole.values, weights.whole("1.qkv", 96, 32).values)
    assert len(weights.decoder("bf16").layers) == TINY.shape.num_layers
    assert RandomWeights(SMALL, CPU).decoder("exact").layers[0].q_norm is not None


def test_without_a_device_it_says_what_there_is_instead(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main([]) == 1
    assert "--tiny" in capsys.readouterr().err
