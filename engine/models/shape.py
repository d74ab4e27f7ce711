"""The sizes of a decoder-only transformer as plain numbers; knows no tensors and no file format."""

from dataclasses import dataclass
from typing import Final

_SCALE_BYTES: Final = 4  # one float32 scale for each (token, head) beside int8 values
_FLOAT_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Sizes of one model. `head_dim` is the width of one attention head, `ffn_size` that of the MLP's inner layer."""

    vocab_size: int
    context_length: int
    hidden_size: int
    ffn_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rms_eps: float
    rope_theta: float

    @property
    def product_widths(self) -> tuple[int, ...]:
        """Inputs of the linear layers: of most, of the one behind attention, of the one behind the MLP's middle."""
        return self.hidden_size, self.num_heads * self.head_dim, self.ffn_size

    def kv_bytes_per_token(self, numerics: str) -> int:
        """Bytes of KV cache for one token: int8 with a scale a head under "exact", float32 under "reference"."""
        head = self.head_dim + _SCALE_BYTES if numerics == "exact" else self.head_dim * _FLOAT_BYTES
        return 2 * self.num_layers * self.num_kv_heads * head
