"""How many KV pages and how long a context a config gives a model: arithmetic on its sizes. Needs no torch."""

from dataclasses import dataclass
from typing import Final

from engine.config import EngineConfig
from engine.errors import EngineConfigError
from engine.memory import Memory, host_memory
from engine.models.shape import ModelShape

# Of what is left goes to pages: the interpreter, its heap's gaps and what others start need the rest.
_PART: Final = 0.8
_CAP: Final = 2 << 30  # bytes of pages on a host, where nobody asked for a figure: others live there too
_UNKNOWN: Final = Memory(2 << 30, 1 << 62)  # where no system file says what there is

SMALL_MODEL: Final = 1 << 30
"""A model of fewer bytes spends memory on speed on the CPU: weights of four bits are kept as bytes, too."""
_LEVELS: Final = 0.625  # bytes of a weight that is kept in four bits

_FLOAT: Final = 4
_DOUBLE: Final = 8
_SAMPLING_ROWS: Final = 6  # float64 rows of the vocabulary that one choice is made of: scores, weights, orders, noise
_EXPLAINED: Final = 2_500  # bytes of a prompt token's log probabilities with 20 alternatives, as Python keeps them
_EXPLAINED_TOKENS: Final = 1 << 17
_PROMPT_LOGITS: Final = 32 << 20  # logits of prompt rows, and the product they are made of


@dataclass(frozen=True, slots=True)
class CacheSize:
    """`num_pages` can be handed out; `max_context` is the most tokens of one request."""

    num_pages: int
    page_size: int
    max_context: int

    @property
    def total_tokens(self) -> int:
        return self.num_pages * self.page_size


def cache_size(
    config: EngineConfig, shape: ModelShape, memory: Memory | None = None, *, padded_heads: bool = True
) -> CacheSize:
    """Pages as asked for; from a budget of bytes, no more than all running requests could fill.

    `memory` is where pages are to live, None: the host's, as it is now; `padded_heads` is for backends that may keep
    them padded. No context is longer than all pages together, so that nothing that grows with it (the rotary tables)
    is larger than they are. Raises EngineConfigError where a page does not fit, or where what was asked for is more
    than the memory there is.
    """
    max_context = _max_context(config, shape)
    page_bytes = shape.kv_bytes_per_token(config.numerics, padded=padded_heads) * config.page_size
    place = memory or host_memory() or _UNKNOWN
    pages = config.num_pages
    if pages is None:
        budget = config.kv_budget_bytes
        if budget is None:
            budget = measured_budget(config, shape, place, cap=_CAP if memory is None else place.total)
        pages = min(_whole_pages(budget, page_bytes, config), config.max_num_seqs * -(-max_context // config.page_size))
    if pages * page_bytes > place.total:
        raise EngineConfigError(
            f"{pages} pages of {config.page_size} tokens take {_gib(pages * page_bytes)}, and there are "
            f"{_gib(place.total)} of memory; lower num_pages or kv_budget_bytes, or leave both out"
        )
    return CacheSize(pages, config.page_size, min(max_context, pages * config.page_size))


def measured_budget(config: EngineConfig, shape: ModelShape, memory: Memory, cap: int) -> int:
    """Bytes for pages where nobody gave a figure:

    min(cap, 0.8 x (available - weights still to load - workspace))

    Asked before the weights are loaded. Raises EngineConfigError when nothing is left.
    """
    weights = weight_bytes(config.numerics, shape) + loading_bytes(shape)
    context = min(_max_context(config, shape), memory.available // shape.kv_bytes_per_token(config.numerics))
    workspace = workspace_bytes(config, shape, context)
    left = memory.available - weights - workspace
    if left <= 0:
        raise EngineConfigError(
            f"no memory is left for the KV cache: {_gib(memory.available)} are available, the weights take about "
            f"{_gib(weights)} and the buffers of a step {_gib(workspace)}; free some, or lower max_num_seqs, "
            "max_batched_tokens or max_context"
        )
    return min(cap, int(left * _PART))


def weight_bytes(numerics: str, shape: ModelShape) -> int:
    """What weights take at most, as if the output layer were not the embedding's: a byte each under "exact" and a
    float32 scale for each output, else four; of a small model, what it may keep in four bits beside. Norms are nothing
    next to it."""
    hidden, ffn = shape.hidden_size, shape.ffn_size
    heads = shape.num_heads + shape.num_kv_heads
    layer = 2 * hidden * heads * (shape.padded_head if numerics == "exact" else shape.head_dim) + 3 * hidden * ffn
    outputs = shape.num_layers * (2 * shape.query_size + 2 * shape.kv_size + 2 * ffn + hidden) + 2 * shape.vocab_size
    count = shape.num_layers * layer + 2 * shape.vocab_size * hidden
    each = 1 if numerics == "exact" else _FLOAT
    small = count - shape.vocab_size * hidden < SMALL_MODEL  # with the embedding for its output
    twice = int(shape.num_layers * layer * _LEVELS) if numerics == "exact" and small else 0
    return count * each + twice + outputs * _FLOAT


def loading_bytes(shape: ModelShape) -> int:
    """What is needed besides while weights are loaded: the largest of them in float32 twice."""
    return 2 * _FLOAT * shape.hidden_size * max(shape.vocab_size, 2 * shape.ffn_size)


def workspace_bytes(config: EngineConfig, shape: ModelShape, context: int) -> int:
    """What a step needs besides weights and pages, with every seat taken and one request as long as `context`:

    logits            max_num_seqs x vocab x 4, and as much again for the product that they are made of
    sampling          6 x vocab x 8, one row at a time
    prompt logits     32 MiB, in parts however long the prompt
    log probabilities context x 2,500, up to 2^17 tokens: one whole prompt with 20 alternatives
    hidden rows       max_batched_tokens x (4 hidden + query + 2 kv + 3 ffn) x 4
    rotary tables     context x head_dim x 8, for each way to rotate
    """
    logits = 2 * config.max_num_seqs * shape.vocab_size * _FLOAT
    sampling = _SAMPLING_ROWS * shape.vocab_size * _DOUBLE
    explained = min(context, _EXPLAINED_TOKENS) * _EXPLAINED
    row = 4 * shape.hidden_size + shape.query_size + 2 * shape.kv_size + 3 * shape.ffn_size
    hidden = config.max_batched_tokens * row * _FLOAT
    rotary = context * shape.head_dim * 2 * _FLOAT * len(shape.rotaries)
    return logits + sampling + _PROMPT_LOGITS + explained + hidden + rotary


def _max_context(config: EngineConfig, shape: ModelShape) -> int:
    return min(config.max_context or shape.context_length, shape.context_length)


def _whole_pages(budget: int, page_bytes: int, config: EngineConfig) -> int:
    if budget < page_bytes:
        raise EngineConfigError(
            f"a KV budget of {budget} bytes holds no page of {config.page_size} tokens; give it {page_bytes} at least"
        )
    return budget // page_bytes


def _gib(count: int) -> str:
    return f"{count / (1 << 30):.2f} GiB"
