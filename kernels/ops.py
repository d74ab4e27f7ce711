"""The public operations: shapes, formulas and promises; which code runs is kernels/dispatch.py's business.

Exact operations (all but the `float_` twins) promise: the bits of an output row depend on that row's own inputs only,
never on other rows, their number, tiling, threads or padding. Float tensors are float32 unless said otherwise.
"""

from torch import Tensor

from kernels.dispatch import kernel
from kernels.reference.attention import KEY_CHUNK, query_levels
from kernels.reference.quantize import INT8_LEVELS

__all__ = [
    "INT8_LEVELS",
    "KEY_CHUNK",
    "attention",
    "float_attention",
    "float_chunk_matmul",
    "float_rms_norm",
    "float_silu_mul",
    "gather_pages",
    "int8_matmul",
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


def quantize_heads(x: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
    """x [tokens, heads, head_dim], levels [heads] -> whole float32 of the same shape, scale [tokens, heads].

    scale = max|x| / levels[head],  value = round(x * levels[head] / max|x|)
    """
    result: tuple[Tensor, Tensor] = kernel("quantize_heads", x.device.type)(x, levels)
    return result


def int8_matmul(x: Tensor, weight: Tensor) -> Tensor:
    """x int8 [rows, in], weight int8 [out, in] -> int32 [rows, out].    y[r, o] = sum_i x[r, i] w[o, i], exact

    Exact only where the hardware does not saturate: engine/torch_backend/numerics.py tests that first.
    """
    result: Tensor = kernel("int8_matmul", x.device.type)(x, weight)
    return result


def float_chunk_matmul(x: Tensor, weight: Tensor) -> Tensor:
    """As `int8_matmul`, with the weight as whole float32 [out, in]; exact on every IEEE machine.

    y = sum over chunks of at most 1,024 inputs of int32(x_chunk . w_chunk)
    """
    result: Tensor = kernel("float_chunk_matmul", x.device.type)(x, weight)
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


def attention(query: Tensor, query_scale: Tensor, kv: Tensor, kv_scale: Tensor, last: Tensor) -> Tensor:
    """Causal attention of several rows over each of several sequences.

    query whole float32 [sequences, rows, heads, head_dim] with query_scale [sequences, rows, heads];
    kv int8 [sequences, keys, 2 * kv_heads, head_dim] (keys' heads, then values') with kv_scale [sequences, keys,
    2 * kv_heads], keys a multiple of 64; last int64 [sequences, rows]: the last position that each row may see
    -> [sequences, rows, heads, head_dim].

    y = softmax(q . k / sqrt(head_dim)) . v,  with k and v dequantised by their scales
    """
    result: Tensor = kernel("attention", query.device.type)(query, query_scale, kv, kv_scale, last)
    return result


def float_rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Plain twin of `rms_norm`."""
    result: Tensor = kernel("float_rms_norm", x.device.type)(x, weight, eps)
    return result


def float_silu_mul(gate_up: Tensor) -> Tensor:
    """Plain twin of `silu_mul`."""
    result: Tensor = kernel("float_silu_mul", gate_up.device.type)(gate_up)
    return result


def float_attention(query: Tensor, kv: Tensor, last: Tensor) -> Tensor:
    """Plain twin of `attention` with float32 keys and values and no scales."""
    result: Tensor = kernel("float_attention", query.device.type)(query, kv, last)
    return result
