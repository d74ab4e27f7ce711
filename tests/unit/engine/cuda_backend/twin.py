"""Engines over the cuda backend on a CPU: with plain torch in place of each kernel, or with Triton interpreted."""

from functools import cache
from pathlib import Path
from typing import Any

import torch

from engine import Engine, EngineConfig
from engine.batch import PageLayout
from engine.cuda_backend.loading import build_runner
from engine.cuda_backend.runner import CudaRunner
from engine.cuda_backend.weights import load_weights
from engine.loaders import open_model
from engine.loading import LoadedModel

PAGES, CONTEXT = 24, 256


def config(path: Path, **knobs: Any) -> EngineConfig:
    given = {"num_pages": PAGES, "max_num_seqs": 6, "max_batched_tokens": 64, "max_context": CONTEXT}
    return EngineConfig(model=path, device="cpu", backend="cuda", step_seconds=None, **(given | knobs))


def runner(path: Path, knobs: EngineConfig, numerics: str = "exact") -> CudaRunner:
    """With the references as kernels."""
    with open_model(path) as opened:
        shape, cpu = opened.describe().shape, torch.device("cpu")
        weights = load_weights(opened.weights, shape, cpu)
    pages = PageLayout(1 + PAGES, knobs.page_size)
    return build_runner(knobs, weights, shape, numerics, pages, CONTEXT, cpu, kernels="cpu")


@cache
def loaded(path: Path) -> LoadedModel:
    knobs = config(path)
    with open_model(path) as opened:
        description = opened.describe()
    return LoadedModel(runner(path, knobs), description, PAGES, CONTEXT, "twin")


def engine(path: Path, **knobs: Any) -> Engine:
    """Over one runner for all engines of a model, as a worker's would be after a restart of the loop."""
    return Engine(config(path, **knobs), loaded=loaded(path))
