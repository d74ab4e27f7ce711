"""What a sampler on a device reads and writes for a batch of rows: tensors with their shapes; knows no arithmetic.

All of it can live in fixed buffers of the largest batch, so that a captured graph finds the next step's values there.
"""

from dataclasses import dataclass
from typing import Final

from torch import Tensor

MOST_ALTERNATIVES: Final = 20
# A row without a token: its logits were not finite, or everything was barred.
NO_TOKEN: Final = -1
# What a log probability is at least, so that it is a finite number.
LOWEST_LOGPROB: Final = -9999.0


@dataclass(frozen=True, slots=True)
class SamplingTable:
    """Parameters of `rows` rows. Float tensors are float32, "slot" means a row of a larger table, -1 none of it.

    Lists of several rows lie one after the other: row r has entries offsets[r] to offsets[r + 1]. An id stands in one
    list at most once; a biased id that is barred as well is barred.
    """

    temperature: Tensor  # [rows]; 0: greedy
    top_k: Tensor  # int32 [rows]; 0: off
    top_p: Tensor  # [rows]; 1: off
    min_p: Tensor  # [rows]; 0: off
    repetition_penalty: Tensor  # [rows]; 1: off
    frequency_penalty: Tensor  # [rows]
    presence_penalty: Tensor  # [rows]
    noise_key: Tensor  # int64 [rows]: the 64 bits of the noise's key for (seed, choice)
    offset: Tensor  # int64 [rows]: how many tokens the output has
    alternatives: Tensor  # int32 [rows]: log probabilities to give beside the token's own, 0-20; -1: none at all
    history_slot: Tensor  # int32 [rows]
    history: Tensor  # int32 [slots, vocab]: 2 * times in the output, + 1 if in the prompt
    mask_slot: Tensor  # int32 [rows]
    mask: Tensor  # int32 [slots, ceil(vocab / 32)]: bit t % 32 of word t // 32 allows token t
    bias_offsets: Tensor  # int32 [rows + 1]
    bias_ids: Tensor  # int32 [entries]
    bias_values: Tensor  # [entries]
    barred_offsets: Tensor  # int32 [rows + 1]
    barred_ids: Tensor  # int32 [entries]: ends that would come too early, last tokens of bad words


@dataclass(frozen=True, slots=True)
class Sampled:
    """What comes out. Rows of `top_ids` beyond a row's alternatives are -1; logprobs not asked for are left alone."""

    token_ids: Tensor  # int64 [rows]; -1: none, see NO_TOKEN
    logprobs: Tensor  # [rows], natural, of the model's own logits
    top_ids: Tensor  # int32 [rows, 20], likeliest first, equal ones by lowest id
    top_logprobs: Tensor  # [rows, 20]
