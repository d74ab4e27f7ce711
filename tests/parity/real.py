"""Compares our reference numerics with transformers on a real model file, both with the weights that our loader reads.

    python -m tests.parity.real [--model PATH ...] [--length 700]

Prints one line a model; exit 1 if one is further away than 1e-4.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from engine.batch import PageLayout
from engine.config import EngineConfig
from engine.loaders import open_model
from engine.torch_backend.loading import load_torch_model
from tests.parity.rows import logits, relative_error
from tests.parity.twin import twin

MODELS: Final = Path.home() / ".cache" / "headrace" / "models"
SMOLLM2: Final = MODELS / "smollm2-135m-instruct.gguf"
GEMMA3: Final = MODELS / "gemma-3-270m.gguf"
BOUND: Final = 1e-4


def both(path: Path, ids: Sequence[int], cuts: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Our logits and theirs.  # [positions, vocab] each"""
    with open_model(path) as opened:
        shape = opened.shape
        config = EngineConfig(path, device="cpu", backend="torch", numerics="reference")
        pages = PageLayout(2 + len(ids) // config.page_size, config.page_size)
        ours = load_torch_model(config, opened.weights, shape, pages, len(ids))
        theirs = twin(opened.weights, shape)
    with torch.inference_mode():
        wanted: Tensor = theirs(torch.tensor([list(ids)])).logits[0]
    return logits(ours, ids, cuts), wanted


def drawn(path: Path, count: int) -> list[int]:
    """Token ids of the model's vocabulary, a function of the arguments alone."""
    with open_model(path) as opened:
        vocab_size = opened.shape.vocab_size
    return torch.randint(0, vocab_size, (count,), generator=torch.Generator().manual_seed(count)).tolist()


def main() -> int:
    parser = argparse.ArgumentParser(description="Parity with transformers on real weights.")
    parser.add_argument("--model", type=Path, nargs="*", default=[SMOLLM2, GEMMA3])
    parser.add_argument("--length", type=int, default=700, help="tokens; beyond 512 Gemma's windows matter")
    options = parser.parse_args()
    furthest = 0.0
    for path in options.model:
        ours, wanted = both(path, drawn(path, options.length), (300, 1, 1))
        error = relative_error(ours, wanted)
        agree = (ours.argmax(-1) == wanted.argmax(-1)).float().mean().item()
        furthest = max(furthest, error)
        line = f"{path.name}: relative error {error:.1e}, same likeliest token at {agree:.2%} of {options.length}\n"
        sys.stdout.write(line)
    return 1 if furthest > BOUND else 0


if __name__ == "__main__":
    sys.exit(main())
