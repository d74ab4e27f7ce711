"""The public operations: shapes, formulas and promises; which code runs is kernels/dispatch.py's business.

Exact operations promise: the bits of an output row depend on that row's own inputs only, never on other rows, their
number, tiling, threads or padding. `float_rms_norm`, `float_silu_mul`, `float_gelu_mul` and `float_attention` are plain
twins, which do not. Float tensors are float32 unless said otherwise.

The CUDA backend takes its kernels from the dispatch by name; these signatures are what they owe, and a test compares.
"""

from torch import Tensor

from kernels.dispatch import kernel
from kernels.reference.attention import KEY_CHUNK, query_levels
from kernels.reference.paged_attention import attention_workspace
from kernels.reference.quantize import GROUP, INT8_LEVELS
from kernels.reference.sampling_table import Sampled, SamplingTable

__all__ = [
    "GROUP",
    "INT8_LEVELS",
    "KEY_CHUNK",
    "Sampled",
    "SamplingTable",
    "add_rms_norm",
    "add_rms_norm_quantize",
    "attention",
    "attention_workspace",
    "embed",
    "float_attention",
    "float_gelu_mul",
    "float_group_matmul",
    "float_matmul",
    "float_rms_norm",
    "float_silu_mul",
    "gated",
    "gated_quantize",
    "gather_pages",
    "gelu_mul",
    "int8_group_matmul",
    "paged_attention",
    "qk_norm_rope_write_kv",
    "quantize_by_group",
    "quantize_groups",
    "quantize_heads",
    "quantize_rows",
    "query_levels",
    "rms_norm",
    "rope",
    "sample",
    "scaled_int8_matmul",
    "silu_mul",
    "write_kv",
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

    The inner sum is exact only where the hardware does not saturate: engine/torch_backend/proof.py tests that first.
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


def paged_attention(
    query: Tensor,
    kv_pages: Tensor,
    kv_scales: Tensor | None,
    row_starts: Tensor,
    context_lens: Tensor,
    block_tables: Tensor,
    score_scale: float,
    window: int = 0,
    out: Tensor | None = None,
    workspace: Tensor | None = None,
) -> Tensor:
    """Causal attention of prefill, decode and verify rows together, over keys and values in pages.

    query [rows, heads, head_dim], any float type, rows of one sequence side by side and rows a whole number of heads
    apart (a view into [rows, all heads, head_dim] will do); kv_pages [num_pages, 2, kv_heads, page_size, head_dim],
    keys then values, page_size a power of two: int8 with kv_scales float32 [num_pages, 2, kv_heads, page_size], or
    float16, bfloat16 with kv_scales None; row_starts int32 [sequences + 1]: where the rows of each sequence begin;
    context_lens int32 [sequences], this step's rows included; block_tables int32 [sequences, pages], read as far as the
    context reaches -> `out` [rows, heads, head_dim], query's type by default.

    Row i of a sequence's q rows stands at position p = context - q + i and sees positions max(0, p - window + 1) ... p
    (window 0: all up to p); query head h reads KV head h * kv_heads // heads.

    y = softmax(q . k * score_scale) . v,  added up in a fixed order: kernels/reference/paged_attention.py

    A row has the same bits alone or in a batch, as decode or prefill, however its prefill was cut. Rows behind
    row_starts[-1] are not written; a query with NaN or infinity gives NaN for its head.
    For CUDA graphs give `out` and `workspace` float32 [attention_workspace(...)]: then nothing is allocated, and what
    is launched depends on shapes alone. A smaller workspace (of no elements, say) costs parallelism, never bits.
    """
    result: Tensor = kernel("paged_attention", query.device.type)(
        query, kv_pages, kv_scales, row_starts, context_lens, block_tables, score_scale, window, out, workspace
    )
    return result


def write_kv(key: Tensor, value: Tensor, kv_pages: Tensor, kv_scales: Tensor | None, slots: Tensor) -> None:
    """key, value [rows, kv_heads, head_dim], any float type and rows a whole number of heads apart; pages and scales as
    in `paged_attention`; slots int64 [rows]: page * page_size + offset, or -1 for a row that is padding.

    int8: scale = max|x| / 127 over the head,  value = round(x * 127 / max|x|), halves to even

    What is not finite is kept as zero (an int8 head as a whole), what a float page cannot hold as its largest number.
    """
    kernel("write_kv", key.device.type)(key, value, kv_pages, kv_scales, slots)


def qk_norm_rope_write_kv(
    qkv: Tensor,
    positions: Tensor,
    cos: Tensor,
    sin: Tensor,
    query_weight: Tensor | None,
    key_weight: Tensor | None,
    eps: float,
    kv_pages: Tensor,
    kv_scales: Tensor | None,
    slots: Tensor,
    out: Tensor | None = None,
) -> Tensor:
    """qkv [rows, heads + 2 * kv_heads, head_dim], any float type, contiguous; positions int32 or int64 [rows]; cos, sin
    float32 [positions, head_dim / 2]; weights [head_dim] or None; the rest as in `write_kv`
    -> queries, `out` [rows, heads, head_dim], qkv's type by default.

    q, k = rms_norm(q, query_weight), rms_norm(k, key_weight) over head_dim where there is a weight
    q, k = [a cos - b sin, b cos + a sin] of their halves a, b, the angles those of the row's position
    then `write_kv`(k, v). Everything between load and store is float32; rows of slot -1 are neither read nor written.

    Angles come as tables: a GPU's own sine of a large angle is neither exact nor the same on every device.
    """
    result: Tensor = kernel("qk_norm_rope_write_kv", qkv.device.type)(
        qkv, positions, cos, sin, query_weight, key_weight, eps, kv_pages, kv_scales, slots, out
    )
    return result


def quantize_by_group(x: Tensor, group: int, out: Tensor, out_scale: Tensor) -> None:
    """x [rows, width], any float type -> out int8 [rows, width], out_scale [rows, ceil(width / group)].

    Each `group` neighbours as `quantize_rows` treats a row; a group as wide as the row makes one scale a row. A group
    with a NaN has the scale NaN. For what no kernel before it could quantise, such as attention's output.
    """
    kernel("quantize_by_group", x.device.type)(x, group, out, out_scale)


def add_rms_norm(x: Tensor, residual: Tensor | None, weight: Tensor, eps: float, out: Tensor) -> None:
    """x, residual (or None) and out [rows, width], weight [width], any float types, rows contiguous.

    residual += x, rounded to residual's type, in place;    out = rms_norm(residual) (or of x), as `rms_norm`
    """
    kernel("add_rms_norm", x.device.type)(x, residual, weight, eps, out)


def add_rms_norm_quantize(
    x: Tensor, residual: Tensor | None, weight: Tensor, eps: float, group: int, out: Tensor, out_scale: Tensor
) -> None:
    """`add_rms_norm`, then `quantize_by_group` of its float32 result, in one pass over the row."""
    kernel("add_rms_norm_quantize", x.device.type)(x, residual, weight, eps, group, out, out_scale)


def gated(gate_up: Tensor, activation: str, out: Tensor) -> None:
    """gate_up [rows, 2 * width], gate first, any float type -> out [rows, width]; activation "silu" or "gelu_tanh".

    y = act(gate) * up, as `silu_mul` and `gelu_mul`
    """
    kernel("gated", gate_up.device.type)(gate_up, activation, out)


def gated_quantize(gate_up: Tensor, activation: str, group: int, out: Tensor, out_scale: Tensor) -> None:
    """`gated`, then `quantize_by_group` of its float32 result, in one pass."""
    kernel("gated_quantize", gate_up.device.type)(gate_up, activation, group, out, out_scale)


def scaled_int8_matmul(
    x: Tensor,
    x_scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    group: int,
    out: Tensor,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
) -> None:
    """x int8 [rows, in], x_scale [rows, groups], weight int8 [out, in], weight_scale [out], bias [out], residual and
    out [rows, out], which may be one tensor. `group` inputs share a scale: 32, 64, 128, or at least `in` for all.

    y[r, o] = weight_scale[o] * sum over g, ascending, of x_scale[r, g] * (sum over i in g of x[r, i] weight[o, i])
    out = y + bias + residual, in float32 until the end

    The inner sum is exact, the outer one's multiplications and additions are separate: the bits of the formula, in any
    tiling. `in` is at most 133,152, where the inner sum would leave int32.
    """
    run = kernel("scaled_int8_matmul", x.device.type)
    run(x, x_scale, weight, weight_scale, group, out, bias, residual)


def float_matmul(
    x: Tensor, weight: Tensor, out: Tensor, bias: Tensor | None = None, residual: Tensor | None = None
) -> None:
    """x [rows, in], weight [out, in], bfloat16, float16 or float32, bias [out], residual and out [rows, out], which may
    be one tensor.    out = x . weight + bias + residual, in float32 until the end

    The Triton version promises that a row's bits do not depend on the other rows or their number: inputs are taken in
    one order by one shape of instruction. It does not promise the bits of the reference.
    """
    kernel("float_matmul", x.device.type)(x, weight, out, bias, residual)


def embed(token_ids: Tensor, weight: Tensor, weight_scale: Tensor | None, factor: float, out: Tensor) -> None:
    """token_ids [rows], below vocab; weight [vocab, width], int8 with weight_scale [vocab] or of a float type with None
    -> out [rows, width].    out[r] = weight[id] * weight_scale[id] * factor
    """
    kernel("embed", weight.device.type)(token_ids, weight, weight_scale, factor, out)


def sample(logits: Tensor, table: SamplingTable, scores: Tensor, sampled: Sampled) -> None:
    """logits [rows, vocab], any float type, left alone; scores float32 [rows, vocab] to work in -> `sampled`.

    One token a row as engine/sampler.py chooses it, but in float32 where that is float64, log probabilities of the
    model's own logits, and `table.history` counts the token. Steps and what differs: kernels/reference/sampling.py.
    A row whose logits are not finite, or of which everything is barred, has the token -1 and nothing else.
    """
    kernel("sample", logits.device.type)(logits, table, scores, sampled)


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
