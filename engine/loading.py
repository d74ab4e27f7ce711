"""From a config to a model that is ready to step: file, sizes, backend; knows the order, not the parts."""

import logging
from dataclasses import dataclass

from engine.batch import PageLayout
from engine.block_pool import NULL_PAGE
from engine.config import EngineConfig
from engine.cuda_backend.driver import has_driver
from engine.digest import numerics_digest
from engine.errors import EngineConfigError
from engine.loaders import ModelDescription, open_model
from engine.loaders.checkpoint import Checkpoint
from engine.memory import Memory
from engine.models.causal_lm import CausalLM
from engine.models.shape import ModelShape
from engine.sizing import cache_size

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """`num_pages` can be handed out; the null page is not among them."""

    model: CausalLM
    description: ModelDescription
    num_pages: int
    max_context: int
    digest: str


def load_model(config: EngineConfig) -> LoadedModel:
    """Raises ModelFileError or EngineConfigError."""
    with open_model(config.model) as opened:
        description = opened.describe()
        shape = description.shape
        on_cuda = _takes_cuda(config, shape)
        memory = _device_memory(config, shape) if on_cuda else None
        cache = cache_size(config, shape, memory, padded_heads=not on_cuda)
        pages = PageLayout(NULL_PAGE + 1 + cache.num_pages, config.page_size)
        build = _build_on_cuda if on_cuda else _build
        model = build(config, opened.weights, description, pages, cache.max_context)
    digest = numerics_digest(description.revision, model.identity)
    return LoadedModel(model, description, cache.num_pages, cache.max_context, digest)


def _takes_cuda(config: EngineConfig, shape: ModelShape) -> bool:
    """Whether the cuda backend computes. Raises EngineConfigError where it was asked for and cannot."""
    asked = config.backend == "cuda"
    if not asked and not (config.backend == "auto" and config.device != "cpu" and has_driver()):
        return False
    from engine.cuda_backend.loading import unsupported

    why = unsupported(config, shape)
    if asked and why is not None:
        raise EngineConfigError(f"the cuda backend cannot run here: {why}; use backend 'auto' or 'torch'")
    if why is not None:
        _log.warning("the cuda backend does not compute, although there is a GPU's driver: %s", why)
    return why is None


def _device_memory(config: EngineConfig, shape: ModelShape) -> Memory | None:
    from engine.cuda_backend.loading import device_memory

    return device_memory(config, shape)


def _build_on_cuda(
    config: EngineConfig, weights: Checkpoint, description: ModelDescription, pages: PageLayout, max_context: int
) -> CausalLM:
    from engine.cuda_backend.loading import load_cuda_model

    return load_cuda_model(config, weights, description.shape, pages, max_context)


def _build(
    config: EngineConfig, weights: Checkpoint, description: ModelDescription, pages: PageLayout, max_context: int
) -> CausalLM:
    """The model on the backend that was asked for; "auto" takes the fused one where it can run.

    Backends are imported where they are chosen: torch alone takes two seconds of a worker's start.
    """
    if config.backend in ("auto", "cpu") and config.device in ("auto", "cpu"):
        from engine.cpu_backend.loading import load_cpu_model, unsupported

        why = unsupported(config, description.shape)
        if why is None:
            return load_cpu_model(config, weights, description.shape, description.revision, pages, max_context)
        if config.backend == "cpu":
            raise EngineConfigError(f"the cpu backend cannot run here: {why}; use backend 'auto' or 'torch'")
        _log.warning("torch computes instead of the cpu backend, several times slower: %s", why)
    from engine.torch_backend.loading import load_torch_model

    return load_torch_model(config, weights, description.shape, pages, max_context)
