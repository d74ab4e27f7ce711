"""The public operations: shapes, formulas and promises; which code runs is kernels/dispatch.py's business.

Exact operations (all but the `float_` twins) promise: the bits of an output row depend on that row's own inputs only,
never on other rows, their number, tiling, threads or padding. Float tensors are float32 unless said otherwise.
"""

from torch import Tensor

from kernels.dispatch import kernel
from kernels.reference.attention import KEY_CHUNK, query_levels
from kernels.reference.quantize import GROUP, INT8_LEVELS

__all__ = [
    "GROUP",
    "INT8_LEVELS",
    "KEY_CHUNK",
    "attention",
    "float_attention",
    "float_gelu_mul",
    "float_group_matmul",
    "float_rms_norm",
    "float_silu_mul",
    "gather_pages",
    "gelu_mul",
    "int8_group_matmul",
    "quantize_groups",
    "quantize_heads",
    "quantize_rows",
    "query_levels",
    "rms_norm",
    "rope",
    "silu_mul",
    "write_pages",
]


def quantize_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """x [rows, width] -> int8 [rows, width], scale [rows, 1].

    scale = max|x| / 127,  value = round(x * 127 / max|x|), halves to even
    """
    result: tuple[Tensor, Tensor] = kernel("quantize_rows", x.device.type)(x)
    return result


def quantize_groups(x: Tensor) -> tuple[Tensor, Tensor]:
    """x [rows, width] -> int8 [rows, groups, 64], the last group filled up with zeros, scale [rows, groups].

    Each group of 64 neighbours as `quantize_rows` treats a row.
    """
    result: tuple[Tensor, Tensor] = kernel("quantize_groups", x.device.type)(x)
    return result


def quantize_heads(x: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
    """x [tokens, heads, head_dim], levels [heads] -> whole float32 of the same shape, scale [tokens, heads].

    scale = max|x| / levels[head],  value = round(x * levels[head] / max|x|)
    """
    result: tuple[Tensor, Tensor] = kernel("quantize_heads", x.device.type)(x, levels)
    return result


def int8_group_matmul(x: Tensor, x_scale: Tensor, weight: Tensor, weight_scale: Tensor) -> Tensor:
    """x int8 [rows, groups, 64], x_scale [rows, groups], weight int8 [groups, out, 64], weight_scale [out]
    -> [rows, out].

    y[r, o] = weight_scale[o] * sum over g, ascending, of x_scale[r, g] * (sum_i x[r, g, i] weight[g, o, i])

    The inner sum is exact only where the hardware does not saturate: engine/torch_backend/numerics.py tests that first.
    Multiplications and additions of the outer sum are separate: a fused one would round differently.
    """
    result: Tensor = kernel("int8_group_matmul", x.device.type)(x, x_scale, weight, weight_scale)
    return result


def float_group_matmul(x: Tensor, x_scale: Tensor, weight: Tensor, weight_scale: Tensor) -> Tensor:
    """As `int8_group_matmul`, with the weight as whole float32: the same bits on every IEEE machine."""
    result: Tensor = kernel("float_group_matmul", x.device.type)(x, x_scale, weight, weight_scale)
    return result


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x [rows, width], weight [width] -> [rows, width].    y = x / sqrt(mean(x^2) + eps) * weight

    The mean is taken of x on a grid of max|x| / 2^20. Source: Zhang and Sennrich, 2019 (arXiv 1910.07467).
    """
    result: Tensor = kernel("rms_norm", x.device.type)(x, weight, eps)
    return result


def silu_mul(gate_up: Tensor) -> Tensor:
    """gate_up [rows, 2 * width], gate first -> [rows, width].    y = gate / (1 + exp(-gate)) * up"""
    result: Tensor = kernel("silu_mul", gate_up.device.type)(gate_up)
    return result


def gelu_mul(gate_up: Tensor) -> Tensor:
    """gate_up [rows, 2 * width], gate first -> [rows, width].    y = gate / (1 + exp(-2 u)) * up,
    u = sqrt(2 / pi) * (gate + 0.044715 * gate^3)

    GELU by tanh, since (1 + tanh(u)) / 2 = 1 / (1 + exp(-2 u)). Source: Hendrycks and Gimpel, 2016 (arXiv 1606.08415).
    """
    result: Tensor = kernel("gelu_mul", gate_up.device.type)(gate_up)
    return result


def rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates x [tokens, heads, head_dim] in place, pairing element i with i + head_dim / 2, and returns it.

    cos = [c, c] and sin = [-s, s] along head_dim, both [tokens, 1, head_dim].    y = x * cos + swap_halves(x) * sin
    Source: Su et al., 2021 (arXiv 2104.09864), in the halves layout of the published Llama checkpoints.
    """
    result: Tensor = kernel("rope", x.device.type)(x, cos, sin)
    return result


def write_pages(cache: Tensor, slots: Tensor, values: Tensor) -> None:
    """cache [num_pages, page_size, ...], slots int64 [tokens], values [tokens, ...], of the cache's type.

    cache[slot // page_size, slot % page_size] = value
    """
    kernel("write_pages", cache.device.type)(cache, slots, values)


def gather_pages(cache: Tensor, tables: Tensor) -> Tensor:
    """cache [num_pages, page_size, ...], tables int64 [sequences, pages] -> [sequences, pages * page_size, ...]."""
    result: Tensor = kernel("gather_pages", cache.device.type)(cache, tables)
    return result


def attention(
    query: Tensor,
    query_scale: Tensor,
    kv: Tensor,
    kv_scale: Tensor,
    last: Tensor,
    first: Tensor | None = None,
    score_scale: float | None = None,
) -> Tensor:
    """Causal attention of several rows over each of several sequences.

    query whole float32 [sequences, rows, heads, head_dim] with query_scale [sequences, rows, heads];
    kv int8 [sequences, keys, 2 * kv_heads, head_dim] (keys' heads, then values') with kv_scale [sequences, keys,
    2 * kv_heads], keys a multiple of 64; last and first int64 [sequences, rows]: the last and the first key that each
    row sees (`first` None: from the beginning); score_scale None: 1 / sqrt(head_dim)
    -> [sequences, rows, heads, head_dim].

    y = softmax(q . k * score_scale) . v,  with k and v dequantised by their scales
    """
    result: Tensor = kernel("attention", query.device.type)(query, query_scale, kv, kv_scale, last, first, score_scale)
    return result


def float_rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Plain twin of `rms_norm`."""
    result: Tensor = kernel("float_rms_norm", x.device.type)(x, weight, eps)
    return result


def float_silu_mul(gate_up: Tensor) -> Tensor:
    """Plain twin of `silu_mul`."""
    result: Tensor = kernel("float_silu_mul", gate_up.device.type)(gate_up)
    return result


def float_gelu_mul(gate_up: Tensor) -> Tensor:
    """Plain twin of `gelu_mul`."""
    result: Tensor = kernel("float_gelu_mul", gate_up.device.type)(gate_up)
    return result


def float_attention(
    query: Tensor, kv: Tensor, last: Tensor, first: Tensor | None = None, score_scale: float | None = None
) -> Tensor:
    """Plain twin of `attention` with float32 keys and values and no scales."""
    result: Tensor = kernel("float_attention", query.device.type)(query, kv, last, first, score_scale)
    return result
