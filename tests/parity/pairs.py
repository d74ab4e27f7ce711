"""A tiny random model of theirs and the same one read by us, for every architecture; knows both, compares nothing."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from engine import EngineConfig
from engine.loading import load_model
from engine.models.causal_lm import CausalLM
from tests.tiny_model import VOCAB_SIZE
from tests.unit.engine.loaders.checkpoints import random_model, write_checkpoint

CONTEXT = 128
ONE_THREAD = 1


@dataclass(frozen=True, slots=True)
class Pair:
    """A model of theirs and the folder that it was saved in."""

    theirs: PreTrainedModel
    folder: Path

    def ours(
        self, numerics: str, page_size: int = 16, *, backend: str = "torch", threads: int = ONE_THREAD
    ) -> CausalLM:
        config = EngineConfig(
            self.folder,
            device="cpu",
            backend=backend,
            numerics=numerics,
            page_size=page_size,
            num_pages=CONTEXT // page_size + 1,
            threads=threads,
        )
        return load_model(config).model

    def wanted(self, ids: list[int]) -> Tensor:
        """[positions, vocab]"""
        with torch.inference_mode():
            rows: Tensor = self.theirs(torch.tensor([ids])).logits[0]
        return rows


def random_pair(architecture: str, folder: Path) -> Pair:
    model = random_model(architecture, seed=7)
    model.train(False)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2:
                parameter.mul_(7.0)  # as initialised, attention would look everywhere alike
            elif "norm" in name and "gemma" not in architecture:
                parameter.add_(1.0)
    return Pair(model, write_checkpoint(model, folder))


def drawn(count: int) -> list[int]:
    """Token ids, a function of how many."""
    return torch.randint(0, VOCAB_SIZE, (count,), generator=torch.Generator().manual_seed(count)).tolist()
