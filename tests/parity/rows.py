"""Feeds one prompt through a model in chunks of given lengths, as an engine would cut it; knows pages, no requests."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from engine import SamplingParams
from engine.batch import build_batch
from engine.models.causal_lm import CausalLM
from engine.request import Request
from engine.step_plan import ScheduledChunk


def request(ids: Sequence[int], pages: Sequence[int]) -> Request:
    """A request that already owns its pages."""
    return Request("one", SamplingParams(max_tokens=1), list(ids), len(ids), 0, 0, frozenset(), pages=list(pages))


def logits(model: CausalLM, ids: Sequence[int], cuts: Sequence[int], page_size: int = 16) -> Tensor:
    """Of every position, with chunks of the lengths in `cuts`, over and over.  # [positions, vocab]"""
    one = request(ids, range(1, 2 + len(ids) // page_size))
    hidden = []
    start = turn = 0
    while start < len(ids):
        end = min(start + cuts[turn % len(cuts)], len(ids))
        step = build_batch([ScheduledChunk(one, start, end, samples=True)], page_size)
        hidden.append(model.forward(step).copy())  # a backend may overwrite its buffer in the next step
        start, turn = end, turn + 1
    return torch.from_numpy(model.logits(np.concatenate(hidden)).copy())


def relative_error(ours: Tensor, wanted: Tensor) -> float:
    """|ours - wanted| / |wanted| over all logits."""
    return float((ours - wanted).norm() / wanted.norm())
