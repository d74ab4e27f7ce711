"""The sizes and options of a decoder-only transformer as plain values; knows no tensors and no file format."""

import math
from dataclasses import dataclass
from typing import Final

_SCALE_BYTES: Final = 4  # one float32 scale for each (token, head) beside int8 values
_FLOAT_BYTES: Final = 4
_AT_ONCE: Final = 64  # numbers of a head that the CPU backend reads together; it keeps whole ones


@dataclass(frozen=True, slots=True)
class RotaryShape:
    """One way to turn positions into angles: angle(p, i) = p * theta^(-2i / head_dim) / factors[i].

    `factors` (head_dim / 2 of them) carry every fixed scaling that checkpoints ask for: all equal for linear scaling,
    rising with the wavelength for Llama 3. None means no scaling.
    """

    theta: float
    factors: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Sizes of one model. `head_dim` is the width of one attention head, `ffn_size` that of the MLP's inner layer.

    Options, in the order in which a layer meets them:

    embedding_scale   what embeddings are multiplied by (Gemma: sqrt(hidden_size))
    qkv_bias          query, key and value have biases (Qwen2)
    qk_norm           RMS norm over each query and key head, before the rotation (Qwen3, Gemma 3)
    rotaries          the ways to rotate; `layer_rotary[layer]` says which one a layer uses (Gemma 3 has two)
    layer_windows     how many positions a layer's row sees, its own included; None: all before it
    attention_scale   what q . k is multiplied by; None: 1 / sqrt(head_dim)
    post_norms        RMS norm behind attention and behind the MLP too, before the residual sum (Gemma 3)
    activation        "silu" or "gelu_tanh", of the gate
    """

    vocab_size: int
    context_length: int
    hidden_size: int
    ffn_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rms_eps: float
    rotaries: tuple[RotaryShape, ...]
    layer_rotary: tuple[int, ...]
    layer_windows: tuple[int | None, ...]
    embedding_scale: float = 1.0
    qkv_bias: bool = False
    qk_norm: bool = False
    attention_scale: float | None = None
    post_norms: bool = False
    activation: str = "silu"

    @property
    def query_size(self) -> int:
        """Width of all query heads together, which attention's output has too."""
        return self.num_heads * self.head_dim

    @property
    def kv_size(self) -> int:
        """Width of all key heads together, and of all value heads."""
        return self.num_kv_heads * self.head_dim

    @property
    def score_scale(self) -> float:
        """What q . k is multiplied by before the softmax."""
        return 1.0 / math.sqrt(self.head_dim) if self.attention_scale is None else self.attention_scale

    @property
    def product_widths(self) -> tuple[int, ...]:
        """Inputs of the linear layers: of most, of the one behind attention, of the one behind the MLP's middle."""
        return self.hidden_size, self.query_size, self.ffn_size

    @property
    def padded_head(self) -> int:
        """A head as the CPU backend keeps it: as wide as the next multiple of 64."""
        return -(-self.head_dim // _AT_ONCE) * _AT_ONCE

    def kv_bytes_per_token(self, numerics: str, *, padded: bool = True) -> int:
        """Bytes of KV cache for one token: under "exact" int8 with a scale a head, of `padded` heads, which the CPU
        backend alone keeps; under "reference" float32."""
        width = self.padded_head if padded else self.head_dim
        head = width + _SCALE_BYTES if numerics == "exact" else self.head_dim * _FLOAT_BYTES
        return 2 * self.num_layers * self.num_kv_heads * head
