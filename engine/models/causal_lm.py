"""What the runner asks of a model, and how one is made from its name; knows no architecture."""

from importlib import import_module
from typing import Protocol

import torch
from torch import Tensor

from engine.batch import Batch, PageLayout
from engine.loaders.weights import GGUFCheckpoint
from engine.models import MODELS
from engine.models.shape import ModelShape
from engine.numerics import Numerics


class CausalLM(Protocol):
    def forward(self, batch: Batch) -> Tensor:
        """The hidden state of every row.  # [rows, hidden]"""
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """[rows, hidden] -> [rows, vocab]."""
        ...


def load_model(
    architecture: str,
    checkpoint: GGUFCheckpoint,
    shape: ModelShape,
    numerics: Numerics,
    pages: PageLayout,
    max_context: int,
    device: torch.device,
) -> CausalLM:
    """The model of a known architecture with its weights. Raises ModelFileError for weights that do not fit."""
    module, _, name = MODELS[architecture].rpartition(".")
    model: CausalLM = getattr(import_module(module), name)(checkpoint, shape, numerics, pages, max_context, device)
    return model
