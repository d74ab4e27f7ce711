"""What the runner asks of a model, whichever backend computes it: hidden rows, logits of some; numpy at the border."""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from engine.batch import Batch


class CausalLM(Protocol):
    """A model on its device, with the pages of its KV cache; `forward` writes those of the batch's slots."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def identity(self) -> Mapping[str, str]:
        """All but the weights that may change the bits of a token, for the digest: policy, kernels, libraries."""
        ...

    def forward(self, batch: Batch) -> NDArray[np.float32]:
        """The hidden state of every row behind the last layer and before the last norm, until the next call overwrites
        it.  # [rows, hidden]"""
        ...

    def logits(self, hidden: NDArray[np.float32]) -> NDArray[np.float32]:
        """hidden [rows, hidden] -> [rows, vocab], until the next call overwrites it. Gather the rows that sample first:
        this is the widest product."""
        ...


@runtime_checkable
class ChoosesBest(Protocol):
    """A CausalLM that finds the best token of a row faster than it writes the row's logits down."""

    def best_tokens(self, hidden: NDArray[np.float32]) -> NDArray[np.int64]:
        """hidden [rows, hidden] -> the lowest id of each row's largest logit, -1 where one is not finite; until the
        next call overwrites it.  # [rows]"""
        ...
