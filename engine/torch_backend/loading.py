"""Builds a model in torch: device, threads, numerics policy, weights."""

import torch

from engine.batch import PageLayout
from engine.config import EngineConfig
from engine.errors import EngineConfigError
from engine.loaders.checkpoint import Checkpoint
from engine.models.key_balance import balanced
from engine.models.shape import ModelShape
from engine.torch_backend.decoder import Decoder
from engine.torch_backend.numerics import choose_numerics
from engine.torch_backend.parts import Parts


def load_torch_model(
    config: EngineConfig, checkpoint: Checkpoint, shape: ModelShape, pages: PageLayout, max_context: int
) -> Decoder:
    """Raises ModelFileError or EngineConfigError."""
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    device = _device(config.device)
    numerics = choose_numerics(config.numerics, device, shape.product_widths)
    with torch.inference_mode():
        parts = Parts(balanced(checkpoint, shape), shape, numerics, device)
        return Decoder(parts, shape, numerics, pages, max_context, device)


def _device(name: str) -> torch.device:
    has_cuda = torch.cuda.is_available()
    if name == "cuda" and not has_cuda:
        raise EngineConfigError("no CUDA device is to be had; use device 'cpu' or 'auto'", code="device_unavailable")
    return torch.device("cuda" if name == "cuda" or (name == "auto" and has_cuda) else "cpu")
