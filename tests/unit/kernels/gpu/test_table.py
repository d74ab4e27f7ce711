"""Every kernel named for GPUs exists and takes what its reference takes; without triton the references run there."""

import inspect
from importlib import import_module

import pytest

from kernels import dispatch, ops


@pytest.mark.parametrize("operation", sorted(dispatch.GPU))
def test_a_kernel_takes_what_its_reference_and_its_operation_take(operation: str) -> None:
    module, _, name = dispatch.GPU[operation].partition(":")
    kernel, reference = getattr(import_module(module), name), dispatch.REFERENCE[operation]
    wanted = list(inspect.signature(getattr(ops, operation)).parameters)
    assert list(inspect.signature(kernel).parameters) == wanted
    assert list(inspect.signature(reference).parameters) == wanted


def test_without_triton_a_gpu_runs_the_references(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "_has_triton", lambda: False)
    dispatch.kernel.cache_clear()
    try:
        assert dispatch.table_names("cuda") == dispatch.table_names("cpu")
    finally:
        dispatch.kernel.cache_clear()
    monkeypatch.undo()
    assert dispatch.table_names("cuda")["sample"] == "kernels.gpu.sampler.sample"
