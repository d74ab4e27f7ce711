"""From a config to a model that is ready to step: file, sizes, backend; knows the order, not the parts."""

from dataclasses import dataclass

from engine.batch import PageLayout
from engine.block_pool import NULL_PAGE
from engine.config import EngineConfig
from engine.digest import numerics_digest
from engine.loaders import ModelDescription, open_model
from engine.models.causal_lm import CausalLM
from engine.sizing import cache_size


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
        cache = cache_size(config, shape)
        pages = PageLayout(NULL_PAGE + 1 + cache.num_pages, config.page_size)
        # Imported where it is chosen: torch takes two seconds, and a worker that does not need it should not wait.
        from engine.torch_backend.loading import load_torch_model

        model = load_torch_model(config, opened.weights, shape, pages, cache.max_context)
    digest = numerics_digest(description.revision, model.identity)
    return LoadedModel(model, description, cache.num_pages, cache.max_context, digest)
