"""From a config to a model that is ready to step: device, file, numerics, pages; knows the order, not the parts."""

from dataclasses import dataclass

import torch

from engine.batch import PageLayout
from engine.block_pool import NULL_PAGE
from engine.config import EngineConfig
from engine.digest import numerics_digest
from engine.errors import EngineConfigError
from engine.loaders.description import ModelDescription, describe_open
from engine.loaders.gguf import GGUFFile
from engine.loaders.weights import GGUFCheckpoint
from engine.models.llama import Llama
from engine.numerics import choose_numerics
from engine.sizing import cache_size


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """`num_pages` can be handed out; the null page is not among them."""

    model: Llama
    description: ModelDescription
    device: torch.device
    num_pages: int
    max_context: int
    digest: str


def load_model(config: EngineConfig) -> LoadedModel:
    """Raises ModelFileError or EngineConfigError."""
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    device = _device(config.device)
    with GGUFFile(config.model) as file:
        description = describe_open(file)
        shape = description.shape
        numerics = choose_numerics(config.numerics, device, shape.product_widths)
        cache = cache_size(config, shape)
        pages = PageLayout(NULL_PAGE + 1 + cache.num_pages, config.page_size)
        with torch.inference_mode():
            model = Llama(GGUFCheckpoint(file, shape), shape, numerics, pages, cache.max_context, device)
    digest = numerics_digest(description.revision, numerics, device)
    return LoadedModel(model, description, device, cache.num_pages, cache.max_context, digest)


def _device(name: str) -> torch.device:
    has_cuda = torch.cuda.is_available()
    if name == "cuda" and not has_cuda:
        raise EngineConfigError("no CUDA device is to be had; use device 'cpu' or 'auto'", code="device_unavailable")
    return torch.device("cuda" if name == "cuda" or (name == "auto" and has_cuda) else "cpu")
