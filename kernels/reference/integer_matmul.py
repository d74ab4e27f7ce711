"""Two roads to the exact int8 product: torch's integer matmul, and float32 in chunks; knows no scales.

A sum of whole numbers does not depend on its order, so both roads give the same bits for any batch, tile or thread
count, provided that nothing saturates (oneDNN without VNNI does) and no float32 partial sum reaches 2^24.
"""

from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

# 127 * 127 * 1,024 = 16,516,096 < 2^24: every partial sum of a chunk is a whole number that float32 holds exactly.
EXACT_CHUNK: Final = 1024
# cuBLASLt refuses integer products of fewer than 17 rows.
_MIN_CUDA_ROWS: Final = 32


def int8_matmul(x: Tensor, weight: Tensor) -> Tensor:
    rows = x.shape[0]
    if x.is_cuda and rows < _MIN_CUDA_ROWS:
        x = functional.pad(x, (0, 0, 0, _MIN_CUDA_ROWS - rows))
    return torch._int_mm(x, weight.t())[:rows]


def float_chunk_matmul(x: Tensor, weight: Tensor) -> Tensor:
    total = torch.zeros(x.shape[0], weight.shape[0], dtype=torch.int32, device=x.device)  # [rows, out]
    for start in range(0, x.shape[1], EXACT_CHUNK):
        part = slice(start, start + EXACT_CHUNK)
        total += functional.linear(x[:, part].float(), weight[:, part]).to(torch.int32)
    return total
