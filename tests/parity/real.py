"""Compares our decoders with transformers on a real model file, all with the weights that our loader reads.

    python -m tests.parity.real [--model PATH ...] [--length 700]

Prints a line for each model and way to compute it. Exit 1 where reference numerics are further away than 1e-4 on any
tokens, or the fused CPU backend further than the portable one, in the same numerics, on a text that people wrote: what
whole numbers lose on a noise of tokens varies between any two orders of the same sum.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import torch
from tokenizers import Tokenizer
from torch import Tensor

from engine.config import EngineConfig
from engine.cpu_backend.loading import unsupported
from engine.loaders import open_model
from engine.loading import load_model
from tests.parity.rows import logits, relative_error
from tests.parity.twin import twin

MODELS: Final = Path.home() / ".cache" / "headrace" / "models"
SMOLLM2: Final = MODELS / "smollm2-135m-instruct.gguf"
GEMMA3: Final = MODELS / "gemma-3-270m.gguf"
BOUND: Final = 1e-4
NO_FURTHER: Final = 1.25
CUTS: Final = (300, 1, 1)
WRITTEN: Final = Path(__file__).parents[2] / "docs" / "00-overview.md"


def ours(path: Path, ids: Sequence[int], cuts: Sequence[int], backend: str, numerics: str) -> Tensor:
    """[positions, vocab]"""
    config = EngineConfig(path, device="cpu", backend=backend, numerics=numerics)
    config = replace(config, num_pages=1 + len(ids) // config.page_size)
    return logits(load_model(config).model, ids, cuts)


def theirs(path: Path, *texts: Sequence[int]) -> list[Tensor]:
    """Of each text.  # [positions, vocab]"""
    with open_model(path) as opened:
        model = twin(opened.weights, opened.shape)
    with torch.inference_mode():
        return [model(torch.tensor([list(ids)])).logits[0] for ids in texts]


def fused_runs(path: Path) -> bool:
    """Whether the fused CPU backend can compute this model here."""
    with open_model(path) as opened:
        return unsupported(EngineConfig(path), opened.shape) is None


def drawn(path: Path, count: int) -> list[int]:
    """Token ids of the model's vocabulary, a function of the arguments alone."""
    with open_model(path) as opened:
        vocab_size = opened.shape.vocab_size
    return torch.randint(0, vocab_size, (count,), generator=torch.Generator().manual_seed(count)).tolist()


def written(path: Path, count: int) -> list[int]:
    """So many tokens of an English text, as the model would be given it."""
    with open_model(path) as opened:
        description = opened.describe()
    tokenizer = Tokenizer.from_str(description.tokenizer_json)
    begin = [] if description.bos_id is None else [description.bos_id]
    ids: list[int] = tokenizer.encode(WRITTEN.read_text("utf-8"), add_special_tokens=False).ids
    assert len(ids) >= count, f"{WRITTEN.name} is shorter than that"
    return [*begin, *ids][:count]


def compare(path: Path, length: int) -> bool:
    """Whether all ways to compute it are near enough; says how near."""
    noise, text = drawn(path, length), written(path, length)
    on_noise, on_text = theirs(path, noise, text)
    reference = _say(path, "torch, reference", ours(path, noise, CUTS, "torch", "reference"), on_noise)
    portable = _say(path, "torch, exact", ours(path, text, CUTS, "torch", "exact"), on_text)
    if not fused_runs(path):
        return reference < BOUND
    fused = _say(path, "cpu, exact", ours(path, text, CUTS, "cpu", "exact"), on_text)
    return reference < BOUND and fused < NO_FURTHER * portable


def _say(path: Path, way: str, found: Tensor, wanted: Tensor) -> float:
    error = relative_error(found, wanted)
    agree = (found.argmax(-1) == wanted.argmax(-1)).float().mean().item()
    sys.stdout.write(
        f"{path.name}, {way}: relative error {error:.1e}, same likeliest token at {agree:.2%} of {len(found)}\n"
    )
    return error


def main() -> int:
    parser = argparse.ArgumentParser(description="Parity with transformers on real weights.")
    parser.add_argument("--model", type=Path, nargs="*", default=[SMOLLM2, GEMMA3])
    parser.add_argument("--length", type=int, default=700, help="tokens; beyond 512 Gemma's windows matter")
    options = parser.parse_args()
    near = [compare(path, options.length) for path in options.model]
    return 0 if all(near) else 1


if __name__ == "__main__":
    sys.exit(main())
