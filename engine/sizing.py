"""How many KV pages and how long a context a config gives a model: arithmetic on its sizes. Needs no torch."""

from dataclasses import dataclass

from engine.config import EngineConfig
from engine.errors import EngineConfigError
from engine.models.shape import ModelShape


@dataclass(frozen=True, slots=True)
class CacheSize:
    """`num_pages` can be handed out; `max_context` is the most tokens of one request."""

    num_pages: int
    page_size: int
    max_context: int

    @property
    def total_tokens(self) -> int:
        return self.num_pages * self.page_size


def cache_size(config: EngineConfig, shape: ModelShape) -> CacheSize:
    """Pages as asked for; from a budget, no more than all running requests could fill. Raises EngineConfigError."""
    max_context = min(config.max_context or shape.context_length, shape.context_length)
    pages = config.num_pages or _affordable(config, shape, max_context)
    return CacheSize(pages, config.page_size, min(max_context, pages * config.page_size))


def _affordable(config: EngineConfig, shape: ModelShape, max_context: int) -> int:
    page_bytes = shape.kv_bytes_per_token(config.numerics) * config.page_size
    affordable = config.kv_budget_bytes // page_bytes
    if affordable < 1:
        raise EngineConfigError(
            f"a KV budget of {config.kv_budget_bytes} bytes holds no page of {config.page_size} tokens, which takes "
            f"{page_bytes}"
        )
    return min(affordable, config.max_num_seqs * -(-max_context // config.page_size))
