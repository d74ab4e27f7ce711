"""Fills Triton's cache with the kernels of one model under one policy, and measures nothing.

python -m benchmarks.gpu_compiling Qwen3-0.6B exact 256
"""

import sys
from collections.abc import Sequence

import torch

from benchmarks.gpu_measures import knobs_for, requests
from tests.unit.engine.cuda_backend.random_models import SUBJECTS, model, one_layer, smaller


def main(arguments: Sequence[str] | None = None) -> int:
    name, numerics, count = sys.argv[1:] if arguments is None else arguments
    subject, device = SUBJECTS[name], torch.device("cuda" if torch.cuda.is_available() else "cpu")
    asks = requests(int(count), 100, 1024, subject.shape.vocab_size)
    pages = 300  # enough for the longest of them: how many there are is no kernel's business
    knobs = smaller(knobs_for(subject, numerics, asks, device), num_pages=pages, warms=device.type == "cuda")
    model(one_layer(subject), numerics, knobs, device)
    return 0


if __name__ == "__main__":
    sys.exit(main())
