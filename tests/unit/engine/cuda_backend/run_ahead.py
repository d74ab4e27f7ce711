"""Random schedules over the GPU's runner with plain torch for each kernel, steps running ahead, against solo runs whose
steps do not.

    python -m tests.unit.engine.cuda_backend.run_ahead --schedules 100 [--first 0]                 a second each
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from engine import EngineConfig
from engine.batch import PageLayout
from engine.block_pool import NULL_PAGE
from engine.cuda_backend.loading import build_runner
from engine.cuda_backend.weights import load_weights
from engine.loaders import open_model
from engine.loading import LoadedModel
from tests.unit.engine.any_schedule import AnySchedule, Report, wide_model

_CONTEXT = 512


def load_twin(config: EngineConfig, *, runs_ahead: bool = True) -> LoadedModel:
    """The file on the runner; `config` says how many pages."""
    assert config.num_pages is not None
    cpu = torch.device("cpu")
    with open_model(config.model) as opened, torch.inference_mode():
        description = opened.describe()
        weights = load_weights(opened.weights, description.shape, cpu)
    pages = PageLayout(NULL_PAGE + 1 + config.num_pages, config.page_size)
    runner = build_runner(
        config, weights, description.shape, "exact", pages, _CONTEXT, cpu, kernels="cpu", runs_ahead=runs_ahead
    )
    return LoadedModel(runner, description, config.num_pages, _CONTEXT, "twin")


def schedules(model: Path, numbers: Sequence[int]) -> Report:
    """All of them together."""
    torch.set_num_threads(1)
    alone = partial(load_twin, runs_ahead=False)
    runs, total = AnySchedule(model, backend="cuda", load=load_twin, load_alone=alone), Report()
    for number in numbers:
        total += runs.run(number)
    return total


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.unit.engine.cuda_backend.run_ahead")
    parser.add_argument("--schedules", type=int, default=20)
    parser.add_argument("--first", type=int, default=0)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        total = schedules(wide_model(Path(folder)), range(given.first, given.first + given.schedules))
    sys.stdout.write(f"{total}\n")
    return int(bool(total.differing))


if __name__ == "__main__":
    sys.exit(main())
