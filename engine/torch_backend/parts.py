"""Takes weights from a checkpoint and has a numerics policy make parts of them; knows roles and sizes, no order."""

from collections.abc import Mapping

import torch
from torch import Tensor

from engine.loaders.checkpoint import Checkpoint
from engine.models.shape import ModelShape
from engine.torch_backend.layers.norm import RMSNorm, unchanged
from engine.torch_backend.layers.protocols import Embedding, Linear, Norm
from engine.torch_backend.numerics import Numerics


class Parts:
    """The parts of one model. Peak memory beside what is kept: one part as float32, and one of its roles."""

    def __init__(self, checkpoint: Checkpoint, shape: ModelShape, numerics: Numerics, device: torch.device) -> None:
        self._checkpoint, self._numerics, self._device = checkpoint, numerics, device
        self._eps = shape.rms_eps

    def embedding_and_output(self, vocab_size: int, hidden_size: int) -> tuple[Embedding, Linear]:
        """One matrix for both where the checkpoint has no output of its own."""
        table = (vocab_size, hidden_size)
        embedding, output = self._numerics.table(self._tensor("embedding", table, None))
        if self._checkpoint.has("output"):
            output = self._numerics.linear(self._tensor("output", table, None), None)
        return embedding, output

    def linear(self, outputs: Mapping[str, int], inputs: int, layer: int, *, bias: bool = False) -> Linear:
        """One product for several roles with the same inputs: their outputs side by side, in this order."""
        weights = self._merged(outputs, (inputs,), layer)
        biases = {f"{role}_bias": size for role, size in outputs.items()}
        return self._numerics.linear(weights, self._merged(biases, (), layer).to(self._device) if bias else None)

    def norm(self, role: str, width: int, layer: int | None = None) -> Norm:
        weight = self._tensor(role, (width,), layer).to(self._device)
        return RMSNorm(self._numerics.norm, weight, self._eps)

    def norm_if(self, present: bool, role: str, width: int, layer: int) -> Norm:
        """The norm, or what leaves its input unchanged where the model has none there."""
        return self.norm(role, width, layer) if present else unchanged

    def _merged(self, outputs: Mapping[str, int], rest: tuple[int, ...], layer: int) -> Tensor:
        """One tensor of several roles, each read into its place: [sum of outputs, *rest]."""
        merged, first = torch.empty(sum(outputs.values()), *rest), 0
        for role, size in outputs.items():
            merged[first : first + size] = self._tensor(role, (size, *rest), layer)
            first += size
        return merged

    def _tensor(self, role: str, shape: tuple[int, ...], layer: int | None) -> Tensor:
        return torch.from_numpy(self._checkpoint.take(role, shape, layer))
